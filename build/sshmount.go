package build

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
)

// ssh finds an agent's socket.
func (r *stageRun) ssh(s *runStep, m *runMount) error {
	id := cmpOr(m.CacheID, "default")
	n := 0
	for _, other := range s.mounts {
		if other.kind == "ssh" {
			n++
		}
	}
	if m.target = m.Target; m.target == "" {
		m.target = fmt.Sprintf("/run/buildkit/ssh_agent.%d", n)
	}
	m.target, m.isFile = r.abs(m.target), true
	m.key = digestOf("ssh", id, m.target, fmt.Sprint(m.Required, ids(m.UID), ids(m.GID), ids(m.Mode)))
	socket, ok := r.job.req.SSH[id]
	if !ok {
		m.kind, m.target = "absent", "/dev/null"
		if m.Required {
			return fmt.Errorf("ssh %s: required, and --ssh %s was not given", id, id)
		}
		return nil
	}
	m.host = socket
	if n == 0 {
		s.hidden = append(s.hidden, "SSH_AUTH_SOCK="+m.target)
	}
	return nil
}

// proxy listens for the step where the caller's own agent cannot be reached by
// other users, and hands connections on to it.
func (m *runMount) proxy(c *runContainer) error {
	// Relative to the working directory of nobody: the address of a socket has at
	// most 108 bytes, which a deep root would exceed.
	dir, err := os.MkdirTemp("", "kist-ssh-")
	if err != nil {
		return err
	}
	c.undone = append(c.undone, func() error { return os.RemoveAll(dir) })
	agent := m.host
	m.host = filepath.Join(dir, "agent")
	l, err := net.Listen("unix", m.host)
	if err != nil {
		return err
	}
	c.undone = append(c.undone, l.Close)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go relaySocket(conn, agent)
		}
	}()
	if err := os.Chown(m.host, idOr(m.UID, 0), idOr(m.GID, 0)); err != nil {
		return err
	}
	return os.Chmod(m.host, os.FileMode(idOr(m.Mode, 0o600)))
}

func relaySocket(conn net.Conn, agent string) {
	defer conn.Close()
	up, err := net.Dial("unix", agent)
	if err != nil {
		return
	}
	defer up.Close()
	go func() {
		io.Copy(up, conn)
		up.(*net.UnixConn).CloseWrite()
	}()
	io.Copy(conn, up)
}

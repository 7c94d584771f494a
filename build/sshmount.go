package build

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
)

// ssh finds the agent that a step asks for.
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
	given, ok := r.job.req.SSH[id]
	if !ok {
		m.kind, m.target = "absent", "/dev/null"
		if m.Required {
			return fmt.Errorf("ssh %s: required, and --ssh %s was not given", id, id)
		}
		return nil
	}
	m.agent = &given
	if n == 0 {
		s.hidden = append(s.hidden, "SSH_AUTH_SOCK="+m.target)
	}
	return nil
}

// proxy listens for the step and hands connections on to the agent, whose own
// socket is the caller's alone.
func (m *runMount) proxy(c *runContainer) error {
	// Relative to the working directory of nobody: the address of a socket has at
	// most 108 bytes, which a deep root would exceed.
	dir, err := os.MkdirTemp("", "kist-ssh-")
	if err != nil {
		return err
	}
	c.undone = append(c.undone, func() error { return os.RemoveAll(dir) })
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
			go m.agent.serve(conn)
		}
	}()
	if err := os.Chown(m.host, idOr(m.UID, 0), idOr(m.GID, 0)); err != nil {
		return err
	}
	return os.Chmod(m.host, os.FileMode(idOr(m.Mode, 0o600)))
}

package build

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// secret finds a secret. Only that it is asked for is in the key, not what it is.
func (r *stageRun) secret(s *runStep, m *runMount) error {
	id := m.CacheID
	if id == "" {
		id = path.Base(cmpOr(m.Target, m.Source))
	}
	if id == "" || id == "." || id == "/" {
		return errors.New("RUN --mount=type=secret: wants an id or a target")
	}
	m.key = digestOf("secret", id, m.Target, fmt.Sprint(m.Required, m.Env != nil, ids(m.UID), ids(m.GID), ids(m.Mode)))
	m.isFile = true
	if m.target = m.Target; m.target == "" {
		m.target = "/run/secrets/" + path.Base(id)
	}
	m.target = r.abs(m.target)
	given, ok := r.job.req.Secrets[id]
	if !ok {
		m.kind = "absent"
		m.target = "/dev/null"
		if m.Required {
			return fmt.Errorf("secret %s: required, and --secret id=%s was not given", id, id)
		}
		return nil
	}
	var err error
	if m.data, err = given.read(); err != nil {
		return fmt.Errorf("--secret id=%s: %w", id, err)
	}
	if m.Env != nil {
		s.hidden = append(s.hidden, cmpOr(*m.Env, id)+"="+string(m.data))
		if m.Target == "" {
			m.kind = "absent"
			m.target = "/dev/null"
		}
	}
	return nil
}

// maxSecret is BuildKit's bound.
const maxSecret = 500 << 10

func (s Secret) read() ([]byte, error) {
	if s.Env != "" {
		v, ok := os.LookupEnv(s.Env)
		if !ok {
			return nil, fmt.Errorf("$%s is not set", s.Env)
		}
		return []byte(v), nil
	}
	f, err := os.Open(s.File)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err == nil && len(data) > maxSecret {
		err = fmt.Errorf("%s: larger than 500 KiB", s.File)
	}
	return data, err
}

// secretFile puts the secret on a tmpfs that only this step has.
func (m *runMount) secretFile(at string) error {
	dir := at + ".tmpfs"
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700,size=1m"); err != nil {
		return os.NewSyscallError("mount tmpfs", err)
	}
	file := filepath.Join(dir, "secret")
	if err := os.WriteFile(file, m.data, 0o600); err != nil {
		return err
	}
	if err := os.Chown(file, idOr(m.UID, 0), idOr(m.GID, 0)); err != nil {
		return err
	}
	if err := os.Chmod(file, os.FileMode(idOr(m.Mode, 0o400))); err != nil {
		return err
	}
	return bindOn(file, nil, at, true)
}

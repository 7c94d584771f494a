package monitor

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/kist-containers/kist/internal/sys"
)

// SecretsDir is the directory of the bundle on which secrets are mounted, where
// only the monitor and its container see them.
const SecretsDir = "secrets"

// A SecretFile is a secret to be copied to the tmpfs of the container.
type SecretFile struct {
	From string `json:"from"`
	Name string `json:"name"`
	UID  uint32 `json:"uid,omitempty"`
	GID  uint32 `json:"gid,omitempty"`
	Mode uint32 `json:"mode"`
}

// mountSecrets puts the secrets where no disk keeps them.
func (m *monitor) mountSecrets() error {
	if len(m.Secrets) == 0 {
		return nil
	}
	dir := filepath.Join(m.Bundle, SecretsDir)
	fs, err := sys.NewFS("tmpfs", "secrets", []string{"mode=0700", "size=64m"}, 0)
	if err != nil {
		return fmt.Errorf("secrets: %w", err)
	}
	defer fs.Close()
	at, err := openDir(dir)
	if err != nil {
		return err
	}
	defer at.Close()
	if err := sys.Attach(fs, at); err != nil {
		return err
	}
	for _, s := range m.Secrets {
		if err := s.write(filepath.Join(dir, s.Name)); err != nil {
			return fmt.Errorf("secret: %w", err)
		}
	}
	return nil
}

func (s *SecretFile) write(path string) error {
	data, err := os.ReadFile(s.From)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		return err
	}
	// chown clears bits of the mode, so the mode comes after the owner.
	if err := os.Chown(path, int(s.UID), int(s.GID)); err != nil {
		return err
	}
	return os.Chmod(path, os.FileMode(s.Mode))
}

package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kist-containers/kist/container/monitor"
	"github.com/kist-containers/kist/internal/state"
	"github.com/kist-containers/kist/internal/ui"
)

// Secret is what is known of a secret beside its data. The record and the data
// are <root>/secret/<name>/config.json and data, both for the owner alone.
type Secret struct {
	Version int               `json:"version"`
	ID      string            `json:"id"`
	Name    string            `json:"name"`
	Created time.Time         `json:"created"`
	Updated time.Time         `json:"updated"`
	Labels  map[string]string `json:"labels,omitempty"`
}

// Errors of secrets.
var (
	ErrNoSecret     = errors.New("no such secret")
	ErrSecretExists = errors.New("secret exists")
)

// MostSecret bounds a secret's data, in bytes: podman's.
const MostSecret = 512000

const secretData = "data"

func (e *Engine) secretDir(elem ...string) string {
	return filepath.Join(append([]string{e.Roots.Data, "secret"}, elem...)...)
}

// CreateSecret stores data under a name; replace takes the place of an older one.
func (e *Engine) CreateSecret(ctx context.Context, s Secret, data []byte, replace bool) (*Secret, error) {
	switch {
	case !state.ValidName(s.Name):
		return nil, errors.New("want a name of [a-zA-Z0-9_.-], the first a letter or digit")
	case len(data) == 0 || len(data) > MostSecret:
		return nil, fmt.Errorf("a secret has 1 to %d bytes, this one %d", MostSecret, len(data))
	}
	lock, err := state.AcquireLock(ctx, e.Roots.Lock("secret"))
	if err != nil {
		return nil, err
	}
	defer lock.Unlock()
	now := time.Now().UTC()
	s.Version, s.ID, s.Created, s.Updated = 1, newID()[:25], now, now
	switch old, err := e.Secret(s.Name); {
	case err == nil && !replace:
		return nil, ui.Hint(ErrSecretExists, "kist secret create --replace %s …", s.Name)
	case err == nil:
		s.ID, s.Created = old.ID, old.Created
	case !errors.Is(err, ErrNoSecret):
		return nil, err
	}
	if err := os.MkdirAll(e.secretDir(s.Name), 0o700); err != nil {
		return nil, err
	}
	// The record comes last: a secret without one is not there.
	if err := state.WriteFile(e.secretDir(s.Name, secretData), data, 0o600); err != nil {
		return nil, err
	}
	return &s, state.WriteJSON(e.secretDir(s.Name, configFile), s)
}

// Secret finds a secret by name, ID or a prefix of the ID.
func (e *Engine) Secret(name string) (*Secret, error) {
	all, err := e.Secrets()
	if err != nil {
		return nil, err
	}
	var found []*Secret
	for _, s := range all {
		if s.Name == name || s.ID == name {
			return s, nil
		}
		if name != "" && strings.HasPrefix(s.ID, name) {
			found = append(found, s)
		}
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("%s: %w", name, ErrNoSecret)
	case 1:
		return found[0], nil
	}
	return nil, fmt.Errorf("%s: more than one secret has this prefix", name)
}

// Secrets lists all, by name.
func (e *Engine) Secrets() ([]*Secret, error) {
	entries, err := os.ReadDir(e.secretDir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var all []*Secret
	for _, entry := range entries {
		s := new(Secret)
		if !state.ValidName(entry.Name()) || state.ReadJSON(e.secretDir(entry.Name(), configFile), s) != nil {
			continue // half made, or half removed
		}
		all = append(all, s)
	}
	return all, nil
}

// SecretData reads what a secret holds.
func (e *Engine) SecretData(s *Secret) ([]byte, error) {
	return os.ReadFile(e.secretDir(s.Name, secretData))
}

// RemoveSecret removes one. Containers that run keep what they have of it.
func (e *Engine) RemoveSecret(ctx context.Context, name string) (*Secret, error) {
	lock, err := state.AcquireLock(ctx, e.Roots.Lock("secret"))
	if err != nil {
		return nil, err
	}
	defer lock.Unlock()
	s, err := e.Secret(name)
	if err != nil {
		return nil, err
	}
	return s, state.Remove(e.secretDir(s.Name))
}

type secretFlags struct {
	Secret []string `sep:"none" help:"Show a secret: NAME[,type=mount|env][,target=…][,uid=…][,gid=…][,mode=0444]" placeholder:"SPEC"`
}

// SecretUse is a container's wish for a secret.
type SecretUse struct {
	Name string `json:"name"`
	// Env is the variable that holds it; "" for a file.
	Env string `json:"env,omitempty"`
	// Target is the file's path.
	Target string `json:"target,omitempty"`
	UID    uint32 `json:"uid,omitempty"`
	GID    uint32 `json:"gid,omitempty"`
	Mode   uint32 `json:"mode,omitempty"`
}

// secretsDir is where a container finds its secrets.
const secretsDir = "/run/secrets"

func (f *createFlags) secrets(c *Config) error {
	for _, text := range f.Secret {
		s, err := parseSecret(text)
		if err != nil {
			return fmt.Errorf("--secret %s: %w", text, err)
		}
		if slices.ContainsFunc(c.Secrets, func(o SecretUse) bool { return o.Target == s.Target && o.Env == s.Env }) {
			return fmt.Errorf("--secret %s: two secrets at one place", text)
		}
		c.Secrets = append(c.Secrets, s)
	}
	return nil
}

// parseSecret reads NAME[,KEY=VALUE]….
func parseSecret(text string) (SecretUse, error) {
	parts := strings.Split(text, ",")
	s := SecretUse{Name: parts[0], Mode: 0o444}
	kind, target, forFile := "mount", "", false
	for _, p := range parts[1:] {
		key, value, _ := strings.Cut(p, "=")
		var err error
		switch key {
		case "type":
			kind = value
		case "target":
			target = value
		case "uid":
			s.UID, err = secretNumber(value, 10)
		case "gid":
			s.GID, err = secretNumber(value, 10)
		case "mode":
			s.Mode, err = secretNumber(value, 8)
		default:
			err = errors.New("want type=, target=, uid=, gid= or mode=")
		}
		if err != nil {
			return s, fmt.Errorf("%s: %w", p, err)
		}
		forFile = forFile || key == "uid" || key == "gid" || key == "mode"
	}
	switch {
	case !state.ValidName(s.Name):
		return s, errors.New("want a secret's name first")
	case kind == "env" && forFile:
		return s, errors.New("uid, gid and mode are for type=mount")
	case kind == "env":
		s.Env, s.Mode = target, 0
		setDefault(&s.Env, s.Name)
		if strings.ContainsAny(s.Env, "=\x00") {
			return s, errors.New("target: no variable's name")
		}
	case kind != "mount":
		return s, fmt.Errorf("type=%s: want mount or env", kind)
	case s.Mode > 0o777 || strings.ContainsRune(target, 0):
		return s, errors.New("want a mode up to 0777 and a path as the target")
	default:
		setDefault(&target, s.Name)
		if !path.IsAbs(target) {
			target = path.Join(secretsDir, path.Clean("/"+target))
		}
		s.Target = path.Clean(target)
	}
	return s, nil
}

func secretNumber(text string, base int) (uint32, error) {
	n, err := strconv.ParseUint(text, base, 32)
	if err != nil {
		return 0, errors.New("want a number")
	}
	return uint32(n), nil
}

// checkSecrets refuses what is not there.
func (e *Engine) checkSecrets(c *Config) error {
	for _, use := range c.Secrets {
		if _, err := e.Secret(use.Name); err != nil {
			return fmt.Errorf("--secret %w", ui.Hint(err, "kist secret create %s FILE", use.Name))
		}
	}
	return nil
}

// secretEnv are the secrets that the program gets as variables.
func (m *specMaker) secretEnv() (env []string, err error) {
	for _, use := range m.c.Secrets {
		if use.Env == "" {
			continue
		}
		s, err := m.e.Secret(use.Name)
		if err != nil {
			return nil, err
		}
		data, err := m.e.SecretData(s)
		if err != nil {
			return nil, err
		}
		if slices.Contains(data, 0) {
			return nil, fmt.Errorf("secret %s: no variable can hold its NUL byte", s.Name)
		}
		env = append(env, use.Env+"="+string(data))
	}
	return env, nil
}

// secretFiles are those that the monitor is to put on its tmpfs, each bound at
// its target.
func (m *specMaker) secretFiles() error {
	dir := m.e.dataDir(m.c.ID, bundleDir, monitor.SecretsDir)
	for i, use := range m.c.Secrets {
		if use.Target == "" {
			continue
		}
		s, err := m.e.Secret(use.Name)
		if err != nil {
			return err
		}
		f := monitor.SecretFile{From: m.e.secretDir(s.Name, secretData), Name: strconv.Itoa(i), UID: use.UID, GID: use.GID, Mode: use.Mode}
		if m.e.translates(m.c) {
			uid, okU := hostID(m.c.Spaces.UIDs, use.UID)
			gid, okG := hostID(m.c.Spaces.GIDs, use.GID)
			if !okU || !okG {
				return fmt.Errorf("secret %s: its owner %d:%d is not in the container's user namespace", s.Name, use.UID, use.GID)
			}
			f.UID, f.GID = uid, gid
		}
		m.secrets = append(m.secrets, f)
		m.mounts = append(m.mounts, bindFile(filepath.Join(dir, f.Name), use.Target))
	}
	if len(m.secrets) == 0 {
		return nil
	}
	return os.MkdirAll(dir, 0o700)
}

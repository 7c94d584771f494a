package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/kist-containers/kist/internal/state"
)

// What a caller may conclude from an error.
var (
	ErrNotFound = errors.New("no such volume")
	ErrInUse    = errors.New("volume is in use")
)

// ValidName reports whether s may name a volume.
func ValidName(s string) bool { return state.ValidName(s) && len(s) > 1 }

// A Use is one holder of a volume.
type Use struct {
	// Holder names it to the user: "container web (0123456789ab)".
	Holder string
	Volume string
}

// Options say who needs which volumes; nil for nobody.
type Options struct {
	Rootless bool
	Uses     func() ([]Use, error)
}

// A Store is the volumes below one root.
type Store struct {
	roots state.Roots
	o     Options
}

// Open returns the store below r.Data. It touches nothing on disk.
func Open(r state.Roots, o Options) *Store { return &Store{r, o} }

// A Volume is a named directory.
type Volume struct {
	Version   int               `json:"version"`
	Name      string            `json:"name"`
	Driver    string            `json:"driver"`
	Options   map[string]string `json:"options,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`
	Created   time.Time         `json:"created"`
	Anonymous bool              `json:"anonymous,omitempty"`
	// Filled says that an image's content was copied in, or is not to be.
	Filled bool `json:"filled,omitempty"`
	// Path is the directory that containers see.
	Path string `json:"-"`
}

func (s *Store) dir(elem ...string) string {
	return filepath.Join(append([]string{s.roots.Data, "volume"}, elem...)...)
}

func (s *Store) lock(ctx context.Context, name string) (*state.Lock, error) {
	return state.AcquireLock(ctx, s.dir(".lock", name))
}

const recordFile = "volume.json"

// Get returns the volume name; ErrNotFound.
func (s *Store) Get(name string) (*Volume, error) {
	if !ValidName(name) {
		return nil, fmt.Errorf("%s: %w", name, ErrNotFound)
	}
	v := &Volume{Path: s.dir(name, "_data")}
	err := state.ReadJSON(s.dir(name, recordFile), v)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", name, ErrNotFound)
	}
	return v, err
}

// Ensure returns the volume v.Name, made as v says when it is not there.
func (s *Store) Ensure(ctx context.Context, v Volume) (*Volume, error) {
	if found, err := s.Get(v.Name); err == nil || !errors.Is(err, ErrNotFound) {
		return found, err
	}
	if !ValidName(v.Name) {
		return nil, fmt.Errorf("volume name %q: want at least two of [a-zA-Z0-9_.-], the first a letter or digit", v.Name)
	}
	if v.Driver != "" && v.Driver != "local" {
		return nil, fmt.Errorf("volume %s: driver %q: no such driver", v.Name, v.Driver)
	}
	l, err := s.lock(ctx, v.Name)
	if err != nil {
		return nil, err
	}
	defer l.Unlock()
	if found, err := s.Get(v.Name); err == nil {
		return found, nil
	}
	v.Version, v.Driver, v.Created = 1, "local", time.Now().UTC()
	return s.make(&v)
}

// make builds the volume beside and renames it into place.
func (s *Store) make(v *Volume) (*Volume, error) {
	tmp, err := os.MkdirTemp(s.dir(), ".tmp-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	data := filepath.Join(tmp, "_data")
	if err := os.Mkdir(data, 0o755); err != nil {
		return nil, err
	}
	// Mkdir's mode is cut by the umask; a container's user must get in.
	if err := errors.Join(os.Chmod(data, 0o755), os.Chmod(tmp, 0o711)); err != nil {
		return nil, err
	}
	if err := state.WriteJSON(filepath.Join(tmp, recordFile), v); err != nil {
		return nil, err
	}
	if err := os.Rename(tmp, s.dir(v.Name)); err != nil {
		return nil, err
	}
	v.Path = s.dir(v.Name, "_data")
	return v, state.SyncDir(s.dir())
}

// List returns all volumes, by name.
func (s *Store) List() ([]*Volume, error) {
	entries, err := os.ReadDir(s.dir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []*Volume
	for _, e := range entries {
		if v, err := s.Get(e.Name()); err == nil {
			all = append(all, v)
		}
	}
	return all, nil
}

// Remove removes the volume name, unless somebody uses it.
func (s *Store) Remove(ctx context.Context, name string) error {
	if _, err := s.Get(name); err != nil {
		return err
	}
	l, err := s.lock(ctx, name)
	if err != nil {
		return err
	}
	defer l.Unlock()
	if s.o.Uses != nil {
		uses, err := s.o.Uses()
		if err != nil {
			return err
		}
		for _, u := range uses {
			if u.Volume == name {
				return fmt.Errorf("remove %s: %w by %s", name, ErrInUse, u.Holder)
			}
		}
	}
	return state.Remove(s.dir(name))
}

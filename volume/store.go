package volume

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/kist-containers/kist/internal/rootless"
	"github.com/kist-containers/kist/internal/state"
	"github.com/kist-containers/kist/internal/ui"
)

// What a caller may conclude from an error.
var (
	ErrNotFound = errors.New("no such volume")
	ErrInUse    = errors.New("volume is in use")
	ErrConflict = errors.New("volume exists otherwise")
)

// ValidName reports whether s may name a volume.
func ValidName(s string) bool { return state.ValidName(s) && len(s) > 1 }

// A Use is one holder of a volume.
type Use struct {
	// Holder names it to the user: "container web (0123456789ab)".
	Holder string
	Volume string
}

// Options are what the store is handed of the other domains.
type Options struct {
	Rootless bool
	// Uses says who needs which volumes; nil for nobody.
	Uses func() ([]Use, error)
	// Unpack and Pack read and write archives, for import and export.
	Unpack func(ctx context.Context, dir string, r io.Reader) error
	Pack   func(ctx context.Context, w io.Writer, dir string) error
	// Event notes what happened to a volume: create, destroy; nil for nowhere.
	Event func(name, action string, attributes map[string]string)
}

func (s *Store) event(v *Volume, action string) {
	if s.o.Event != nil {
		s.o.Event(v.Name, action, map[string]string{"driver": v.Driver})
	}
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
	// UID and GID own a new volume's directory; nil for root.
	UID *int `json:"uid,omitempty"`
	GID *int `json:"gid,omitempty"`
	// Quota is the project by which the file system bounds the size, 0 for none.
	Quota uint32 `json:"quota,omitempty"`
	// Path is the directory that containers see; for one that its driver mounts,
	// the place where it is while it is mounted.
	Path string `json:"-"`
}

const (
	recordFile = "volume.json"
	dataDir    = "_data"
)

func (s *Store) dir(elem ...string) string {
	return filepath.Join(append([]string{s.roots.Data, "volume"}, elem...)...)
}

func (s *Store) lockFile(name string) string { return s.dir(".lock", name) }

func (s *Store) lock(ctx context.Context, name string) (*state.Lock, error) {
	return state.AcquireLock(ctx, s.lockFile(name))
}

// Get returns the volume name; ErrNotFound.
func (s *Store) Get(name string) (*Volume, error) {
	if !ValidName(name) {
		return nil, notFound(name)
	}
	v := &Volume{}
	err := state.ReadJSON(s.dir(name, recordFile), v)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, notFound(name)
	}
	if v.Name != name && err == nil {
		return nil, fmt.Errorf("%s: its record names %q", name, v.Name)
	}
	v.Path = s.path(v)
	return v, err
}

func notFound(name string) error {
	return ui.Hint(fmt.Errorf("%s: %w", name, ErrNotFound), "kist volume ls")
}

func (s *Store) path(v *Volume) string {
	if s.driver(v).mounts(v) {
		return s.mountDir(v.Name)
	}
	if len(v.Options) > 0 {
		if w, err := readWish(v.Options); err == nil && w.bind {
			return w.device
		}
	}
	return s.dir(v.Name, dataDir)
}

// NewName makes up the name of an anonymous volume.
func NewName() string {
	var b [32]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// Ensure returns the volume v.Name, made as v says when it is not there. An
// empty driver agrees with any; another one than the volume's is ErrConflict.
func (s *Store) Ensure(ctx context.Context, v Volume) (*Volume, error) {
	if found, err := s.agree(&v); found != nil || err != nil {
		return found, err
	}
	if !ValidName(v.Name) {
		return nil, fmt.Errorf("volume name %q: want two to 128 of [a-zA-Z0-9_.-], the first a letter or digit", v.Name)
	}
	if v.Driver == "" {
		v.Driver = localDriver
	}
	return s.ensure(ctx, s.driver(&v), v)
}

// ensure makes the volume by the driver unless another command was faster.
func (s *Store) ensure(ctx context.Context, driver driver, v Volume) (*Volume, error) {
	if err := driver.check(ctx, &v); err != nil {
		return nil, fmt.Errorf("volume %s: %w", v.Name, err)
	}
	l, err := s.lock(ctx, v.Name)
	if err != nil {
		return nil, err
	}
	defer l.Unlock()
	if found, err := s.agree(&v); found != nil || err != nil {
		return found, err
	}
	v.Version, v.Created = 1, time.Now().UTC()
	if err := s.make(ctx, driver, &v); err != nil {
		return nil, fmt.Errorf("volume %s: %w", v.Name, err)
	}
	s.event(&v, "create")
	v.Path = s.path(&v)
	return &v, nil
}

// agree returns the volume that is there already, if it is what want says.
func (s *Store) agree(want *Volume) (*Volume, error) {
	found, err := s.Get(want.Name)
	switch {
	case errors.Is(err, ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, err
	case want.Driver != "" && want.Driver != found.Driver:
		return nil, fmt.Errorf("volume %s: %w: its driver is %s, not %s", want.Name, ErrConflict, found.Driver, want.Driver)
	case len(want.Options) > 0 && !maps.Equal(want.Options, found.Options):
		return nil, fmt.Errorf("volume %s: %w: its driver options are others", want.Name, ErrConflict)
	}
	return found, nil
}

// make builds the volume beside and renames it into place; the caller holds its
// lock. A killed one leaves the draft, which the next takes away.
func (s *Store) make(ctx context.Context, d driver, v *Volume) (err error) {
	draft := s.dir(".tmp-" + v.Name)
	if err := os.RemoveAll(draft); err != nil {
		return err
	}
	if err := os.MkdirAll(s.dir(), 0o711); err != nil {
		return err
	}
	if err := os.Mkdir(draft, 0o711); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(draft))
		}
	}()
	if err := makeData(filepath.Join(draft, dataDir), v); err != nil {
		return err
	}
	if err := d.create(ctx, v, filepath.Join(draft, dataDir)); err != nil {
		return err
	}
	if err := state.WriteJSON(filepath.Join(draft, recordFile), v); err != nil {
		return err
	}
	// Mkdir's mode is cut by the umask; a container's user must get in.
	if err := os.Chmod(draft, 0o711); err != nil {
		return err
	}
	if err := os.Rename(draft, s.dir(v.Name)); err != nil {
		return err
	}
	return state.SyncDir(s.dir())
}

func makeData(dir string, v *Volume) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	if v.UID == nil && v.GID == nil {
		return nil
	}
	uid, gid := -1, -1
	if v.UID != nil {
		uid = *v.UID
	}
	if v.GID != nil {
		gid = *v.GID
	}
	err := os.Chown(dir, uid, gid)
	var inner *os.PathError
	if errors.As(err, &inner) {
		return rootless.OwnerError("it", max(uid, 0), max(gid, 0), inner.Err)
	}
	return err
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
	all := make([]*Volume, 0, len(entries))
	for _, e := range entries {
		if !ValidName(e.Name()) {
			continue
		}
		v, err := s.Get(e.Name())
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, nil
}

// uses are the holders of each volume.
func (s *Store) uses() (map[string][]string, error) {
	m := map[string][]string{}
	if s.o.Uses == nil {
		return m, nil
	}
	list, err := s.o.Uses()
	for _, u := range list {
		if !slices.Contains(m[u.Volume], u.Holder) {
			m[u.Volume] = append(m[u.Volume], u.Holder)
		}
	}
	return m, err
}

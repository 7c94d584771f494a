// Package image keeps images: it pulls, pushes, loads, saves and builds them
// out of layers, and gives each layer as a directory that overlay can use.
//
// # On disk
//
//	<root>/image/            an OCI image layout, valid at every moment
//	  oci-layout, index.json, blobs/sha256/<hex>
//	  index.lock             held while index.json changes
//	  pin.lock               shared by whoever relies on content, exclusive for GC
//	  partial/<hex>          downloads under way, resumed by the next pull
//	<root>/layer/<hex>       a layer unpacked, named by its chain ID
//	<root>/layer/<hex>.json  what is known about it: diffID, parent, sizes
//
// A blob and a layer get their names by rename, after their bytes were verified
// and synced, so they are complete or absent. index.json refers only to
// what is there. An image's ID is the digest of its configuration.
package image

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/state"
)

// What a caller may conclude from an error.
var (
	ErrNotFound  = errors.New("no such image")
	ErrAmbiguous = errors.New("more than one image")
	ErrInUse     = errors.New("image is in use")
	ErrInvalid   = errors.New("invalid reference")
	ErrCorrupt   = errors.New("content does not match its digest")
)

// Options say what the store's owner may do and who else needs its content.
type Options struct {
	// Rootless unpacks for overlay's userxattr and without device nodes.
	Rootless bool
	// Uses lists who needs which images and layers; nil for nobody. Nothing that
	// it names is removed.
	Uses func() ([]Use, error)
	// Event notes what happened to an image, by its ID or, where docker does, its
	// name; nil for nowhere.
	Event func(id, action string, attributes map[string]string)
}

// event notes an action on the image id, which is called name.
func (s *Store) event(id, action, name string) {
	if s.o.Event != nil {
		s.o.Event(id, action, map[string]string{"name": name})
	}
}

// A Use is one holder of an image or of layers.
type Use struct {
	// Holder names it to the user: "container web (0123456789ab)".
	Holder  string
	ImageID string
	// ChainIDs are the layers it needs.
	ChainIDs []string
	Running  bool
}

// A Store is the images below one root. It holds nothing open.
type Store struct {
	roots state.Roots
	o     Options
	// layout is another OCI layout to read blobs from, "" for the store's own.
	layout string
}

// Open returns the store below r.Data. It touches nothing on disk.
func Open(r state.Roots, o Options) *Store { return &Store{roots: r, o: o} }

func (s *Store) imageDir(elem ...string) string {
	return filepath.Join(append([]string{s.roots.Data, "image"}, elem...)...)
}

func (s *Store) layerDir(elem ...string) string {
	return filepath.Join(append([]string{s.roots.Data, "layer"}, elem...)...)
}

func (s *Store) blobPath(h v1.Hash) string {
	if s.layout != "" {
		return filepath.Join(s.layout, blobName(h))
	}
	return s.imageDir("blobs", h.Algorithm, h.Hex)
}

// layerPath is the directory of a chain ID, whose form the caller has checked.
func (s *Store) layerPath(chainID string) string {
	return s.layerDir(strings.TrimPrefix(chainID, "sha256:"))
}

// Pin keeps the garbage collector out while the lock is held: whoever resolves
// an image and then records that it needs it holds a pin over both.
func (s *Store) Pin(ctx context.Context) (*state.Lock, error) {
	return state.AcquireRLock(ctx, s.imageDir("pin.lock"))
}

// pinned makes the folders of an empty store and pins it: how whatever adds to
// the store begins. unpin ends it.
func (s *Store) pinned(ctx context.Context) (*state.Lock, error) {
	if err := s.prepare(); err != nil {
		return nil, err
	}
	return s.Pin(ctx)
}

// prepare makes the folders of an empty store.
func (s *Store) prepare() error {
	for _, d := range []string{s.imageDir("blobs", "sha256"), s.imageDir("partial"), s.layerDir()} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return err
		}
	}
	path := s.imageDir("oci-layout")
	if _, err := os.Stat(path); err == nil {
		s.tidy()
		return nil
	}
	return state.WriteFile(path, []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o600)
}

// sync makes all that was written below the store durable with one call: a
// layer has tens of thousands of files. See syncfs(2).
func (s *Store) sync() error {
	d, err := os.Open(s.layerDir())
	if err != nil {
		return err
	}
	defer d.Close()
	return os.NewSyscallError("syncfs", unix.Syncfs(int(d.Fd())))
}

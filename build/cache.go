package build

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/image"
	"github.com/kist-containers/kist/internal/state"
)

// A Record is one step that was built: <root>/build/step/<key>.json. The key
// says what went into the step, the record what came out. The file's time of
// change is when the step was used last.
type Record struct {
	Version int    `json:"version"`
	Key     string `json:"key"`
	// Text is the instruction as the Dockerfile had it, expanded.
	Text string `json:"text"`
	// Parent is the chain ID below, "" for the first layer.
	Parent string `json:"parent,omitempty"`
	// ChainID and DiffID are of the layer made; empty when nothing was written.
	ChainID string        `json:"chainID,omitempty"`
	DiffID  string        `json:"diffID,omitempty"`
	Blob    v1.Descriptor `json:"blob,omitzero"`
	// Alias is the key of the step that this one turned out to be.
	Alias   string    `json:"alias,omitempty"`
	Created time.Time `json:"created"`
	// Size is what the layer takes, in bytes.
	Size int64 `json:"size"`

	// LastUsed comes from the file.
	LastUsed time.Time `json:"-"`
	// Kind is "step" or, for the content of --mount=type=cache, "mount".
	Kind string `json:"kind,omitempty"`
}

func (b *Builder) dir(elem ...string) string {
	return filepath.Join(append([]string{b.roots.Data, "build"}, elem...)...)
}

func (b *Builder) recordPath(key string) string { return b.dir("step", key+".json") }

// lookup returns the layer that key gave before. A record whose layer is gone
// is none.
func (b *Builder) lookup(key string) (*Record, bool) {
	for range 2 { // an alias leads to a record, and no further
		rec := new(Record)
		path := b.recordPath(key)
		if err := state.ReadJSON(path, rec); err != nil || rec.Key != key {
			return nil, false
		}
		now := time.Now()
		os.Chtimes(path, now, now) // losing it would only make the record look older
		if rec.Alias != "" {
			key = rec.Alias
			continue
		}
		if rec.ChainID != "" && !b.hasLayer(rec) {
			return nil, false
		}
		return rec, true
	}
	return nil, false
}

func (b *Builder) hasLayer(rec *Record) bool {
	if _, err := os.Stat(b.layerDir(rec.ChainID)); err != nil {
		return false
	}
	_, err := os.Stat(b.blobPath(rec.Blob.Digest))
	return err == nil
}

func (b *Builder) layerDir(chainID string) string {
	return filepath.Join(b.roots.Data, "layer", strings.TrimPrefix(chainID, "sha256:"))
}

func (b *Builder) blobPath(h v1.Hash) string {
	return filepath.Join(b.roots.Data, "image", "blobs", h.Algorithm, h.Hex)
}

// save records a step. It is not synced: a record that a power cut takes is
// made again.
func (b *Builder) save(rec *Record) error {
	rec.Version = 1
	if err := os.MkdirAll(b.dir("step"), 0o700); err != nil {
		return err
	}
	return state.WriteVolatileJSON(b.recordPath(rec.Key), rec)
}

// Records lists the cache, most recently used first.
func (b *Builder) Records() ([]Record, error) {
	entries, err := os.ReadDir(b.dir("step"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []Record
	for _, e := range entries {
		key, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || state.IsLitter(e.Name()) {
			continue
		}
		rec := Record{Kind: "step"}
		info, err := e.Info()
		if err != nil || state.ReadJSON(b.recordPath(key), &rec) != nil || rec.Key != key {
			continue // removed meanwhile, or not ours
		}
		rec.LastUsed = info.ModTime()
		all = append(all, rec)
	}
	all = append(all, b.mountRecords()...)
	slices.SortFunc(all, func(a, b Record) int { return cmp.Or(b.LastUsed.Compare(a.LastUsed), cmp.Compare(a.Key, b.Key)) })
	return all, nil
}

// Uses are the layers that the cache keeps, for image.Options.
func (b *Builder) Uses() ([]image.Use, error) {
	all, err := b.Records()
	if err != nil {
		return nil, err
	}
	use := image.Use{Holder: "build cache"}
	for _, rec := range all {
		if rec.ChainID != "" {
			use.ChainIDs = append(use.ChainIDs, rec.ChainID)
		}
	}
	return []image.Use{use}, nil
}

// ErrInUse is wrapped when a running build holds the cache.
var ErrInUse = errors.New("a build is running")

// A Prune says what to remove of the cache.
type Prune struct {
	// Keep is how many bytes may stay, the most recently used ones.
	Keep int64
	// UnusedFor spares what was used in that time; 0 spares nothing.
	UnusedFor time.Duration
	// Match chooses records; nil chooses all.
	Match func(Record) bool
	// Shared and Private choose records whose layer an image has too, or has
	// not; both or neither choose all.
	Shared, Private bool
}

// Prune removes records, least recently used first, and then what nobody else
// needs of their layers. It returns what it removed. While a build runs it
// removes nothing and wraps ErrInUse.
func (b *Builder) Prune(ctx context.Context, p Prune) ([]Record, error) {
	lock, err := state.TryLock(b.dir("use.lock"))
	if errors.Is(err, state.ErrLocked) {
		return nil, fmt.Errorf("prune the build cache: %w", ErrInUse)
	}
	if err != nil {
		return nil, err
	}
	defer lock.Unlock()
	all, err := b.Records()
	if err != nil {
		return nil, err
	}
	shared := map[string]bool{}
	if p.Shared != p.Private {
		if shared, err = b.imageLayers(); err != nil {
			return nil, err
		}
	}
	var removed []Record
	var kept int64
	for _, rec := range all {
		kept += rec.Size
		if kept <= p.Keep || time.Since(rec.LastUsed) < p.UnusedFor || p.Match != nil && !p.Match(rec) {
			continue
		}
		if p.Shared != p.Private && p.Shared != shared[rec.ChainID] {
			continue
		}
		if err := b.forget(rec); err != nil {
			return removed, err
		}
		kept -= rec.Size
		removed = append(removed, rec)
	}
	if len(removed) == 0 {
		return nil, nil
	}
	_, err = b.store.GC(ctx)
	return removed, errors.Join(err, state.Purge(b.dir("step")), state.Purge(b.dir("mount")), b.purgeTemp())
}

// imageLayers are the chain IDs of the layers that images have.
func (b *Builder) imageLayers() (map[string]bool, error) {
	images, err := b.store.List()
	if err != nil {
		return nil, err
	}
	chains := map[string]bool{}
	for _, i := range images {
		img, err := b.store.Resolve(i.ID)
		if err != nil {
			continue // removed meanwhile, or an index
		}
		for _, l := range img.Layers {
			chains[l.ChainID] = true
		}
	}
	return chains, nil
}

func (b *Builder) forget(rec Record) error {
	if rec.Kind == "mount" {
		return state.Remove(b.dir("mount", rec.Key))
	}
	err := os.Remove(b.recordPath(rec.Key))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// limit is how many bytes the cache may take: what was set, or a tenth of the
// file system.
func (b *Builder) limit() int64 {
	if b.o.CacheLimit > 0 {
		return b.o.CacheLimit
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(b.roots.Data, &fs); err != nil {
		return 10 << 30
	}
	return int64(fs.Blocks) * fs.Bsize / 10
}

// trim keeps the cache within its limit after a build that added to it. Another
// build that runs will do it at its own end.
func (b *Builder) trim(ctx context.Context) error {
	all, err := b.Records()
	if err != nil {
		return err
	}
	var total int64
	for _, rec := range all {
		total += rec.Size
	}
	limit := b.limit()
	if total <= limit {
		return nil
	}
	_, err = b.Prune(ctx, Prune{Keep: limit})
	if errors.Is(err, ErrInUse) {
		return nil
	}
	return err
}

// purgeTemp removes the scratch directories of killed builds. The caller holds
// the cache for itself.
func (b *Builder) purgeTemp() error { return state.Purge(b.dir("tmp")) }

package container

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/container/monitor"
	"github.com/kist-containers/kist/internal/copytree"
	"github.com/kist-containers/kist/internal/state"
	"github.com/kist-containers/kist/internal/sys"
)

// owners translate between the ids that a container sees and those under which
// this process sees the same files. nil are those of a container without a user
// namespace.
type owners struct{ uids, gids []IDMap }

// ownersOf are those of a container's files. Root translates them by mounts: what
// does not run has no mounts, and its files the ids of the container.
func (e *Engine) ownersOf(c *Config) *owners {
	if e.Rootless && len(c.Spaces.UIDs) > 0 || e.shifts(c) && e.Status(c.ID).HasProcess() {
		return &owners{c.Spaces.UIDs, c.Spaces.GIDs}
	}
	return nil
}

// diskOwners turns the owners in the directory of a container's changes into the
// container's, nil where they are equal.
func (e *Engine) diskOwners(c *Config) func(uid, gid uint32) (uint32, uint32) {
	if !e.Rootless || len(c.Spaces.UIDs) == 0 {
		return nil
	}
	return (&owners{c.Spaces.UIDs, c.Spaces.GIDs}).inside
}

// translates reports whether the ids of the container are others than this
// process's.
func (e *Engine) translates(c *Config) bool {
	return e.shifts(c) || e.Rootless && len(c.Spaces.UIDs) > 0
}

func (m *specMaker) owners() *owners { return &owners{m.c.Spaces.UIDs, m.c.Spaces.GIDs} }

// overflowID is whom the kernel shows for ids without a mapping.
const overflowID = 65534

// outside turns the container's numbers into this process's.
func (o *owners) outside(uid, gid uint32) (uint32, uint32) {
	if o == nil {
		return uid, gid
	}
	return outsideOr(o.uids, uid), outsideOr(o.gids, gid)
}

// outsideOr is hostID, or the container's root for an id that it does not have.
func outsideOr(list []IDMap, id uint32) uint32 {
	host, ok := hostID(list, id)
	if !ok {
		host, _ = hostID(list, list[0].Inside)
	}
	return host
}

// inside turns this process's numbers into the container's.
func (o *owners) inside(uid, gid uint32) (uint32, uint32) {
	if o == nil {
		return uid, gid
	}
	return insideID(o.uids, uid), insideID(o.gids, gid)
}

func insideID(list []IDMap, id uint32) uint32 {
	for _, m := range list {
		if id >= m.Outside && id-m.Outside < m.Size {
			return m.Inside + id - m.Outside
		}
	}
	return overflowID
}

// asRoot runs f with the container's root as the owner of new files.
func (o *owners) asRoot(f func() error) error {
	if o == nil {
		return f()
	}
	uid, gid := o.outside(0, 0)
	return sys.AsOwner(int(uid), int(gid), f)
}

// Directories of copies, each with the list of what it is a copy of.
const (
	copiesDir  = ".shifted"
	copiedRoot = "root"
	copiedFrom = "layers.json"
)

// A copied is the list beside a copy.
type copied struct {
	Version int      `json:"version"`
	Lowers  []string `json:"lowers"`
	// Only is the container that alone has the mapping, "" for any.
	Only string `json:"only,omitempty"`
}

// copyShifted gives a container the files of its image with the owners that its user
// namespace wants. Mounts that translate are for the host's root, so an ordinary
// user has a copy, as with podman; it is made once for each image and mapping.
func (e *Engine) copyShifted(ctx context.Context, c *Config) error {
	_, hasRoot := hostID(c.Spaces.UIDs, 0)
	if !e.Rootless || len(c.Lowers) == 0 || len(c.Spaces.UIDs) == 0 || !hasRoot || identity(c.Spaces.UIDs) {
		return nil
	}
	lock, err := state.AcquireLock(ctx, e.Roots.Lock("shifted"))
	if err != nil {
		return err
	}
	defer lock.Unlock()
	if err := e.sweepShifted(""); err != nil {
		return err
	}
	dir := e.dataDir(copiesDir, copyName(c))
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		if err := e.makeShifted(c, dir); err != nil {
			return fmt.Errorf("copy the image for its owners: %w", err)
		}
	}
	c.Lowers = []string{filepath.Join(dir, copiedRoot)}
	return nil
}

// copyName stands for the layers and the mapping.
func copyName(c *Config) string {
	key, _ := json.Marshal([]any{c.Lowers, c.Spaces.UIDs, c.Spaces.GIDs})
	sum := sha256.Sum256(key)
	return hex.EncodeToString(sum[:16])
}

// makeShifted makes the copy beside its place, under a name that Purge knows.
func (e *Engine) makeShifted(c *Config, dir string) (err error) {
	draft := filepath.Join(filepath.Dir(dir), ".tmp-"+filepath.Base(dir))
	root := filepath.Join(draft, copiedRoot)
	if err := os.MkdirAll(root, 0o700); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, sys.RemoveTree(draft))
		}
	}()
	if err := copyImage(c, root); err != nil {
		return err
	}
	from := copied{Version: 1, Lowers: c.Lowers}
	if isAuto(c) {
		from.Only = c.ID
	}
	if err := state.WriteJSON(filepath.Join(draft, copiedFrom), &from); err != nil {
		return err
	}
	if err := syncTree(root); err != nil {
		return err
	}
	return os.Rename(draft, dir)
}

// copyImage copies the merged layers of a container's image into dir.
func copyImage(c *Config, dir string) error {
	from, err := openLayers(c.Lowers)
	if err != nil {
		return err
	}
	defer from.Close()
	// What overlay gave is a mere place: reading wants it opened.
	source, err := os.Open(fmt.Sprintf("/proc/self/fd/%d/.", from.Fd()))
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer target.Close()
	return copytree.CopyAs(source, target, (&owners{c.Spaces.UIDs, c.Spaces.GIDs}).outside)
}

// openLayers opens what layers, top first, show together.
func openLayers(lowers []string) (*os.File, error) {
	if len(lowers) == 1 {
		return os.Open(lowers[0]) // overlay wants two, or one to write to
	}
	return monitor.Open(monitor.RootFS{Lowers: lowers, UserXattr: true})
}

func syncTree(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return os.NewSyscallError("syncfs", unix.Syncfs(int(f.Fd())))
}

// sweepShifted removes the copies of images or containers that are gone, one of
// which the caller may be about to remove, and what killed commands left. The
// caller holds the lock.
func (e *Engine) sweepShifted(removed string) error {
	dir := e.dataDir(copiesDir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return ignoreMissing(err)
	}
	list, err := e.all()
	if err != nil {
		return err
	}
	errs := []error{state.Purge(dir)}
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		used := slices.ContainsFunc(list, func(c *Config) bool { return slices.Contains(c.Lowers, filepath.Join(path, copiedRoot)) })
		if !used && !state.IsLitter(entry.Name()) && e.outdated(path, removed) {
			errs = append(errs, state.Remove(path))
		}
	}
	return errors.Join(errs...)
}

// outdated reports whether what the copy dir is for is gone: its container, or a
// layer. One that is being created has no record yet, and its lock.
func (e *Engine) outdated(dir, removed string) bool {
	var from copied
	if state.ReadJSON(filepath.Join(dir, copiedFrom), &from) != nil {
		return true
	}
	if from.Only != "" {
		return from.Only == removed || !e.claimed(from.Only)
	}
	return slices.ContainsFunc(from.Lowers, func(l string) bool {
		_, err := os.Stat(l)
		return errors.Is(err, fs.ErrNotExist)
	})
}

// isAuto reports whether a container has ids that no other has.
func isAuto(c *Config) bool { return strings.HasPrefix(c.Spaces.User, "auto") }

// dropShifted removes a removed container's copy that no other will want.
func (e *Engine) dropShifted(ctx context.Context, c *Config) error {
	if !e.Rootless || !isAuto(c) {
		return nil
	}
	return e.pruneShifted(ctx, c.ID)
}

// pruneShifted is sweepShifted for a command that removes what nobody needs.
func (e *Engine) pruneShifted(ctx context.Context, removed string) error {
	if _, err := os.Stat(e.dataDir(copiesDir)); err != nil {
		return ignoreMissing(err)
	}
	lock, err := state.AcquireLock(ctx, e.Roots.Lock("shifted"))
	if err != nil {
		return err
	}
	defer lock.Unlock()
	return e.sweepShifted(removed)
}

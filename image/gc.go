package image

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/reexec"
	"github.com/kist-containers/kist/internal/state"
)

// patience is how long a collection waits for pins of other commands. When it
// does not get through, the last of them collects (see unpin).
const patience = 100 * time.Millisecond

// GC removes content that no image and no use needs, and what killed commands
// left. It returns the chain IDs of the removed layers. While a pull or a build
// runs it removes nothing, and leaves the work to that command.
func (s *Store) GC(ctx context.Context) ([]string, error) { return s.collect(ctx) }

func (s *Store) collect(ctx context.Context) ([]string, error) {
	if !exists(s.imageDir("oci-layout")) {
		return nil, nil
	}
	wctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	lock, err := state.AcquireLock(wctx, s.imageDir("pin.lock"))
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return nil, os.WriteFile(s.imageDir("gc-wanted"), nil, 0o600)
	}
	if err != nil {
		return nil, err
	}
	defer lock.Unlock()
	os.Remove(s.imageDir("gc-wanted"))
	return s.sweep()
}

// unpin releases a pin and does the collection that waited for it.
func (s *Store) unpin(pin *state.Lock) {
	pin.Unlock()
	if exists(s.imageDir("gc-wanted")) {
		// What is left stays garbage for the next command; it harms nothing.
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		s.collect(ctx)
	}
}

// tidy removes what killed pulls and builds left half unpacked, when nobody is
// at work. Their downloads stay, for the pull that continues them.
func (s *Store) tidy() {
	litter := func(name string) bool { return strings.HasPrefix(name, ".tmp-") }
	if !slices.ContainsFunc(readNames(s.layerDir()), litter) {
		return
	}
	lock, err := state.TryLock(s.imageDir("pin.lock"))
	if err != nil {
		return
	}
	defer lock.Unlock()
	for _, name := range readNames(s.layerDir()) {
		if litter(name) {
			state.Discard(s.layerDir(name))
		}
	}
	// Without a reaper the litter waits, invisible, for the next collection.
	s.reap()
}

// A live set is what must stay: blobs and layers by the hex of their names.
type live struct{ blobs, layers map[string]bool }

// sweep renames away what is not live. The caller holds the exclusive pin.
func (s *Store) sweep() ([]string, error) {
	keep, err := s.mark()
	if err != nil {
		return nil, err
	}
	removed, errLayers := s.sweepLayers(keep)
	errBlobs := s.sweepBlobs(keep)
	return removed, errors.Join(errLayers, errBlobs, s.reap())
}

// mark finds all that images and uses refer to. Any doubt is an error: nothing
// is removed when something could not be read.
func (s *Store) mark() (*live, error) {
	entries, err := s.readIndex()
	if err != nil {
		return nil, err
	}
	k := &live{map[string]bool{}, map[string]bool{}}
	for _, e := range entries {
		if err := s.markImage(k, e.Descriptor); err != nil {
			return nil, err
		}
	}
	uses, err := s.uses()
	if err != nil {
		return nil, err
	}
	for _, u := range uses {
		k.blobs[hexOf(u.ImageID)] = true
		for _, c := range u.ChainIDs {
			s.markLayer(k, c)
		}
	}
	return k, nil
}

func hexOf(id string) string { return strings.TrimPrefix(id, "sha256:") }

// markLayer keeps a layer, its archive and what it lies on.
func (s *Store) markLayer(k *live, chain string) {
	for chain != "" && !k.layers[hexOf(chain)] {
		k.layers[hexOf(chain)] = true
		rec, err := s.layerRecord(chain)
		if err != nil {
			return
		}
		k.blobs[rec.Blob.Digest.Hex] = true
		chain = rec.Parent
	}
}

// markImage keeps a manifest or index and all that it refers to.
func (s *Store) markImage(k *live, d v1.Descriptor) error {
	return s.walk(d, func(d v1.Descriptor) error {
		k.blobs[d.Digest.Hex] = true
		if d.MediaType.IsIndex() {
			return nil
		}
		m, err := s.readManifest(d)
		if err != nil {
			return ignoreMissing(err)
		}
		k.blobs[m.Config.Digest.Hex] = true
		for _, l := range m.Layers {
			k.blobs[l.Digest.Hex] = true
		}
		cfg, _, err := s.readConfig(m.Config)
		if err != nil {
			return nil // an artifact, or another program's: its blobs stay
		}
		for _, l := range s.layers(cfg.RootFS.DiffIDs) {
			k.layers[hexOf(l.ChainID)] = true
		}
		return nil
	})
}

func (s *Store) sweepLayers(k *live) ([]string, error) {
	entries, err := os.ReadDir(s.layerDir())
	if err != nil {
		return nil, ignoreMissing(err)
	}
	var removed []string
	var errs []error
	for _, e := range entries {
		name := e.Name()
		hex := strings.TrimSuffix(name, ".json")
		switch {
		case isTrash(name) || k.layers[hex] || name == reapLock:
		case strings.HasPrefix(name, ".tmp-"), e.IsDir():
			_, err := state.Discard(s.layerDir(name))
			errs = append(errs, err)
			if err == nil && isHex(name) {
				removed = append(removed, "sha256:"+name)
			}
		default:
			errs = append(errs, os.Remove(s.layerDir(name)))
		}
	}
	slices.Sort(removed)
	return removed, errors.Join(errs...)
}

func (s *Store) sweepBlobs(k *live) error {
	var errs []error
	dir := s.imageDir("blobs", "sha256")
	for _, name := range readNames(dir) {
		if !k.blobs[name] && !isTrash(name) {
			errs = append(errs, os.Remove(filepath.Join(dir, name)))
		}
	}
	for _, name := range readNames(s.imageDir("partial")) {
		// Partial downloads stay for the next pull, for a week.
		path := s.imageDir("partial", name)
		if st, err := os.Stat(path); err == nil && (state.IsLitter(name) || time.Since(st.ModTime()) > 7*24*time.Hour) {
			errs = append(errs, os.Remove(path))
		}
	}
	return errors.Join(errs...)
}

func readNames(dir string) []string {
	var names []string
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func isTrash(name string) bool { return strings.HasPrefix(name, ".trash-") }

// reaperRole is the process that removes what was renamed away: a big layer
// takes seconds, and nobody needs to wait for that. If it is killed, the next
// collection starts another.
const (
	reaperRole = "kist-reaper"
	reapLock   = "reap.lock"
)

// Roles returns the roles that this package plays.
func Roles() []reexec.Role {
	return []reexec.Role{{Name: reaperRole, Main: reaperMain}}
}

// reap starts the reaper when there is something to remove.
func (s *Store) reap() error {
	if !slices.ContainsFunc(readNames(s.layerDir()), isTrash) {
		return nil
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Args[0] = reaperRole
	cmd.Env = []string{}
	cmd.Dir = s.layerDir()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	return cmd.Process.Release()
}

// reaperMain removes the trash of its working directory. It knows no path to
// that: where the whole store was removed meanwhile, it makes nothing anew.
func reaperMain() int {
	lock, err := state.TryLock(reapLock)
	if err != nil {
		return 0 // another one is at it, or the store is gone
	}
	defer lock.Unlock()
	yieldToOthers()
	for again := true; again; {
		again = false
		for _, name := range readNames(".") {
			if isTrash(name) {
				again = os.RemoveAll(name) == nil || again
			}
		}
	}
	return 0
}

// yieldToOthers lets every other process have processor and disk first: a load
// after an rmi took four times as long beside a reaper of equal rank.
func yieldToOthers() {
	const whoGroup, classIdle, classShift = 2, 3, 13
	// By group, which setsid made this process's own: by process, Linux means
	// one thread.
	unix.Setpriority(unix.PRIO_PGRP, 0, 19)
	unix.Syscall(unix.SYS_IOPRIO_SET, whoGroup, 0, classIdle<<classShift)
}

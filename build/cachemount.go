package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/state"
)

// A cacheInfo is <root>/build/mount/<id>/info.json.
type cacheInfo struct {
	Version int    `json:"version"`
	ID      string `json:"id"`
}

// prepareCache finds the directory of a cache mount and locks it as asked.
func (m *runMount) prepareCache(ctx context.Context, c *runContainer) error {
	ns := c.job.plan.args["BUILDKIT_CACHE_MOUNT_NS"]
	id := ns + "/" + cmpOr(m.CacheID, path.Clean(m.target))
	// Hashed: the id is the Dockerfile's and never a file name.
	parts := []string{"mount", id, m.From}
	// BuildKit: another beginning is another cache.
	if m.src != nil || m.UID != nil || m.GID != nil || m.Mode != nil {
		parts = append(parts, m.id, m.Source, ids(m.UID), ids(m.GID), ids(m.Mode))
	}
	base := digestOf(parts...)[:32]
	lockName := func(name string) string { return c.job.b.dir("mount", name+".lock") }
	name := base
	take := func(l *state.Lock, err error) error {
		if err == nil {
			c.undone = append(c.undone, func() error { l.Unlock(); return nil })
		}
		return err
	}
	var err error
	switch m.CacheSharing {
	case instructions.MountSharingLocked:
		err = take(state.AcquireLock(ctx, lockName(name)))
	case instructions.MountSharingPrivate:
		for n := 1; ; n++ {
			if err = take(state.TryLock(lockName(name))); !errors.Is(err, state.ErrLocked) {
				break
			}
			name = fmt.Sprintf("%s-%d", base, n)
		}
	default:
		err = take(state.AcquireRLock(ctx, lockName(name)))
	}
	if err != nil {
		return err
	}
	return m.makeCache(ctx, c, name, id)
}

// makeCache makes the directory where it is missing: filled under another name
// and renamed, so that it is never half full.
func (m *runMount) makeCache(ctx context.Context, c *runContainer, name, id string) error {
	dir := c.job.b.dir("mount", name)
	m.host = filepath.Join(dir, "data")
	if _, err := os.Stat(m.host); err == nil {
		return nil
	}
	tmp, err := os.MkdirTemp(c.job.b.dir("mount"), ".tmp-")
	if err != nil {
		return err
	}
	data := filepath.Join(tmp, "data")
	if err := os.Mkdir(data, 0o755); err != nil {
		return err
	}
	if m.src != nil {
		host := m.host
		if err := m.copyTo(ctx, data); err != nil {
			return err
		}
		m.host = host
	}
	if err := os.Chown(data, idOr(m.UID, 0), idOr(m.GID, 0)); err != nil {
		return err
	}
	if err := os.Chmod(data, os.FileMode(idOr(m.Mode, 0o755))); err != nil {
		return err
	}
	if err := state.WriteJSON(filepath.Join(tmp, "info.json"), cacheInfo{1, id}); err != nil {
		return err
	}
	err = os.Rename(tmp, dir)
	if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOTEMPTY) {
		return os.RemoveAll(tmp) // another step was first
	}
	return err
}

// mountRecords lists the directories of cache mounts.
func (b *Builder) mountRecords() []Record {
	entries, _ := os.ReadDir(b.dir("mount"))
	var all []Record
	for _, e := range entries {
		var info cacheInfo
		dir := b.dir("mount", e.Name())
		if !e.IsDir() || state.IsLitter(e.Name()) || state.ReadJSON(filepath.Join(dir, "info.json"), &info) != nil {
			continue
		}
		rec := Record{Key: e.Name(), Kind: "mount", Text: "cache mount " + strings.TrimPrefix(info.ID, "/"), Size: sizeOf(dir)}
		if st, err := os.Stat(filepath.Join(dir, "data")); err == nil {
			rec.LastUsed = st.ModTime()
			rec.Created = st.ModTime()
		}
		if st, err := os.Stat(b.dir("mount", e.Name()+".lock")); err == nil && st.ModTime().After(rec.LastUsed) {
			rec.LastUsed = st.ModTime()
		}
		all = append(all, rec)
	}
	return all
}

// sizeOf is what the files below dir take, in bytes.
func sizeOf(dir string) (total int64) {
	filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err != nil {
			return nil // it goes away while we look
		}
		if info, err := d.Info(); err == nil && info.Mode().IsRegular() {
			total += info.Size()
		}
		return nil
	})
	return total
}

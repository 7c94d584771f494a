package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kist-containers/kist/internal/sys"
)

// A driver makes volumes and, where they are more than a directory, mounts them.
type driver interface {
	// check refuses options before anything is made.
	check(ctx context.Context, v *Volume) error
	// create makes what the volume is beyond the empty directory data.
	create(ctx context.Context, v *Volume, data string) error
	remove(ctx context.Context, v *Volume) error
	// mounts reports whether the volume is mounted while it is used.
	mounts(v *Volume) bool
	// mount makes it appear on dir, or says where it is.
	mount(ctx context.Context, v *Volume, dir string) (path string, err error)
	unmount(ctx context.Context, v *Volume, dir string) error
}

func (s *Store) driver(v *Volume) driver {
	if v.Driver == "" || v.Driver == localDriver {
		return local{s.o.Rootless}
	}
	return plugin{name: v.Driver, dirs: s.pluginDirs()}
}

// runDir holds, while a volume is mounted, its mount point, and a file for each
// who asked for it, in which is where the volume is.
func (s *Store) runDir(name string, elem ...string) string {
	return filepath.Join(append([]string{s.roots.Run, "volume", name}, elem...)...)
}

func (s *Store) mountDir(name string) string { return s.runDir(name, "mnt") }

// Attach makes the volume name ready for holder, a container's id, and returns
// the host path at which it is. Detach undoes it.
func (s *Store) Attach(ctx context.Context, name, holder string) (string, error) {
	v, err := s.Get(name)
	if err != nil {
		return "", err
	}
	d := s.driver(v)
	if !d.mounts(v) {
		return s.plain(ctx, v)
	}
	l, err := s.lock(ctx, name)
	if err != nil {
		return "", err
	}
	defer l.Unlock()
	if _, err := s.Get(name); err != nil {
		return "", err
	}
	// The holder is noted before the mount, so that a killed command's mount is
	// found and undone.
	if err := os.MkdirAll(s.mountDir(name), 0o755); err != nil {
		return "", err
	}
	have := s.MountPoint(v)
	at := s.runDir(name, "by-"+holder)
	if err := os.WriteFile(at, []byte(have), 0o600); err != nil {
		return "", err
	}
	if have != "" && (have != s.mountDir(name) || sys.Mounted(have)) {
		return have, nil
	}
	path, err := d.mount(ctx, v, s.mountDir(name))
	if err != nil {
		os.Remove(at)
		return "", errors.Join(fmt.Errorf("volume %s: %w", name, err), s.forget(name))
	}
	return path, os.WriteFile(at, []byte(path), 0o600)
}

// plain is the directory of a volume that needs no mount. A copy that was killed
// while it moved in is finished, whoever asks.
func (s *Store) plain(ctx context.Context, v *Volume) (string, error) {
	if err := s.driver(v).check(ctx, v); err != nil {
		return "", fmt.Errorf("volume %s: %w", v.Name, err)
	}
	if v.Filled {
		return v.Path, nil
	}
	beside := s.draft(v, v.Path)
	if _, err := os.Lstat(filepath.Join(beside, fillDone)); err != nil {
		return v.Path, nil
	}
	l, err := s.lock(ctx, v.Name)
	if err != nil {
		return "", err
	}
	defer l.Unlock()
	_, err = finishFill(beside, v.Path)
	return v.Path, err
}

// Detach takes back what Attach gave holder; the last one's unmounts the volume.
// It succeeds when there is nothing to undo.
func (s *Store) Detach(ctx context.Context, name, holder string) error {
	if _, err := os.Lstat(s.runDir(name)); err != nil {
		return nil
	}
	v, err := s.Get(name)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	l, err := s.lock(ctx, name)
	if err != nil {
		return err
	}
	defer l.Unlock()
	return s.detach(ctx, v, holder)
}

// detach is Detach for the holder of the lock; holder "" stands for all.
func (s *Store) detach(ctx context.Context, v *Volume, holder string) error {
	entries, err := os.ReadDir(s.runDir(v.Name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	others := slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() != "mnt" && e.Name() != "by-"+holder })
	if others && holder != "" {
		if err := os.Remove(s.runDir(v.Name, "by-"+holder)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	if err := s.driver(v).unmount(ctx, v, s.mountDir(v.Name)); err != nil {
		return err
	}
	return s.forget(v.Name)
}

// forget removes the notes of a volume that is not mounted any more.
func (s *Store) forget(name string) error {
	entries, err := os.ReadDir(s.runDir(name))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() != "mnt" && !strings.HasPrefix(e.Name(), "by-") {
			continue
		}
		// Not RemoveAll: what were still mounted there would be emptied. A mount of
		// other mount namespaces goes with the directory; see rmdir(2), Linux 3.18.
		if err := os.Remove(s.runDir(name, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return os.Remove(s.runDir(name))
}

// MountPoint is where the volume is now, "" while its driver has not mounted it.
func (s *Store) MountPoint(v *Volume) string {
	if !s.driver(v).mounts(v) {
		return v.Path
	}
	entries, _ := os.ReadDir(s.runDir(v.Name))
	for _, e := range entries {
		if path, err := os.ReadFile(s.runDir(v.Name, e.Name())); err == nil && len(path) > 0 {
			return string(path)
		}
	}
	return ""
}

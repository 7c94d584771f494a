package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/container/monitor"
	"github.com/kist-containers/kist/internal/state"
	"github.com/kist-containers/kist/internal/sys"
	"github.com/kist-containers/kist/internal/ui"
)

// mountDir is where the host sees a container's root file system. The directory
// is made before the mount and goes with it, so that whoever comes later finds
// both; the one above lets nobody but its owner in.
func (e *Engine) mountDir(elem ...string) string {
	return filepath.Join(append([]string{e.Roots.Run, "container-mount"}, elem...)...)
}

// UnshareVariable stands in the environment of what `kist unshare` runs: there a
// mount outlives the command that makes it.
const UnshareVariable = "_KIST_UNSHARE"

// MountRoot mounts the container's own root file system, without the volumes on
// it, for this host to see and returns where. Mounting again gives the same place.
func (e *Engine) MountRoot(ctx context.Context, c *Config) (string, error) {
	if e.Rootless && os.Getenv(UnshareVariable) == "" {
		return "", ui.Hint(errors.New("without root nobody but this command would see the mount"), "kist unshare, then kist mount %s there", c.Name)
	}
	lock, err := e.lock(ctx, c.ID)
	if err != nil {
		return "", err
	}
	defer lock.Unlock()
	if c, err = e.read(c.ID); err != nil {
		return "", err
	}
	dir := e.mountDir(c.ID)
	if sys.Mounted(dir) {
		return dir, nil
	}
	root, err := e.openOwnFiles(c)
	if err != nil {
		return "", err
	}
	defer root.Close()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	if err := attach(root, dir); err != nil {
		return "", errors.Join(err, os.Remove(dir))
	}
	e.event(c, "mount", nil)
	return dir, nil
}

func attach(root *os.File, dir string) error {
	at, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer at.Close()
	return sys.Attach(root, at)
}

// UnmountRoot undoes MountRoot. It succeeds when nothing is mounted.
func (e *Engine) UnmountRoot(ctx context.Context, c *Config) error {
	lock, err := e.lock(ctx, c.ID)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	was := sys.Mounted(e.mountDir(c.ID))
	if err := e.dropMount(c.ID); err != nil {
		return err
	}
	if was {
		e.event(c, "unmount", nil)
	}
	return nil
}

// dropMount takes the container's mount from the host, from whatever mount
// namespace: the kernel detaches what others have on a directory that is removed;
// see rmdir(2), Linux 3.18.
func (e *Engine) dropMount(id string) error {
	// The two calls are for one mount namespace.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := sys.UnmountAll(e.mountDir(id)); err != nil {
		return err
	}
	return ignoreMissing(os.Remove(e.mountDir(id)))
}

// openRoot makes the root file system of a start, or of a look at what does not
// run. One that the host has mounted is shared with it: two overlays on one
// writable layer would not see each other's changes.
func (e *Engine) openRoot(c *Config, fs monitor.RootFS) (*os.File, error) {
	dir := e.mountDir(c.ID)
	switch {
	case !sys.Mounted(dir):
		os.Remove(dir) // and with it a mount that is another namespace's
		return monitor.Open(fs)
	case fs.Map != nil:
		return nil, ui.Hint(errors.New("the host has it mounted, with other owners"), "kist unmount %s", c.Name)
	}
	return sys.Clone(nil, dir, len(c.Lowers) == 0, 0)
}

// mountedRoots are the containers whose root the host has mounted.
func (e *Engine) mountedRoots() ([]*Config, error) {
	list, err := e.all()
	if err != nil {
		return nil, err
	}
	var found []*Config
	for _, c := range list {
		if sys.Mounted(e.mountDir(c.ID)) {
			found = append(found, c)
		}
	}
	return found, nil
}

// checkMounts looks for mounts of containers that are gone, and for mount points
// without a mount.
func (e *Engine) checkMounts(repair bool) ([]string, error) {
	entries, err := os.ReadDir(e.mountDir())
	if err != nil {
		return nil, ignoreMissing(err)
	}
	var found []string
	var errs []error
	for _, entry := range entries {
		id := entry.Name()
		there := !e.unmade(id)
		// A user's mounts are another namespace's, which is not to be seen from here.
		if there && (e.Rootless || sys.Mounted(e.mountDir(id))) {
			continue
		}
		lock, err := state.TryLock(e.Roots.Lock("container-" + id))
		if err != nil {
			continue // a command is at it
		}
		found = append(found, fmt.Sprintf("mount point %s of container %s, which is not mounted or gone", e.mountDir(id), shortID(id)))
		if repair {
			errs = append(errs, e.dropMount(id))
		}
		lock.Unlock()
	}
	return found, errors.Join(errs...)
}

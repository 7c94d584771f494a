package container

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/container/runtime"
	"github.com/kist-containers/kist/internal/sys"
	"github.com/kist-containers/kist/volume"
)

// openRootFS opens what the container sees as "/": of its running process, or of
// a mount that nobody else sees.
func (e *Engine) openRootFS(c *Config) (*os.File, error) {
	return e.openLive(c, func() (*os.File, error) {
		return e.process(c.ID).OpenFile("root", unix.O_PATH|unix.O_DIRECTORY)
	})
}

// openLive opens what the running process has, or else mounts the container's
// files. A process that ends in between is looked at once more.
func (e *Engine) openLive(c *Config, open func() (*os.File, error)) (*os.File, error) {
	const tries, pause = 50, 20 * time.Millisecond
	for try := 1; e.Status(c.ID).HasProcess(); try++ {
		f, err := open()
		if err == nil || try == tries || !isGone(err) {
			return f, err
		}
		time.Sleep(pause)
	}
	return e.openRoot(c, e.rootFS(c))
}

// isGone reports whether an error says that a container has ended since its status
// was looked at.
func isGone(err error) bool {
	return errors.Is(err, runtime.ErrNotFound) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH)
}

// endedMeanwhile words such an error: the container is there, and does not run.
func endedMeanwhile(err error) error {
	if err != nil && isGone(err) {
		return ErrNotRunning
	}
	return err
}

// openOwnFiles opens the container's own root file system, without what is
// mounted on it: no /proc, no volume.
func (e *Engine) openOwnFiles(c *Config) (*os.File, error) {
	return e.openLive(c, func() (*os.File, error) {
		ns, err := e.process(c.ID).OpenFile("ns/mnt", os.O_RDONLY)
		if err != nil {
			return nil, err
		}
		defer ns.Close()
		return cloneRootOf(ns)
	})
}

// cloneRootOf makes a detached copy of the mount that is "/" in the mount
// namespace ns. Only from within can it be copied; see open_tree(2).
func cloneRootOf(ns *os.File) (root *os.File, err error) {
	err = sys.InMounts(ns, func() error {
		root, err = sys.Clone(nil, "/", false, 0)
		return err
	})
	return root, err
}

// mountedAt finds the mount of the configuration that the path lies in, and the
// path within it. Of a container that does not run, volumes are seen this way
// only.
func (c *Config) mountedAt(p string) (m volume.Mount, rest string, ok bool) {
	for _, x := range c.Mounts {
		if x.Type != volume.TypeVolume && x.Type != volume.TypeBind {
			continue
		}
		inside, found := strings.CutPrefix(p, path.Clean(x.Target))
		if found && (inside == "" || inside[0] == '/') && len(x.Target) > len(m.Target) {
			m, rest, ok = x, path.Clean("/"+inside), true
		}
	}
	return m, rest, ok
}

// openMount opens the source of a volume or bind mount.
func (e *Engine) openMount(m volume.Mount) (*os.File, error) {
	source := m.Source
	if m.Type == volume.TypeVolume {
		v, err := e.Volumes.Get(m.Source)
		if err != nil {
			return nil, err
		}
		source = v.Path
	}
	f, err := os.OpenFile(source, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOTDIR) {
		return nil, fmt.Errorf("%s: a single file is mounted there: start the container to reach it", m.Target)
	}
	if err != nil || m.Subpath == "" {
		return f, err
	}
	defer f.Close()
	return sys.OpenInRoot(f, m.Subpath, unix.O_PATH|unix.O_DIRECTORY, 0)
}

package build

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/container/monitor"
	"github.com/kist-containers/kist/internal/sys"
)

// A view is the merged tree of layers, writable into upper where there is one.
// It is a detached mount: it has no place in any mount namespace, and ends with
// the last descriptor of it, so that a killed build leaves nothing mounted.
type view struct {
	Root *os.File
	// upper is what was written, "" for a view to read.
	upper string
}

func (v *view) Close() error { return v.Root.Close() }

// openView merges layers, given base first. scratch is an empty directory of the
// step: upper and work are made in it when the view is to be writable.
func (b *Builder) openView(layers []layer, scratch string, writable bool) (*view, error) {
	if !writable {
		return b.readView(layers, scratch)
	}
	v := &view{upper: filepath.Join(scratch, "upper")}
	if err := makeDir(v.upper, 0o755); err != nil {
		return nil, err
	}
	var err error
	if len(layers) == 0 {
		v.Root, err = os.Open(v.upper)
		return v, err
	}
	work := filepath.Join(scratch, "work")
	if err := os.Mkdir(work, 0o700); err != nil {
		return nil, err
	}
	v.Root, err = b.mount(monitor.RootFS{Lowers: lowers(layers), Upper: v.upper, Work: work})
	return v, err
}

// makeDir makes a directory of exactly that mode, whatever the umask.
func makeDir(path string, mode os.FileMode) error {
	if err := os.Mkdir(path, mode); err != nil {
		return err
	}
	return os.Chmod(path, mode)
}

// readView needs overlay for two layers or more only.
func (b *Builder) readView(layers []layer, scratch string) (*view, error) {
	var dir string
	switch len(layers) {
	case 0:
		dir = filepath.Join(scratch, "empty")
		if err := makeDir(dir, 0o755); err != nil {
			return nil, err
		}
	case 1:
		dir = layers[0].Dir
	default:
		root, err := b.mount(monitor.RootFS{Lowers: lowers(layers)})
		return &view{Root: root}, err
	}
	root, err := os.Open(dir)
	return &view{Root: root}, err
}

// lowers are the layers' directories top first, as overlay wants them.
func lowers(layers []layer) []string {
	dirs := make([]string, 0, len(layers))
	for i := len(layers) - 1; i >= 0; i-- {
		dirs = append(dirs, layers[i].Dir)
	}
	return dirs
}

func (b *Builder) mount(fs monitor.RootFS) (*os.File, error) {
	fs.UserXattr = b.o.Rootless
	return monitor.Open(fs)
}

// inOwnMounts runs f on a thread with a mount namespace of its own, private to
// the host's, and waits for it. See unshare(2): CLONE_FS comes with CLONE_NEWNS.
func inOwnMounts(f func() error) error {
	return sys.OnThread(func() error {
		if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
			return os.NewSyscallError("unshare mounts", err)
		}
		if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
			return os.NewSyscallError("make mounts private", err)
		}
		return f()
	})
}

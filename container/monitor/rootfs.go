package monitor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/sys"
)

// privateMounts gives this thread a mount namespace, to which the host's mounts
// come and from which none go.
func privateMounts() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return os.NewSyscallError("unshare mount namespace", err)
	}
	return os.NewSyscallError("make mounts private", unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""))
}

// mountRoot attaches the container's root file system, which the engine made and
// nobody else sees, in this thread's mount namespace. The host never has the
// mount, and it is gone with the last process that does, however that ends.
func (m *monitor) mountRoot(root *os.File) error {
	return attach(root, filepath.Join(m.Bundle, "rootfs"))
}

// mountImages mounts the other images that the container is to see.
func (m *monitor) mountImages() error {
	for _, i := range m.Images {
		mount, err := i.open(m.Rootless)
		if err != nil {
			return err
		}
		if err := attach(mount, i.At); err != nil {
			return err
		}
	}
	return nil
}

// open makes the detached mount of i.
func (i ImageMount) open(rootless bool) (*os.File, error) {
	if i.Inside == "" {
		return Open(i.RootFS(rootless))
	}
	top, err := openDir(i.Lowers[0])
	if err != nil {
		return nil, err
	}
	defer top.Close()
	f, err := sys.OpenInRoot(top, i.Inside, unix.O_PATH, 0)
	if err != nil {
		return nil, fmt.Errorf("subpath %s: %w", i.Inside, err)
	}
	defer f.Close()
	return sys.Clone(f, "", true, 0)
}

// unmountRoot undoes mountRoot and mountImages. Its success says that nothing is
// mounted there.
func (m *monitor) unmountRoot() error {
	err := sys.UnmountAll(filepath.Join(m.Bundle, "rootfs"))
	for _, i := range m.Images {
		err = errors.Join(err, sys.UnmountAll(i.At))
	}
	if len(m.Secrets) > 0 {
		err = errors.Join(err, sys.UnmountAll(filepath.Join(m.Bundle, SecretsDir)))
	}
	return err
}

// Mount mounts a root file system on target, an existing directory of this
// thread's mount namespace.
func Mount(fs RootFS, target string) error {
	mount, err := Open(fs)
	if err != nil {
		return err
	}
	return attach(mount, target)
}

// attach mounts the detached mount on target and closes it.
func attach(mount *os.File, target string) error {
	defer mount.Close()
	at, err := os.OpenFile(target, unix.O_PATH, 0)
	if err != nil {
		return err
	}
	defer at.Close()
	return sys.Attach(mount, at)
}

// Open makes a root file system as a detached mount, which nobody but the
// holder of the descriptor sees.
func Open(fs RootFS) (*os.File, error) {
	if fs.Map != nil {
		return openMapped(fs)
	}
	if len(fs.Lowers) == 0 {
		clone, err := sys.Clone(nil, fs.Dir, true, 0)
		if err != nil {
			return nil, fmt.Errorf("root file system %s: %w", fs.Dir, err)
		}
		return clone, nil
	}
	if fs.Work != "" {
		// Overlay's mark of an earlier volatile mount, which keeps others from being
		// made. What it protects from is a power cut, which --rm does not outlive.
		os.RemoveAll(filepath.Join(fs.Work, "work", "incompat"))
	}
	if fs.Volatile {
		mount, err := sys.NewFS("overlay", "overlay", append(fs.options(), "volatile"), 0)
		if err == nil {
			return mount, nil
		}
	}
	mount, err := sys.NewFS("overlay", "overlay", fs.options(), 0)
	for try := 0; errors.Is(err, unix.ENOENT) && try < 5; try++ {
		// Each mount makes the content of the work directory anew: another command's
		// may have removed what this one had just made.
		time.Sleep(5 * time.Millisecond)
		mount, err = sys.NewFS("overlay", "overlay", fs.options(), 0)
	}
	if err == nil || !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENAMETOOLONG) {
		return mount, err
	}
	// Before Linux 6.7 there is no lowerdir+.
	old, errOld := sys.NewFS("overlay", "overlay", fs.oldOptions(), 0)
	if errOld != nil {
		return nil, err
	}
	return old, nil
}

// options give each layer by itself: no limit on their number, and any
// character in their names.
func (fs RootFS) options() []string {
	var o []string
	for _, l := range fs.Lowers {
		o = append(o, "lowerdir+="+l)
	}
	return append(o, fs.upper()...)
}

func (fs RootFS) oldOptions() []string {
	escaped := make([]string, len(fs.Lowers))
	for i, l := range fs.Lowers {
		escaped[i] = strings.NewReplacer(`\`, `\\`, ":", `\:`).Replace(l)
	}
	return append([]string{"lowerdir=" + strings.Join(escaped, ":")}, fs.upper()...)
}

func (fs RootFS) upper() []string {
	var o []string
	if fs.Upper != "" {
		o = append(o, "upperdir="+fs.Upper, "workdir="+fs.Work)
	}
	if fs.UserXattr {
		o = append(o, "userxattr")
	}
	return o
}

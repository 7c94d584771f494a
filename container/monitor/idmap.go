package monitor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/sys"
)

// openMapped is Open for a container with a user namespace of its own: overlay
// is laid over mounts of the layers that translate owners by fs.Map, so that
// files keep their owners on disk and no layer is copied. Overlay takes such
// layers since Linux 5.19.
func openMapped(fs RootFS) (*os.File, error) {
	if len(fs.Lowers) == 0 {
		return mappedClone(fs.Dir, fs.Map)
	}
	var layers []*os.File
	defer func() { closeAll(layers) }()
	for _, l := range fs.Lowers {
		f, err := mappedClone(l, fs.Map)
		if err != nil {
			return nil, err
		}
		layers = append(layers, f)
	}
	// Upper and work directory must be on one mount: that of their parent.
	writable, err := mappedClone(filepath.Dir(fs.Upper), fs.Map)
	if err != nil {
		return nil, err
	}
	defer writable.Close()
	mount, err := overlayOf(layers, writable, fs)
	if errors.Is(err, unix.EINVAL) {
		return overlayByPath(layers, writable, fs)
	}
	return mount, err
}

// ErrNoIDMap is wrapped when the owners of a file system's files cannot be
// translated: the kernel must be able to (Linux 5.12), and the file system (ext4,
// xfs and btrfs early, tmpfs since 6.3, overlay not). See mount_setattr(2).
var ErrNoIDMap = errors.New("the file system has no idmapped mounts")

// mappedClone is a detached mount of dir with translated owners.
func mappedClone(dir string, ns *os.File) (*os.File, error) {
	clone, err := sys.Clone(nil, dir, false, 0)
	if err != nil {
		return nil, err
	}
	err = sys.SetAttr(clone, false, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns.Fd())})
	runtime.KeepAlive(ns)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP) {
		err = fmt.Errorf("%w: %w", ErrNoIDMap, err)
	}
	if err != nil {
		clone.Close()
		return nil, fmt.Errorf("translate owners (--userns) in %s: %w", dir, err)
	}
	return clone, nil
}

// overlayOf gives the layers as descriptors: Linux 6.13, and detached ones 6.15.
func overlayOf(layers []*os.File, writable *os.File, fs RootFS) (*os.File, error) {
	ctx, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("fsopen overlay", err)
	}
	defer unix.Close(ctx)
	for _, l := range layers {
		if err := unix.FsconfigSetFd(ctx, "lowerdir+", int(l.Fd())); err != nil {
			return nil, os.NewSyscallError("overlay lowerdir+", err)
		}
	}
	for key, dir := range map[string]string{"upperdir": fs.Upper, "workdir": fs.Work} {
		f, err := sys.OpenInRoot(writable, filepath.Base(dir), unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return nil, err
		}
		err = unix.FsconfigSetFd(ctx, key, int(f.Fd()))
		f.Close()
		if err != nil {
			return nil, os.NewSyscallError("overlay "+key, err)
		}
	}
	unix.FsconfigSetString(ctx, "source", "overlay")
	if err := unix.FsconfigCreate(ctx); err != nil {
		return nil, os.NewSyscallError("mount overlay", err)
	}
	fd, err := unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fsmount overlay", err)
	}
	return os.NewFile(uintptr(fd), "overlay"), nil
}

// overlayByPath is for older kernels: the layers are attached to paths, in a mount
// namespace that ends with this call. Overlay holds copies of the mounts.
func overlayByPath(layers []*os.File, writable *os.File, fs RootFS) (mount *os.File, err error) {
	err = sys.OnThread(func() error {
		mount, err = overlayInPrivate(layers, writable, fs)
		return err
	})
	return mount, err
}

func overlayInPrivate(layers []*os.File, writable *os.File, fs RootFS) (*os.File, error) {
	if err := privateMounts(); err != nil {
		return nil, err
	}
	const place = "/tmp" // any directory: nobody else sees what is mounted on it
	tmp, err := sys.NewFS("tmpfs", "kist", nil, 0)
	if err != nil {
		return nil, err
	}
	defer tmp.Close()
	at, err := openDir(place)
	if err != nil {
		return nil, err
	}
	defer at.Close()
	if err := sys.Attach(tmp, at); err != nil {
		return nil, err
	}
	mapped := RootFS{Upper: filepath.Join(place, "w", filepath.Base(fs.Upper)), Work: filepath.Join(place, "w", filepath.Base(fs.Work))}
	attach := func(f *os.File, name string) error {
		path := filepath.Join(place, name)
		if err := os.Mkdir(path, 0o755); err != nil {
			return err
		}
		return Attach(f, path)
	}
	for i, l := range layers {
		name := strconv.Itoa(i)
		if err := attach(l, name); err != nil {
			return nil, err
		}
		mapped.Lowers = append(mapped.Lowers, filepath.Join(place, name))
	}
	if err := attach(writable, "w"); err != nil {
		return nil, err
	}
	return Open(mapped)
}

// Attach mounts a detached mount on the directory at path.
func Attach(mount *os.File, path string) error {
	at, err := openDir(path)
	if err != nil {
		return err
	}
	defer at.Close()
	return sys.Attach(mount, at)
}

package runtime

import (
	"errors"
	"fmt"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/sys"
)

// mountAll opens the root file system and mounts everything below it: on
// descriptors that were looked up with the root as "/", never on paths.
func (p *initProcess) mountAll() error {
	if err := propagation(p.Spec); err != nil {
		return err
	}
	root, err := p.openRoot()
	if err != nil {
		return err
	}
	p.root = root
	// This thread's since it has a mount namespace: the program's user is to get
	// through the directories that mounts lack.
	unix.Umask(0o022)
	for i := range p.Spec.Mounts {
		m := &p.Spec.Mounts[i]
		if p.postpone && isLate(m) {
			continue
		}
		if err := p.mount(i, m); err != nil {
			return fmt.Errorf("mount %s on %s: %w", describe(m), m.Destination, err)
		}
	}
	return p.devices()
}

func describe(m *specs.Mount) string {
	if m.Source != "" && (m.Type == "bind" || isBind(m)) {
		return m.Source
	}
	return m.Type
}

// propagation cuts this namespace's mounts off from the host's, as far as the
// spec does not ask otherwise.
func propagation(spec *specs.Spec) error {
	flag := uintptr(unix.MS_PRIVATE | unix.MS_REC)
	if name := spec.Linux.RootfsPropagation; name != "" {
		known, ok := propagations[name]
		if !ok {
			return fmt.Errorf("rootfsPropagation %q: unknown", name)
		}
		// A shared root would send the mounts below to the host; the wish is for
		// the container's own "/", and set after the pivot.
		if known&unix.MS_SHARED == 0 {
			flag = known | unix.MS_REC
		} else {
			flag = unix.MS_SLAVE | unix.MS_REC
		}
	}
	return os.NewSyscallError("make mounts private", unix.Mount("", "/", "", flag, ""))
}

// openRoot makes the root file system a mount of its own, which pivot_root
// wants, and opens it.
func (p *initProcess) openRoot() (*os.File, error) {
	if p.rootMount != nil {
		return p.openGiven()
	}
	clone, err := sys.Clone(nil, p.Rootfs, true, 0)
	if err != nil {
		return nil, fmt.Errorf("root file system: %w", err)
	}
	defer clone.Close()
	at, err := os.OpenFile(p.Rootfs, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("root file system: %w", err)
	}
	defer at.Close()
	if err := sys.Attach(clone, at); err != nil {
		return nil, fmt.Errorf("root file system: %w", err)
	}
	return os.OpenFile(p.Rootfs, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

// changeRoot makes the root file system "/" and lets go of the old one.
// pivot_root(".", ".") stacks the old root on the new; see pivot_root(2).
func (p *initProcess) changeRoot() error {
	if err := unix.Fchdir(int(p.root.Fd())); err != nil {
		return os.NewSyscallError("fchdir", err)
	}
	p.root.Close()
	if p.NoPivot {
		return moveRoot()
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return os.NewSyscallError("pivot_root", err)
	}
	// The working directory is still the old root. Its unmounting must not
	// propagate to the host.
	if err := unix.Mount("", ".", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return os.NewSyscallError("mount", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return os.NewSyscallError("umount2", err)
	}
	return os.NewSyscallError("chdir", unix.Chdir("/"))
}

// moveRoot stands for pivot_root where the old root is a ramdisk, which cannot
// be pivoted away from.
func moveRoot() error {
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return os.NewSyscallError("move mount", err)
	}
	if err := unix.Chroot("."); err != nil {
		return os.NewSyscallError("chroot", err)
	}
	return os.NewSyscallError("chdir", unix.Chdir("/"))
}

// finishRoot does what wants the final "/": there an escape has nowhere to go.
func (p *initProcess) finishRoot() error {
	spec := p.Spec
	if name := spec.Linux.RootfsPropagation; name != "" {
		if err := unix.Mount("", "/", "", propagations[name], ""); err != nil {
			return os.NewSyscallError("rootfsPropagation", err)
		}
	}
	if err := writeSysctls(spec.Linux.Sysctl); err != nil {
		return err
	}
	for _, path := range spec.Linux.ReadonlyPaths {
		if err := readonlyPath(path); err != nil {
			return fmt.Errorf("make %s read-only: %w", path, err)
		}
	}
	if err := maskPaths(spec.Linux.MaskedPaths); err != nil {
		return err
	}
	if !spec.Root.Readonly {
		return nil
	}
	root, err := os.OpenFile("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer root.Close()
	return sys.SetAttr(root, false, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
}

// openNoLinks opens a path of the container on which no link may stand: the
// image, or another container that shares a volume, may have put one there.
func openNoLinks(path string) (*os.File, error) {
	fd, err := unix.Openat2(unix.AT_FDCWD, path, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return nil, &os.PathError{Op: "openat2", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// readonlyPath mounts path on itself, read-only with all below it. A path that
// is not there is passed over.
func readonlyPath(path string) error {
	f, err := openNoLinks(path)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	clone, err := sys.Clone(f, "", true, 0)
	if err != nil {
		return err
	}
	defer clone.Close()
	if err := sys.SetAttr(clone, true, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
		return err
	}
	return sys.Attach(clone, f)
}

// maskPaths hides paths: a file behind /dev/null, a directory behind an empty
// read-only tmpfs. A path that is not there is passed over.
func maskPaths(paths []string) error {
	var empty *os.File
	for _, path := range paths {
		f, err := openNoLinks(path)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
			continue
		}
		if err == nil {
			empty, err = mask(f, empty)
			f.Close()
		}
		if err != nil {
			return fmt.Errorf("mask %s: %w", path, err)
		}
	}
	if empty != nil {
		empty.Close()
	}
	return nil
}

// mask hides target. empty is the tmpfs over the directories before it, nil at
// first: only a mount that is attached can be copied (before Linux 6.15).
func mask(target, empty *os.File) (*os.File, error) {
	var st unix.Stat_t
	err := unix.Fstat(int(target.Fd()), &st)
	switch {
	case err != nil:
		return empty, err
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return empty, maskFile(target)
	case empty != nil:
		return empty, bindOn(empty, target)
	}
	if empty, err = emptyDir(); err != nil {
		return nil, err
	}
	return empty, sys.Attach(empty, target)
}

func emptyDir() (*os.File, error) {
	return sys.NewFS("tmpfs", "tmpfs", []string{"size=0", "nr_inodes=1", "mode=0755", "ro"}, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC)
}

func bindOn(source, target *os.File) error {
	clone, err := sys.Clone(source, "", false, 0)
	if err != nil {
		return err
	}
	defer clone.Close()
	return sys.Attach(clone, target)
}

func maskFile(target *os.File) error {
	null, err := openNoLinks("/dev/null")
	if err != nil {
		return err
	}
	defer null.Close()
	if err := verifyDevice(null, unix.S_IFCHR, 1, 3); err != nil {
		return err
	}
	return bindOn(null, target)
}

// verifyDevice makes sure that f is the device it is taken for: a volume over
// /dev may hold anything under its name.
func verifyDevice(f *os.File, kind, major, minor uint32) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != kind || st.Rdev != unix.Mkdev(major, minor) {
		return fmt.Errorf("%s is not device %d:%d", f.Name(), major, minor)
	}
	return nil
}

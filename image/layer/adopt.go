package layer

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Adopt completes a layer with what the layers below know: directories that
// its archive only implied get the attributes they have there, and a hidden
// root becomes whiteouts. lowers are top first.
func Adopt(dir string, res Result, lowers []string, rootless bool) error {
	root, err := os.OpenFile(dir, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer root.Close()
	if res.HideRoot {
		if err := hideRoot(root, lowers, rootless); err != nil {
			return err
		}
		lowers = nil
	}
	below, err := openAll(lowers)
	defer closeAll(below)
	if err != nil {
		return err
	}
	// Children first: giving a child attributes does not touch its parent's times,
	// but a parent must not lose its write permission before.
	for i := len(res.Implied) - 1; i >= 0; i-- {
		if err := adoptDir(root, res.Implied[i], below, rootless); err != nil {
			return fmt.Errorf("directory %.255q: %w", res.Implied[i], err)
		}
	}
	return nil
}

func openAll(dirs []string) ([]int, error) {
	var fds []int
	for _, d := range dirs {
		fd, err := openat(unix.AT_FDCWD, d, unix.O_DIRECTORY|unix.O_RDONLY, 0)
		if err != nil {
			return fds, err
		}
		fds = append(fds, fd)
	}
	return fds, nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

func adoptDir(root *os.File, dir string, lowers []int, rootless bool) error {
	to, err := openat2(int(root.Fd()), dir, unix.O_DIRECTORY|unix.O_RDONLY, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS)
	if err != nil {
		return err
	}
	defer unix.Close(to)
	for _, lower := range lowers {
		from, err := openat2(lower, dir, unix.O_DIRECTORY|unix.O_RDONLY, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS)
		switch {
		case errors.Is(err, unix.ENOENT):
			continue
		case err != nil:
			return nil // hidden, or no directory there: the plain one is right
		}
		defer unix.Close(from)
		return copyDirAttributes(from, to, rootless)
	}
	return os.NewSyscallError("fchmod", unix.Fchmod(to, 0o755))
}

func copyDirAttributes(from, to int, rootless bool) error {
	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	if err := unix.Fchown(to, int(st.Uid), int(st.Gid)); err != nil && !rootless {
		return os.NewSyscallError("fchown", err)
	}
	for _, name := range listXattrs(from) {
		if value, err := getXattr(from, name); err == nil && keptXattr(name) {
			// What the lower layer could keep, this one can; rootless it may not set all.
			if err := unix.Fsetxattr(to, name, value, 0); err != nil && !rootless {
				return os.NewSyscallError("fsetxattr", err)
			}
		}
	}
	if err := unix.Fchmod(to, st.Mode&0o7777); err != nil {
		return os.NewSyscallError("fchmod", err)
	}
	return os.NewSyscallError("utimensat", unix.UtimesNano(procPath(to, ""), []unix.Timespec{st.Atim, st.Mtim}))
}

func listXattrs(fd int) []string {
	buf := make([]byte, 64<<10)
	n, err := unix.Flistxattr(fd, buf)
	if err != nil || n == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00")
}

func getXattr(fd int, name string) ([]byte, error) {
	buf := make([]byte, 64<<10)
	n, err := unix.Fgetxattr(fd, name, buf)
	if err != nil {
		return nil, err
	}
	return buf[:n], nil
}

// hideRoot makes a whiteout for every name at the root of the layers below that
// the layer does not have itself, and makes directories of both opaque.
func hideRoot(root *os.File, lowers []string, rootless bool) error {
	u := unpacker{root: root, o: Options{Rootless: rootless}, dirs: dirCache{root: root}}
	defer u.dirs.close()
	for _, lower := range lowers {
		entries, err := os.ReadDir(lower)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := u.whiteout(int(root.Fd()), ".", e.Name(), whiteoutPrefix+e.Name()); err != nil {
				return err
			}
		}
	}
	return nil
}

package layer

import (
	"bytes"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// These wrappers retry EINTR and name the call. They take plain descriptors:
// unpacking makes one for each file, and an *os.File costs more than the call.

func openat(dir int, name string, flags int, mode uint32) (int, error) {
	for {
		fd, err := unix.Openat(dir, name, flags|unix.O_CLOEXEC, mode)
		if !errors.Is(err, unix.EINTR) {
			return fd, os.NewSyscallError("openat", err)
		}
	}
}

func openat2(dir int, name string, flags int, resolve uint64) (int, error) {
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: resolve}
	for try := 0; ; try++ {
		fd, err := unix.Openat2(dir, name, &how)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) && try < 128 {
			continue
		}
		return fd, os.NewSyscallError("openat2", err)
	}
}

func mkdirat(dir int, name string, mode uint32) error {
	return os.NewSyscallError("mkdirat", unix.Mkdirat(dir, name, mode))
}

func unlinkat(dir int, name string, flags int) error {
	return os.NewSyscallError("unlinkat", unix.Unlinkat(dir, name, flags))
}

func fstatat(dir int, name string, st *unix.Stat_t) error {
	return os.NewSyscallError("fstatat", unix.Fstatat(dir, name, st, unix.AT_SYMLINK_NOFOLLOW))
}

func makeWhiteout(dir int, name string) error {
	return os.NewSyscallError("mknodat", unix.Mknodat(dir, name, unix.S_IFCHR, 0))
}

// isWhiteout reports whether st is overlay's whiteout, a character device 0:0.
func isWhiteout(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

func writeAll(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return os.NewSyscallError("write", err)
		}
		b = b[n:]
	}
	return nil
}

// allZero reports whether b is all zeros: each byte equals the one before it.
func allZero(b []byte) bool {
	return b[0] == 0 && b[len(b)-1] == 0 && bytes.Equal(b[1:], b[:len(b)-1])
}

// removeTree removes name in dir and all below it, following no link and
// crossing no mount.
func removeTree(dir int, name string) error {
	fd, err := openat2(dir, name, unix.O_DIRECTORY|unix.O_NOFOLLOW, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_XDEV)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	entries, err := f.ReadDir(-1)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			err = removeTree(fd, e.Name())
		} else {
			err = unlinkat(fd, e.Name(), 0)
		}
		if err != nil {
			return err
		}
	}
	return unlinkat(dir, name, unix.AT_REMOVEDIR)
}

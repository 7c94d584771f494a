package runtime

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// copyUp fills the root of a mount that is not attached yet with what it will
// hide: the option tmpcopyup. target is an O_PATH descriptor.
func copyUp(target, mount *os.File) error {
	from, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", target.Fd()))
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", mount.Fd()))
	if err != nil {
		return err
	}
	defer to.Close()
	return copyDir(from, to)
}

// copyDir copies the entries of one open directory to another. No link is
// followed and nothing but directories and regular files is opened: the entries
// are an image's.
func copyDir(from, to *os.File) error {
	names, err := from.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		var st unix.Stat_t
		if err := unix.Fstatat(int(from.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return &os.PathError{Op: "stat", Path: name, Err: err}
		}
		if err := copyEntry(from, to, name, &st); err != nil {
			return &os.PathError{Op: "copy", Path: name, Err: err}
		}
	}
	return nil
}

func copyEntry(from, to *os.File, name string, st *unix.Stat_t) error {
	dir := int(to.Fd())
	var err error
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		err = copySubdir(from, to, name)
	case unix.S_IFREG:
		err = copyRegular(from, to, name)
	case unix.S_IFLNK:
		err = copyLink(from, to, name, int(st.Size))
	default:
		err = unix.Mknodat(dir, name, st.Mode, int(st.Rdev))
	}
	if err != nil {
		return err
	}
	// chown clears the set-uid bits, so the mode comes after the owner.
	if err := unix.Fchownat(dir, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return nil
	}
	return unix.Fchmodat(dir, name, st.Mode&0o7777, 0)
}

func copySubdir(from, to *os.File, name string) error {
	if err := unix.Mkdirat(int(to.Fd()), name, 0o700); err != nil {
		return err
	}
	source, err := openAt(from, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := openAt(to, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer target.Close()
	return copyDir(source, target)
}

func copyRegular(from, to *os.File, name string) error {
	source, err := openAt(from, name, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := openAt(to, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL)
	if err != nil {
		return err
	}
	defer target.Close()
	_, err = io.Copy(target, source)
	return err
}

func copyLink(from, to *os.File, name string, size int) error {
	buf := make([]byte, size+1)
	n, err := unix.Readlinkat(int(from.Fd()), name, buf)
	if err != nil {
		return err
	}
	return unix.Symlinkat(string(buf[:n]), int(to.Fd()), name)
}

func openAt(dir *os.File, name string, flags int) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

package sys

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// ErrMounted is what RemoveTree meets where something is mounted.
var ErrMounted = errors.New("something is mounted there (umount it first)")

// RemoveTree removes path and what is below, like os.RemoveAll, but for what is
// mounted there, by whomever: that stays, with the directories that lead to it, and
// is an error that wraps ErrMounted. It follows no link. See RESOLVE_NO_XDEV in
// openat2(2).
func RemoveTree(path string) error {
	parent, err := os.Open(filepath.Dir(path))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer parent.Close()
	return removeAt(parent, filepath.Base(path))
}

// removeAt goes on after an error and returns the first.
func removeAt(parent *os.File, name string) error {
	defer runtime.KeepAlive(parent)
	fail := func(op string, err error) error {
		return &os.PathError{Op: op, Path: filepath.Join(parent.Name(), name), Err: err}
	}
	err := unix.Unlinkat(int(parent.Fd()), name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if errors.Is(err, unix.EBUSY) {
		err = ErrMounted
	}
	if !errors.Is(err, unix.EISDIR) {
		return fail("remove", err)
	}
	fd, err := unix.Openat2(int(parent.Fd()), name, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_SYMLINKS,
	})
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil // another was faster
	case errors.Is(err, unix.EXDEV):
		err = ErrMounted
	}
	if err != nil {
		return fail("remove", err)
	}
	dir := os.NewFile(uintptr(fd), filepath.Join(parent.Name(), name))
	defer dir.Close()
	if err := empty(dir); err != nil {
		return err
	}
	if err := unix.Unlinkat(int(parent.Fd()), name, unix.AT_REMOVEDIR); err != nil && !errors.Is(err, unix.ENOENT) {
		return fail("rmdir", err)
	}
	return nil
}

// empty removes what is in dir. It reads anew after each lot: some file systems pass
// over names when others go meanwhile.
func empty(dir *os.File) error {
	for {
		names, err := dir.Readdirnames(1024)
		if len(names) == 0 {
			if errors.Is(err, io.EOF) || errors.Is(err, unix.ENOENT) {
				err = nil
			}
			return err
		}
		var first error
		for _, name := range names {
			if err := removeAt(dir, name); err != nil && first == nil {
				first = err
			}
		}
		if first != nil {
			return first
		}
		if _, err := dir.Seek(0, io.SeekStart); err != nil {
			return err
		}
	}
}

// Package sys wraps system calls: one call, one wrapper, no policy. A wrapper
// retries EINTR, sets close-on-exec, returns *os.File rather than a number and
// names the call in its error.
package sys

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// lookupTries bounds the retries of a lookup that raced with renames.
const lookupTries = 128

// OpenInRoot opens path with root acting as "/": neither an absolute symlink nor
// ".." leaves it, and magic links of /proc are refused. Errors are
// *os.PathError: ENOSYS before Linux 5.6, ELOOP for a magic link, EAGAIN when
// renames raced with every attempt. See openat2(2).
func OpenInRoot(root *os.File, path string, flags int, perm uint32) (*os.File, error) {
	how := unix.OpenHow{
		Flags:   uint64(flags | unix.O_CLOEXEC),
		Mode:    uint64(perm),
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	for try := 1; ; try++ {
		fd, err := unix.Openat2(int(root.Fd()), path, &how)
		runtime.KeepAlive(root)
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), filepath.Join(root.Name(), path)), nil
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN) && try < lookupTries:
		default:
			return nil, &os.PathError{Op: "openat2", Path: path, Err: err}
		}
	}
}

// ErrNotRegular is wrapped by OpenRegular for what is no regular file.
var ErrNotRegular = errors.New("not a regular file")

// OpenRegular opens the regular file at path for reading, with root acting as
// "/". Anything else is not opened at all: a FIFO would wait, and a device may
// act on its open alone (a watchdog starts).
func OpenRegular(root *os.File, path string) (*os.File, error) {
	f, err := OpenInRoot(root, path, unix.O_PATH, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return ReopenRegular(f)
}

// ReopenRegular opens for reading the regular file of an O_PATH descriptor.
func ReopenRegular(f *os.File) (*os.File, error) {
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &os.PathError{Op: "open", Path: f.Name(), Err: ErrNotRegular}
	}
	if err != nil {
		return nil, err
	}
	return os.Open("/proc/self/fd/" + strconv.Itoa(int(f.Fd())))
}

// OpenAt opens a name in a directory, and follows no link.
func OpenAt(dir *os.File, name string, flags int) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	runtime.KeepAlive(dir)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

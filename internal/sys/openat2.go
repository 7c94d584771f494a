// Package sys wraps system calls: one call, one wrapper, no policy. A wrapper
// retries EINTR, sets close-on-exec, returns *os.File rather than a number and
// names the call in its error.
package sys

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"

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

package build

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// An attr is an extended attribute.
type attr struct{ Name, Value string }

// keeps reports whether an image keeps the attribute: capabilities and what
// users set, but nothing of overlay's own.
func keeps(name string) bool {
	return name == "security.capability" || strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "user.overlay.")
}

// readAttrs lists the attributes of f that an image keeps.
func readAttrs(f *os.File) ([]attr, error) {
	fd := int(f.Fd())
	size, err := unix.Flistxattr(fd, nil)
	if errors.Is(err, unix.ENOTSUP) || err == nil && size == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, &os.PathError{Op: "flistxattr", Path: f.Name(), Err: err}
	}
	list := make([]byte, size+256)
	if size, err = unix.Flistxattr(fd, list); err != nil {
		return nil, &os.PathError{Op: "flistxattr", Path: f.Name(), Err: err}
	}
	var attrs []attr
	for name := range strings.SplitSeq(string(list[:size]), "\x00") {
		if !keeps(name) {
			continue
		}
		value := make([]byte, 64<<10) // XATTR_SIZE_MAX
		n, err := unix.Fgetxattr(fd, name, value)
		if err != nil {
			return nil, &os.PathError{Op: "fgetxattr " + name, Path: f.Name(), Err: err}
		}
		attrs = append(attrs, attr{name, string(value[:n])})
	}
	return attrs, nil
}

// writeAttrs sets attributes. A file system without user attributes is no error:
// the file is whole without them.
func writeAttrs(f *os.File, attrs []attr) error {
	for _, a := range attrs {
		err := unix.Fsetxattr(int(f.Fd()), a.Name, []byte(a.Value), 0)
		if err != nil && !(errors.Is(err, unix.ENOTSUP) && strings.HasPrefix(a.Name, "user.")) {
			return &os.PathError{Op: "fsetxattr " + a.Name, Path: f.Name(), Err: err}
		}
	}
	return nil
}

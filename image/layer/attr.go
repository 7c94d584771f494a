package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const paxXattr = "SCHILY.xattr."

// attributes gives an open file or directory what its header says. chown
// clears the set-uid bits and file capabilities, so it comes first; times come
// last because the others do not change them but setting xattrs may on some
// file systems.
func (u *unpacker) attributes(fd int, hdr *tar.Header) error {
	if err := u.owned(unix.Fchown(fd, hdr.Uid, hdr.Gid), hdr); err != nil {
		return err
	}
	if err := u.xattrs(hdr, func(name, value string) error {
		return unix.Fsetxattr(fd, name, []byte(value), 0)
	}); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, uint32(hdr.Mode&0o7777)); err != nil {
		return os.NewSyscallError("fchmod", err)
	}
	ts := times(hdr)
	err := unix.UtimesNanoAt(fd, "", ts[:], unix.AT_EMPTY_PATH)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		// AT_EMPTY_PATH came to utimensat(2) with Linux 5.8.
		err = unix.UtimesNano(procPath(fd, ""), ts[:])
	}
	return os.NewSyscallError("utimensat", err)
}

// attributesAt is attributes for a link or node, which cannot be opened.
func (u *unpacker) attributesAt(parent int, base string, hdr *tar.Header) error {
	if err := u.owned(unix.Fchownat(parent, base, hdr.Uid, hdr.Gid, unix.AT_SYMLINK_NOFOLLOW), hdr); err != nil {
		return err
	}
	if err := u.xattrs(hdr, func(name, value string) error {
		return unix.Lsetxattr(procPath(parent, base), name, []byte(value), 0)
	}); err != nil {
		return err
	}
	if hdr.Typeflag != tar.TypeSymlink {
		if err := unix.Fchmodat(parent, base, uint32(hdr.Mode&0o7777), 0); err != nil {
			return os.NewSyscallError("fchmodat", err)
		}
	}
	ts := times(hdr)
	return os.NewSyscallError("utimensat", unix.UtimesNanoAt(parent, base, ts[:], unix.AT_SYMLINK_NOFOLLOW))
}

func procPath(fd int, base string) string {
	return filepath.Join("/proc/self/fd", strconv.Itoa(fd), base)
}

// owned words a failed chown. In a user namespace that has no such id the file
// keeps its maker, as there is nobody else it could belong to.
func (u *unpacker) owned(err error, hdr *tar.Header) error {
	if err == nil || u.o.Rootless && (errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM)) {
		return nil
	}
	return fmt.Errorf("chown to %d:%d: %w", hdr.Uid, hdr.Gid, err)
}

func (u *unpacker) xattrs(hdr *tar.Header, set func(name, value string) error) error {
	for key, value := range hdr.PAXRecords {
		name, is := strings.CutPrefix(key, paxXattr)
		if !is || !keptXattr(name) {
			continue
		}
		err := set(name, value)
		switch {
		case err == nil || errors.Is(err, unix.ENOTSUP):
			// A file system without attributes cannot keep them.
		case u.o.Rootless && errors.Is(err, unix.EPERM):
			// security.* and trusted.* belong to the real root.
		case errors.Is(err, unix.EPERM) && strings.HasPrefix(name, "user."):
			// user.* lives on files and directories only.
		default:
			return fmt.Errorf("set attribute %.255q: %w", name, err)
		}
	}
	return nil
}

func times(hdr *tar.Header) [2]unix.Timespec {
	atime := hdr.AccessTime
	if atime.IsZero() {
		atime = hdr.ModTime
	}
	return [2]unix.Timespec{timespec(atime), timespec(hdr.ModTime)}
}

// timespec clamps t to what every file system takes.
func timespec(t time.Time) unix.Timespec {
	ts, err := unix.TimeToTimespec(t)
	if err != nil || t.IsZero() {
		return unix.Timespec{}
	}
	return ts
}

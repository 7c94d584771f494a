// Package copytree copies directories whose content is a stranger's: of an image,
// or of a volume that containers write to.
package copytree

import (
	"errors"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/rootless"
	"github.com/kist-containers/kist/internal/sys"
)

// A copier copies a tree with owners, modes, times, attributes and hard links.
// It walks by descriptors and single names, and follows no link: the tree is an
// image's, and may be made to lead a copy astray.
type copier struct {
	// links are the first places of files with several names.
	links map[inode]place
	buf   []byte
	// owner, unless nil, says whose the copy of a file is.
	owner Owner
}

// An Owner translates the user and the group of a file.
type Owner func(uid, gid uint32) (uint32, uint32)

type inode struct{ dev, ino uint64 }

// A place is an open directory's duplicate and a name in it.
type place struct {
	dir  int
	name string
}

// Copy copies what is in from, an open directory, into the empty one to, and
// gives to the attributes of from. An error is an *os.PathError of the entry, or
// tells of the owners that this user cannot give.
func Copy(from, to *os.File) error { return CopyAs(from, to, nil) }

// CopyAs is Copy with other owners.
func CopyAs(from, to *os.File, owner Owner) error {
	c := &copier{links: map[inode]place{}, owner: owner}
	var st unix.Stat_t
	if err := unix.Fstat(int(from.Fd()), &st); err != nil {
		return err
	}
	if err := c.contents(from, to); err != nil {
		return err
	}
	c.own(&st)
	return Attributes(int(from.Fd()), int(to.Fd()), &st)
}

// Contents is Copy without the attributes of the directory itself.
func Contents(from, to *os.File) error {
	return (&copier{links: map[inode]place{}}).contents(from, to)
}

func (c *copier) contents(from, to *os.File) error {
	defer func() {
		for _, p := range c.links {
			unix.Close(p.dir)
		}
	}()
	return c.dir(from, to)
}

func (c *copier) own(st *unix.Stat_t) {
	if c.owner != nil {
		st.Uid, st.Gid = c.owner(st.Uid, st.Gid)
	}
}

func (c *copier) dir(from, to *os.File) error {
	for {
		names, err := from.Readdirnames(256)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := c.entry(from, to, name); err != nil {
				return Nested(name, err)
			}
		}
	}
}

// Nested puts the directory's name before that of the entry below.
func Nested(name string, err error) error {
	var below *os.PathError
	if errors.As(err, &below) && below.Op == "copy" {
		return &os.PathError{Op: "copy", Path: name + "/" + below.Path, Err: below.Err}
	}
	return &os.PathError{Op: "copy", Path: name, Err: err}
}

func (c *copier) entry(from, to *os.File, name string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(int(from.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	c.own(&st)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return c.subdir(from, to, name, &st)
	case unix.S_IFREG:
		return c.regular(from, to, name, &st)
	case unix.S_IFLNK:
		return copyLink(int(from.Fd()), int(to.Fd()), name, &st)
	case unix.S_IFSOCK:
		return nil // nobody listens
	}
	return copyNode(int(to.Fd()), name, &st)
}

func (c *copier) subdir(from, to *os.File, name string, st *unix.Stat_t) error {
	if err := unix.Mkdirat(int(to.Fd()), name, 0o700); err != nil {
		return err
	}
	source, err := sys.OpenAt(from, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := sys.OpenAt(to, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer target.Close()
	if err := c.dir(source, target); err != nil {
		return err
	}
	return Attributes(int(source.Fd()), int(target.Fd()), st)
}

// mostLinks bounds the directories that are kept open for hard links; beyond it
// a file with several names becomes several files.
const mostLinks = 256

func (c *copier) regular(from, to *os.File, name string, st *unix.Stat_t) error {
	if st.Nlink > 1 {
		id := inode{uint64(st.Dev), st.Ino}
		if p, ok := c.links[id]; ok {
			return unix.Linkat(p.dir, p.name, int(to.Fd()), name, 0)
		}
		if len(c.links) < mostLinks {
			dup, err := unix.FcntlInt(to.Fd(), unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				return err
			}
			c.links[id] = place{dup, name}
		}
	}
	source, err := unix.Openat(int(from.Fd()), name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(source)
	target, err := unix.Openat(int(to.Fd()), name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	if st.Size > 0 {
		if err := c.content(source, target, st); err != nil {
			return err
		}
	}
	return Attributes(source, target, st)
}

// content copies a file's bytes: as shared extents where the file system can,
// else within the kernel, else by hand. Holes stay holes.
func (c *copier) content(source, target int, st *unix.Stat_t) error {
	if unix.IoctlFileClone(target, source) == nil {
		return nil
	}
	// Blocks are of 512 bytes: fewer than the size wants means that there are holes.
	if st.Blocks*512 >= st.Size {
		return c.span(source, target, 0, st.Size)
	}
	if err := unix.Ftruncate(target, st.Size); err != nil {
		return err
	}
	for at := int64(0); at < st.Size; {
		start, err := unix.Seek(source, at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil
		}
		if err != nil {
			return c.span(source, target, at, st.Size)
		}
		if at, err = unix.Seek(source, start, unix.SEEK_HOLE); err != nil {
			return err
		}
		if err := c.span(source, target, start, at); err != nil {
			return err
		}
	}
	return nil
}

// span copies the bytes from start to end.
func (c *copier) span(source, target int, start, end int64) error {
	in, out := start, start
	for in < end {
		n, err := unix.CopyFileRange(source, &in, target, &out, int(min(end-in, 1<<30)), 0)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EXDEV), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EOPNOTSUPP):
			return c.send(source, target, in, end)
		case err != nil:
			return err
		case n == 0:
			return nil // it has shrunk
		}
	}
	return nil
}

// send copies within the kernel from one kind of file system to another, as from
// overlay; see sendfile(2).
func (c *copier) send(source, target int, at, end int64) error {
	if _, err := unix.Seek(target, at, unix.SEEK_SET); err != nil {
		return err
	}
	for at < end {
		n, err := unix.Sendfile(target, source, &at, int(min(end-at, 1<<30)))
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
			return c.byHand(source, target, at, end)
		case err != nil:
			return err
		case n == 0:
			return nil
		}
	}
	return nil
}

func (c *copier) byHand(source, target int, at, end int64) error {
	if c.buf == nil {
		c.buf = make([]byte, 256<<10)
	}
	for at < end {
		n, err := unix.Pread(source, c.buf[:min(int64(len(c.buf)), end-at)], at)
		if err != nil {
			return err
		}
		if n == 0 {
			return nil
		}
		for done := 0; done < n; {
			w, err := unix.Pwrite(target, c.buf[done:n], at+int64(done))
			if err != nil {
				return err
			}
			done += w
		}
		at += int64(n)
	}
	return nil
}

// Attributes gives an open file or directory the attributes of another. chown clears
// the set-uid bits and file capabilities, so mode and xattrs come after the owner.
func Attributes(from, to int, st *unix.Stat_t) error {
	if int(st.Uid) != os.Geteuid() || int(st.Gid) != os.Getegid() {
		if err := unix.Fchown(to, int(st.Uid), int(st.Gid)); err != nil {
			return rootless.OwnerError("", int(st.Uid), int(st.Gid), err)
		}
	}
	if err := copyXattrs(from, to); err != nil {
		return err
	}
	if err := unix.Fchmod(to, st.Mode&0o7777); err != nil {
		return err
	}
	return unix.UtimesNanoAt(to, "", []unix.Timespec{st.Atim, st.Mtim}, unix.AT_EMPTY_PATH)
}

// copyXattrs leaves out overlay's own, which mean something else below a volume,
// and those that the file system does not take.
func copyXattrs(from, to int) error {
	n, err := unix.Flistxattr(from, nil)
	if err != nil || n == 0 {
		return nil // a file system without them
	}
	list := make([]byte, n)
	if n, err = unix.Flistxattr(from, list); err != nil {
		return nil
	}
	for _, name := range splitNames(list[:n]) {
		if !wantedXattr(name) {
			continue
		}
		size, err := unix.Fgetxattr(from, name, nil)
		if err != nil {
			continue
		}
		value := make([]byte, size)
		if size, err = unix.Fgetxattr(from, name, value); err != nil {
			continue
		}
		err = unix.Fsetxattr(to, name, value[:size], 0)
		if err != nil && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EPERM) {
			return os.NewSyscallError("fsetxattr "+name, err)
		}
	}
	return nil
}

func copyLink(from, to int, name string, st *unix.Stat_t) error {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(from, name, buf)
	if err != nil {
		return err
	}
	if err := unix.Symlinkat(string(buf[:n]), to, name); err != nil {
		return err
	}
	return finishName(to, name, st)
}

func copyNode(to int, name string, st *unix.Stat_t) error {
	err := unix.Mknodat(to, name, st.Mode&unix.S_IFMT|0o600, int(st.Rdev))
	if errors.Is(err, unix.EPERM) && st.Mode&unix.S_IFMT != unix.S_IFIFO {
		return nil // rootless: a device that nobody could open anyway
	}
	if err != nil {
		return err
	}
	if err := finishName(to, name, st); err != nil {
		return err
	}
	return unix.Fchmodat(to, name, st.Mode&0o7777, 0)
}

// finishName is Attributes for what is not opened.
func finishName(dir int, name string, st *unix.Stat_t) error {
	if err := unix.Fchownat(dir, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return rootless.OwnerError("", int(st.Uid), int(st.Gid), err)
	}
	return unix.UtimesNanoAt(dir, name, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}

func splitNames(list []byte) []string {
	return strings.Split(strings.TrimRight(string(list), "\x00"), "\x00")
}

func wantedXattr(name string) bool {
	return !strings.HasPrefix(name, "trusted.") && !strings.HasPrefix(name, "user.overlay.") && name != "security.selinux"
}

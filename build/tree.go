package build

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/rootless"
	"github.com/kist-containers/kist/internal/sys"
)

// A tree is a root file system that a step writes to. All names are looked up
// with its root as "/"; the last component of a new name is never followed.
type tree struct {
	root *os.File
	// dir is the directory that was written to last.
	dir     *os.File
	dirPath string
	// late are the times of directories, set when their content is complete.
	late []lateTime
	// epoch stands for every time when it is not zero.
	epoch time.Time
}

type lateTime struct {
	path string
	time unix.Timespec
}

// meta is what a file has besides its content. Zero attributes are none.
type meta struct {
	uid, gid int
	mode     uint32 // permission bits, 07777
	mtime    unix.Timespec
	attrs    []attr
}

// close sets the directories' times.
func (t *tree) close() (err error) {
	t.forget()
	for i := len(t.late) - 1; i >= 0; i-- {
		f, openErr := sys.OpenInRoot(t.root, t.late[i].path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if openErr != nil {
			err = errors.Join(err, openErr)
			continue
		}
		err = errors.Join(err, setTime(int(f.Fd()), "", t.late[i].time, unix.AT_EMPTY_PATH), f.Close())
	}
	t.late = nil
	return err
}

func (t *tree) forget() {
	if t.dir != nil {
		t.dir.Close()
	}
	t.dir, t.dirPath = nil, ""
}

func setTime(dir int, name string, at unix.Timespec, flags int) error {
	times := []unix.Timespec{at, at}
	return os.NewSyscallError("utimensat", unix.UtimesNanoAt(dir, name, times, flags))
}

// when is the time that a file gets.
func (t *tree) when(m unix.Timespec) unix.Timespec {
	if t.epoch.IsZero() {
		return m
	}
	return unix.NsecToTimespec(t.epoch.UnixNano())
}

func now() unix.Timespec { return unix.NsecToTimespec(time.Now().UnixNano()) }

// stat describes what p leads to.
func (t *tree) stat(p string) (st unix.Stat_t, err error) {
	f, err := sys.OpenInRoot(t.root, p, unix.O_PATH, 0)
	if err != nil {
		return st, err
	}
	defer f.Close()
	return st, os.NewSyscallError("fstat", unix.Fstat(int(f.Fd()), &st))
}

func (t *tree) isDir(p string) bool {
	st, err := t.stat(p)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
}

// in opens the directory of p and returns it with p's last name.
func (t *tree) in(p string) (*os.File, string, error) {
	p = path.Join("/", p)
	dir, name := path.Split(p)
	if name == "" {
		return nil, "", fmt.Errorf("%s: is the root directory", p)
	}
	if t.dir != nil && t.dirPath == dir {
		return t.dir, name, nil
	}
	f, err := sys.OpenInRoot(t.root, dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, "", err
	}
	t.forget()
	t.dir, t.dirPath = f, dir
	return f, name, nil
}

// maxLinks is the kernel's own bound of links in one look-up.
const maxLinks = 40

// follow returns where writing to p ends up: p, or what a chain of links leads to.
func (t *tree) follow(p string) (string, error) {
	for range maxLinks {
		dir, name, err := t.in(p)
		if err != nil {
			return p, nil // the parent is missing or p is the root: nothing to follow
		}
		link, err := readlinkAt(dir, name)
		if err != nil {
			return p, nil
		}
		if strings.HasPrefix(link, "/") {
			p = link
		} else {
			// Not cleaned: a ".." behind a linked directory is the kernel's to resolve.
			p = t.dirPath + link
		}
	}
	return "", &os.PathError{Op: "follow", Path: p, Err: unix.ELOOP}
}

// mkdirAll makes p and its missing parents, 0755, owned by uid:gid.
func (t *tree) mkdirAll(p string, uid, gid int) error { return t.mkdirDepth(p, uid, gid, maxLinks) }

func (t *tree) mkdirDepth(p string, uid, gid, links int) error {
	st, err := t.stat(p)
	switch {
	case err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return nil
	case err == nil:
		return fmt.Errorf("%s: is a file where a directory is needed", p)
	case errors.Is(err, unix.ENOTDIR):
		return fmt.Errorf("%s: a file stands where a directory is needed", p)
	case !notFound(err):
		return err
	}
	if err := t.mkdirDepth(path.Dir(path.Join("/", p)), uid, gid, links); err != nil {
		return err
	}
	dir, name, err := t.in(p)
	if err != nil {
		return err
	}
	err = unix.Mkdirat(int(dir.Fd()), name, 0o755)
	if errors.Is(err, unix.EEXIST) && links > 0 {
		// A link that leads nowhere yet.
		to, err := t.follow(p)
		if err != nil {
			return err
		}
		return t.mkdirDepth(to, uid, gid, links-1)
	}
	if err != nil {
		return &os.PathError{Op: "mkdir", Path: p, Err: err}
	}
	return t.finishDir(dir, name, p, meta{uid: uid, gid: gid, mode: 0o755, mtime: now()})
}

// mkdir makes the directory p, whose parent exists. An existing one takes m
// over when overwrite is set.
func (t *tree) mkdir(p string, m meta, overwrite bool) error {
	dir, name, err := t.in(p)
	if err != nil {
		return err
	}
	err = unix.Mkdirat(int(dir.Fd()), name, 0o700)
	if errors.Is(err, unix.EEXIST) {
		var st unix.Stat_t
		if err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return &os.PathError{Op: "stat", Path: p, Err: err}
		}
		switch {
		case st.Mode&unix.S_IFMT == unix.S_IFLNK && t.isDir(p):
			return nil // the base's link to a directory stays: /lib → usr/lib
		case st.Mode&unix.S_IFMT != unix.S_IFDIR:
			return fmt.Errorf("%s: a directory cannot replace a file", p)
		case !overwrite:
			return nil
		}
	} else if err != nil {
		return &os.PathError{Op: "mkdir", Path: p, Err: err}
	}
	return t.finishDir(dir, name, p, m)
}

func (t *tree) finishDir(dir *os.File, name, p string, m meta) error {
	t.late = append(t.late, lateTime{p, t.when(m.mtime)})
	return own(dir, name, p, m)
}

// own sets owner and mode of a name that is not a link.
func own(dir *os.File, name, p string, m meta) error {
	fd := int(dir.Fd())
	if err := unix.Fchownat(fd, name, m.uid, m.gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return rootless.OwnerError(p, m.uid, m.gid, err)
	}
	// chown clears the set-uid bits, so the mode comes after the owner.
	if err := unix.Fchmodat(fd, name, m.mode&0o7777, 0); err != nil {
		return &os.PathError{Op: "chmod", Path: p, Err: err}
	}
	return nil
}

// make makes a name with create, which gives EEXIST when it is taken: then what
// is there is removed first, unless it is a directory.
func (t *tree) make(p string, create func(dir int, name string) error) (*os.File, string, error) {
	dir, name, err := t.in(p)
	if err != nil {
		return nil, "", err
	}
	err = create(int(dir.Fd()), name)
	if errors.Is(err, unix.EEXIST) {
		err = unix.Unlinkat(int(dir.Fd()), name, 0)
		if errors.Is(err, unix.EISDIR) {
			return nil, "", fmt.Errorf("%s: a file cannot replace a directory", p)
		}
		if err == nil {
			err = create(int(dir.Fd()), name)
		}
	}
	if err != nil {
		return nil, "", &os.PathError{Op: "create", Path: p, Err: err}
	}
	return dir, name, nil
}

// file writes a regular file with the content that fill gives.
func (t *tree) file(p string, m meta, fill func(*os.File) error) (err error) {
	var f *os.File
	dir, name, err := t.make(p, func(dir int, name string) error {
		fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		if err == nil {
			f = os.NewFile(uintptr(fd), p)
		}
		return err
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := fill(f); err != nil {
		return err
	}
	fd := int(f.Fd())
	if err := unix.Fchown(fd, m.uid, m.gid); err != nil {
		return rootless.OwnerError(p, m.uid, m.gid, err)
	}
	if err := unix.Fchmod(fd, m.mode&0o7777); err != nil {
		return &os.PathError{Op: "chmod", Path: p, Err: err}
	}
	// A change of owner drops security.capability, so attributes come after it.
	if err := writeAttrs(f, m.attrs); err != nil {
		return err
	}
	return setTime(int(dir.Fd()), name, t.when(m.mtime), unix.AT_SYMLINK_NOFOLLOW)
}

// symlink makes a symbolic link.
func (t *tree) symlink(p, target string, m meta) error {
	dir, name, err := t.make(p, func(dir int, name string) error { return unix.Symlinkat(target, dir, name) })
	if err != nil {
		return err
	}
	if err := unix.Fchownat(int(dir.Fd()), name, m.uid, m.gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return rootless.OwnerError(p, m.uid, m.gid, err)
	}
	return setTime(int(dir.Fd()), name, t.when(m.mtime), unix.AT_SYMLINK_NOFOLLOW)
}

// node makes a FIFO or a device.
func (t *tree) node(p string, kind uint32, rdev uint64, m meta) error {
	dir, name, err := t.make(p, func(dir int, name string) error {
		return unix.Mknodat(dir, name, kind|0o600, int(rdev))
	})
	if err != nil {
		return err
	}
	if err := own(dir, name, p, m); err != nil {
		return err
	}
	return setTime(int(dir.Fd()), name, t.when(m.mtime), unix.AT_SYMLINK_NOFOLLOW)
}

// link makes p another name of the file old, which must be no link itself.
func (t *tree) link(p, old string) error {
	if path.Join("/", p) == path.Join("/", old) {
		return nil // tar(1) writes this for a name that it was given twice
	}
	f, err := sys.OpenInRoot(t.root, old, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	// By way of /proc, because AT_EMPTY_PATH asks for CAP_DAC_READ_SEARCH on the
	// host, which a user namespace's root has not.
	self := fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	_, _, err = t.make(p, func(dir int, name string) error {
		return unix.Linkat(unix.AT_FDCWD, self, dir, name, unix.AT_SYMLINK_FOLLOW)
	})
	return err
}

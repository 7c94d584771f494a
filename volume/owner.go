package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/rootless"
	"github.com/kist-containers/kist/internal/sys"
)

// systemDirs are what no typing error may give away.
var systemDirs = [...]string{"/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/media", "/mnt", "/opt", "/proc",
	"/root", "/run", "/sbin", "/srv", "/sys", "/tmp", "/usr", "/var", "/var/lib", "/var/log", "/var/run", "/var/tmp"}

// Chown gives path and all that is in it to uid and gid, as the option U asks.
// No link is followed and no mount is crossed; what has the owner already is
// left alone.
func Chown(path string, uid, gid int) error {
	if slices.Contains(systemDirs[:], path) {
		return fmt.Errorf("U: %s is a directory of the system, whose owners stay", path)
	}
	f, err := os.OpenFile(path, unix.O_PATH, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return ChownFile(f, uid, gid)
}

// ChownFile is Chown of an open file or directory.
func ChownFile(f *os.File, uid, gid int) error {
	var top unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &top); err != nil {
		return err
	}
	if top.Mode&unix.S_IFMT != unix.S_IFDIR {
		return chownOne(int(f.Fd()), "", f.Name(), uid, gid, &top)
	}
	dir, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if err != nil {
		return err
	}
	defer dir.Close()
	return chownDir(dir, f.Name(), uid, gid)
}

func chownDir(dir *os.File, path string, uid, gid int) error {
	var here unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &here); err != nil {
		return err
	}
	entries, err := dir.ReadDir(-1)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := chownEntry(dir, e, filepath.Join(path, e.Name()), uid, gid, uint64(here.Dev)); err != nil {
			return err
		}
	}
	if int(here.Uid) == uid && int(here.Gid) == gid {
		return nil
	}
	if err := unix.Fchown(int(dir.Fd()), uid, gid); err != nil {
		return rootless.OwnerError(path, uid, gid, err)
	}
	return nil
}

func chownEntry(dir *os.File, e fs.DirEntry, path string, uid, gid int, dev uint64) error {
	var st unix.Stat_t
	err := unix.Fstatat(int(dir.Fd()), e.Name(), &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if uint64(st.Dev) != dev {
		return nil
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return chownOne(int(dir.Fd()), e.Name(), path, uid, gid, &st)
	}
	sub, err := sys.OpenAt(dir, e.Name(), unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer sub.Close()
	return chownDir(sub, path, uid, gid)
}

func chownOne(dir int, name, path string, uid, gid int, st *unix.Stat_t) error {
	if int(st.Uid) == uid && int(st.Gid) == gid {
		return nil
	}
	if err := unix.Fchownat(dir, name, uid, gid, unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH); err != nil {
		return rootless.OwnerError(path, uid, gid, err)
	}
	return nil
}

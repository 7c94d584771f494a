package volume

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/copytree"
	"github.com/kist-containers/kist/internal/sys"
)

// merge moves all that is in the directory from into the directory to, on the
// same file system. Directories of both become one; of other names that of from
// wins. No link is followed: what is in the volume is a container's.
func merge(from, to string) error {
	source, err := os.OpenFile(from, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.OpenFile(to, unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer target.Close()
	return mergeDir(source, target)
}

func mergeDir(from, to *os.File) error {
	names, err := from.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := mergeEntry(from, to, name); err != nil {
			return copytree.Nested(name, err)
		}
	}
	return nil
}

func mergeEntry(from, to *os.File, name string) error {
	err := unix.Renameat2(int(from.Fd()), name, int(to.Fd()), name, unix.RENAME_NOREPLACE)
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	var ours, theirs unix.Stat_t
	if err := errors.Join(
		unix.Fstatat(int(from.Fd()), name, &ours, unix.AT_SYMLINK_NOFOLLOW),
		unix.Fstatat(int(to.Fd()), name, &theirs, unix.AT_SYMLINK_NOFOLLOW)); err != nil {
		return err
	}
	if !isDir(&ours) || !isDir(&theirs) {
		// rename(2) refuses a directory over another thing, and the reverse.
		return unix.Renameat(int(from.Fd()), name, int(to.Fd()), name)
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
	if err := mergeDir(source, target); err != nil {
		return err
	}
	return copytree.Attributes(int(source.Fd()), int(target.Fd()), &ours)
}

func isDir(st *unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFDIR }

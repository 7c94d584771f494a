package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/copytree"
	"github.com/kist-containers/kist/internal/state"
	"github.com/kist-containers/kist/internal/sys"
)

// Where a copy is while it is made. It is complete when it has its second name;
// what is in it then moves into the volume, entry by entry, and a killed move is
// taken up by the next command that uses the volume. The volume's directory
// itself stays: a container that has it mounted sees what comes.
const (
	fillDraft = ".kist-fill.tmp"
	fillDone  = ".kist-fill"
)

// CopyUp fills an empty volume, attached at dir, with what the image has at path,
// once: owners, modes, times, xattrs and hard links are kept. root is the image's
// root file system; no link of it leads outside.
func (s *Store) CopyUp(ctx context.Context, name, dir string, root *os.File, path string) error {
	v, err := s.Get(name)
	if err != nil || v.Filled {
		return err
	}
	l, err := s.lock(ctx, name)
	if err != nil {
		return err
	}
	defer l.Unlock()
	if v, err = s.Get(name); err != nil || v.Filled {
		return err
	}
	if err := s.fill(v, dir, root, path); err != nil {
		return fmt.Errorf("fill volume %s from the image: %w", name, err)
	}
	return s.filled(v)
}

// filled notes that the volume is not to be filled any more. Without the note it
// would be looked at again, and found not to be empty: it needs no sync, and the
// content has none either, as after docker's copy.
func (s *Store) filled(v *Volume) error {
	v.Filled = true
	return state.WriteVolatileJSON(s.dir(v.Name, recordFile), v)
}

// draft is the directory in which a copy for the volume at dir is made: beside
// it, or in it where the volume is a file system of its own, or a project of its
// file system, into which nothing is renamed.
func (s *Store) draft(v *Volume, dir string) string {
	if dir == s.dir(v.Name, dataDir) && v.Quota == 0 {
		return s.dir(v.Name)
	}
	return dir
}

func (s *Store) fill(v *Volume, dir string, root *os.File, path string) error {
	beside := s.draft(v, dir)
	moved, err := finishFill(beside, dir)
	if err != nil || moved {
		return err
	}
	empty, err := isEmpty(dir)
	if err != nil || !empty {
		return err // docker: only an empty volume is filled
	}
	source, err := sys.OpenInRoot(root, path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	defer source.Close()
	draft := filepath.Join(beside, fillDraft)
	if err := os.RemoveAll(draft); err != nil {
		return err
	}
	if err := copyInto(draft, source); err != nil {
		return errors.Join(err, os.RemoveAll(draft))
	}
	if err := os.Rename(draft, filepath.Join(beside, fillDone)); err != nil {
		return errors.Join(err, os.RemoveAll(draft))
	}
	_, err = finishFill(beside, dir)
	return err
}

func copyInto(path string, source *os.File) error {
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	target, err := os.OpenFile(path, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer target.Close()
	return copytree.Copy(source, target)
}

// isEmpty passes over what a fresh file system holds and over a draft.
func isEmpty(dir string) (bool, error) {
	d, err := os.Open(dir)
	if err != nil {
		return false, err
	}
	defer d.Close()
	names, err := d.Readdirnames(4)
	for _, n := range names {
		if n != "lost+found" && !strings.HasPrefix(n, fillDone) {
			return false, nil
		}
	}
	if len(names) == 0 {
		err = nil // io.EOF
	}
	return true, err
}

// finishFill moves a complete copy into the volume's directory and reports
// whether there was one.
func finishFill(beside, dir string) (bool, error) {
	from, err := os.OpenFile(filepath.Join(beside, fillDone), unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer from.Close()
	to, err := os.OpenFile(dir, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return false, err
	}
	defer to.Close()
	// Moving changes the directory's times: the last step sets them.
	var st unix.Stat_t
	if err := unix.Fstat(int(from.Fd()), &st); err != nil {
		return false, err
	}
	names, err := from.Readdirnames(-1)
	if err != nil {
		return false, err
	}
	for _, n := range names {
		err := unix.Renameat2(int(from.Fd()), n, int(to.Fd()), n, unix.RENAME_NOREPLACE)
		// A container that had the empty volume already may have made the name: its
		// file stays.
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return false, &os.PathError{Op: "rename", Path: n, Err: err}
		}
	}
	if err := copytree.Attributes(int(from.Fd()), int(to.Fd()), &st); err != nil {
		return false, err
	}
	return true, os.RemoveAll(filepath.Join(beside, fillDone))
}

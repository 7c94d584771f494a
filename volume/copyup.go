package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/state"
	"github.com/kist-containers/kist/internal/sys"
)

// CopyUp fills a new, empty volume with what the image has at path, once: owner,
// mode, times, xattrs and links kept. The content is built beside the volume's
// directory and renamed, so that a killed copy leaves an empty volume to fill.
func (s *Store) CopyUp(ctx context.Context, name string, root *os.File, path string) error {
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
	if err := s.fill(v, root, path); err != nil {
		return fmt.Errorf("fill volume %s from the image: %w", name, err)
	}
	v.Filled = true
	return state.WriteJSON(s.dir(name, recordFile), v)
}

func (s *Store) fill(v *Volume, root *os.File, path string) error {
	entries, err := os.ReadDir(v.Path)
	if err != nil || len(entries) > 0 {
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
	tmp := s.dir(v.Name, ".tmp-data")
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	// The source is a descriptor, so no link of the image leads the copy astray,
	// and cp follows none below it.
	from := "/proc/self/fd/" + strconv.Itoa(3) + "/."
	cmd := exec.Command("cp", "-a", "--reflink=auto", from, tmp)
	cmd.ExtraFiles = []*os.File{source}
	if err := os.Mkdir(tmp, 0o755); err != nil {
		return err
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return errors.Join(fmt.Errorf("cp: %w: %s", err, out), os.RemoveAll(tmp))
	}
	if err := unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, v.Path, unix.RENAME_EXCHANGE); err != nil {
		return errors.Join(os.NewSyscallError("renameat2", err), os.RemoveAll(tmp))
	}
	return errors.Join(os.RemoveAll(tmp), state.SyncDir(filepath.Dir(v.Path)))
}

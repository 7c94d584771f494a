package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/cli"
	"github.com/kist-containers/kist/internal/sys"
	"github.com/kist-containers/kist/internal/ui"
)

// A source is a tree that COPY, ADD and bind mounts read: the build context, a
// stage, an image. Every look-up treats its root as "/", whatever links stand in
// the way.
type source struct {
	// name is how messages call it: "the build context".
	name string
	root *os.File
	// ignore leaves out what .dockerignore says; nil leaves out nothing.
	ignore *ignore
	// owned says that files count as root's: the ids of a context are those of
	// somebody's working copy and mean nothing in the image.
	owned bool
	// sums remembers digests of files between builds; nil does not.
	sums *sumCache
}

// An item is one file or directory that a step copies.
type item struct {
	// path is its place in the source, rel the one below the destination, ""
	// for the source itself.
	path, rel string
	stat      unix.Stat_t
	link      string
	// sum is the digest of a regular file's content and attributes.
	sum string
}

func (i *item) kind() uint32 { return i.stat.Mode & unix.S_IFMT }
func (i *item) isDir() bool  { return i.kind() == unix.S_IFDIR }

// open opens a file of the source, following links inside its root.
func (s *source) open(p string, flags int) (*os.File, error) {
	return sys.OpenInRoot(s.root, p, flags|unix.O_CLOEXEC, 0)
}

// stat describes what p leads to.
func (s *source) stat(p string) (st unix.Stat_t, err error) {
	f, err := s.open(p, unix.O_PATH)
	if err != nil {
		return st, err
	}
	defer f.Close()
	return st, os.NewSyscallError("fstat", unix.Fstat(int(f.Fd()), &st))
}

// read returns the content of the regular file p, which has at most limit bytes.
func (s *source) read(p string, limit int64) ([]byte, error) {
	f, err := sys.OpenRegular(s.root, p)
	if errors.Is(err, sys.ErrNotRegular) {
		return nil, fmt.Errorf("%s: not a regular file", p)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s: larger than %s", p, ui.Binary(limit))
	}
	return data, err
}

// missing words that p is not there: left out, misspelt, or gone.
func (s *source) missing(p string) error {
	if s.ignore.excludes(p) {
		return fmt.Errorf("%s: excluded from %s by .dockerignore", p, s.name)
	}
	err := fmt.Errorf("%s: not in %s", p, s.name)
	dir, err2 := s.open(path.Dir(p), unix.O_RDONLY|unix.O_DIRECTORY)
	if err2 != nil {
		return err
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(maxSuggestions)
	if near := cli.Nearest(path.Base(p), names); near != "" {
		return ui.Hint(err, "did you mean %s?", path.Join(path.Dir(p), near))
	}
	return err
}

// maxSuggestions bounds the names that are compared for a near miss.
const maxSuggestions = 1000

// maxItems bounds the files of one source.
const maxItems = 10 << 20

// scan lists p and all below it in the order of names, parents first. skip
// leaves out entries by their path below p; it may be nil.
func (s *source) scan(ctx context.Context, p string, skip *ignore) ([]item, error) {
	st, err := s.stat(p)
	if err != nil {
		return nil, err
	}
	w := walker{ctx: ctx, s: s, skip: skip}
	w.items = append(w.items, item{path: p, stat: st})
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return w.items, nil
	}
	dir, err := s.open(p, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return w.items, w.walk(dir, p, "")
}

type walker struct {
	ctx   context.Context
	s     *source
	skip  *ignore
	items []item
}

// walk lists one directory. Links are listed, not followed.
func (w *walker) walk(dir *os.File, at, rel string) error {
	if err := w.ctx.Err(); err != nil {
		return context.Cause(w.ctx)
	}
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		if err := w.entry(dir, path.Join(at, name), path.Join(rel, name), name); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) entry(dir *os.File, at, rel, name string) error {
	it := item{path: at, rel: rel}
	err := unix.Fstatat(int(dir.Fd()), name, &it.stat, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil // it went away since the directory was read
	}
	if err != nil {
		return &os.PathError{Op: "stat", Path: at, Err: err}
	}
	excluded := w.s.ignore.excludes(strings.TrimPrefix(at, "/")) || w.skip.excludes(rel)
	if excluded && (!it.isDir() || w.prunes(at, rel)) {
		return nil
	}
	switch it.kind() {
	case unix.S_IFSOCK:
		return nil // docker: sockets mean nothing in an image
	case unix.S_IFLNK:
		if it.link, err = readlinkAt(dir, name); err != nil {
			return err
		}
	}
	if len(w.items) >= maxItems {
		return fmt.Errorf("more than %d files below %s", maxItems, w.s.name)
	}
	mark := len(w.items)
	w.items = append(w.items, it)
	if !it.isDir() {
		return nil
	}
	if err := w.descend(dir, name, at, rel); err != nil {
		return err
	}
	if excluded && len(w.items) == mark+1 {
		w.items = w.items[:mark] // nothing below it was brought back
	}
	return nil
}

func (w *walker) prunes(at, rel string) bool {
	byContext := !w.s.ignore.excludes(strings.TrimPrefix(at, "/")) || w.s.ignore.prunes(strings.TrimPrefix(at, "/"))
	bySkip := !w.skip.excludes(rel) || w.skip.prunes(rel)
	return byContext && bySkip
}

func (w *walker) descend(dir *os.File, name, at, rel string) error {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil // replaced since it was listed
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: at, Err: err}
	}
	sub := os.NewFile(uintptr(fd), at)
	defer sub.Close()
	return w.walk(sub, at, rel)
}

func readlinkAt(dir *os.File, name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(dir.Fd()), name, buf)
	if err != nil {
		return "", &os.PathError{Op: "readlink", Path: name, Err: err}
	}
	return string(buf[:n]), nil
}

// notFound reports whether err says that a path leads nowhere.
func notFound(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR)
}

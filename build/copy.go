package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/sys"
)

// A copyStep is a COPY or ADD with its words expanded.
type copyStep struct {
	verb string
	from *source
	// dest is absolute; into says that it is a directory by its name.
	dest    string
	into    bool
	chown   string
	mode    chmod
	modeStr string
	parents bool
	exclude *ignore
	groups  []group
}

// A group is what one source word of the step stands for.
type group struct {
	src   *source
	items []item
	// rel is where the source goes below the destination: its name, or with
	// --parents the path behind the pivot. A directory's content goes to the
	// destination itself, which is rel "".
	rel string
	// data is the content of a heredoc or nil.
	data []byte
	// unpack says that the file is an archive whose content is meant.
	unpack bool
	// fixed replaces the file's mode, 0 keeps it.
	fixed uint32
}

// gather finds what the patterns mean.
func (c *copyStep) gather(ctx context.Context, patterns []string) error {
	for _, pattern := range patterns {
		pivot, rest := "", pattern
		if c.parents {
			if before, after, ok := strings.Cut(pattern, "/./"); ok {
				pivot, rest = before, after
			}
			pattern = path.Join(pivot, rest)
		}
		found, err := c.from.glob(ctx, pattern, c.parents)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return fmt.Errorf("%s: nothing in %s matches", pattern, c.from.name)
		}
		for _, p := range found {
			if err := c.add(ctx, p, strings.TrimPrefix(path.Join("/", pivot), "/")); err != nil {
				return err
			}
		}
	}
	return nil
}

// add takes the file or directory p of the source into the step.
func (c *copyStep) add(ctx context.Context, p, pivot string) error {
	if c.from.ignore.excludes(p) && (!c.from.stays(ctx, p)) {
		return c.from.missing(p)
	}
	items, err := c.from.scan(ctx, cmpOr(p, "."), c.exclude)
	if notFound(err) {
		return c.from.missing(p)
	}
	if err != nil {
		return err
	}
	g := group{src: c.from, items: items}
	if !items[0].isDir() {
		if c.exclude.excludes(path.Base(p)) {
			return nil
		}
		g.rel = path.Base(p)
	}
	if c.parents {
		g.rel = strings.TrimPrefix(strings.TrimPrefix(p, pivot), "/")
	}
	if err := c.from.sum(ctx, items); err != nil {
		return err
	}
	c.groups = append(c.groups, g)
	return nil
}

// stays reports whether an excluded directory has content that a "!" pattern
// brought back.
func (s *source) stays(ctx context.Context, p string) bool {
	items, err := s.scan(ctx, p, nil)
	return err == nil && items[0].isDir() && len(items) > 1
}

// key is the identity of what the step writes, besides what it writes to.
func (c *copyStep) key() string {
	parts := []string{c.verb, c.dest, fmt.Sprint(c.into, c.parents), c.chown, c.modeStr}
	for _, g := range c.groups {
		parts = append(parts, g.rel, fmt.Sprint(g.unpack, g.fixed), string(g.data))
		if g.data == nil {
			parts = append(parts, g.src.digest(g.items))
		}
	}
	return digestOf(parts...)
}

// apply writes the step into t. owner is what --chown means there.
func (c *copyStep) apply(ctx context.Context, t *tree, owner *identity) error {
	w := copier{copyStep: c, ctx: ctx, t: t, owner: owner, linked: map[[2]uint64]string{}}
	dest, err := t.follow(c.dest)
	if err != nil {
		return err
	}
	into := c.into || len(c.groups) > 1 || t.isDir(dest)
	for i := range c.groups {
		if err := w.group(&c.groups[i], dest, into); err != nil {
			return err
		}
	}
	return t.close()
}

type copier struct {
	*copyStep
	ctx   context.Context
	t     *tree
	owner *identity
	// linked maps device and inode to where a file with several names went.
	linked map[[2]uint64]string
}

func (w *copier) ids(s *source, st *unix.Stat_t) (uid, gid int) {
	switch {
	case w.owner != nil:
		return w.owner.uid, w.owner.gid
	case s.owned:
		return 0, 0
	}
	return int(st.Uid), int(st.Gid)
}

// made is who owns the directories that the step makes on the way.
func (w *copier) made() (uid, gid int) {
	if w.owner != nil {
		return w.owner.uid, w.owner.gid
	}
	return 0, 0
}

func (w *copier) group(g *group, dest string, into bool) error {
	uid, gid := w.made()
	top := g.data == nil && g.items[0].isDir()
	switch {
	case top, g.unpack:
		dest = path.Join(dest, g.rel)
		if g.unpack {
			dest = path.Dir(path.Join(dest, "x"))
			if !w.parents {
				dest = strings.TrimSuffix(dest, "/"+g.rel)
			}
		}
		if err := w.t.mkdirAll(cmpOr(dest, "/"), uid, gid); err != nil {
			return err
		}
	case into || w.parents:
		dest = path.Join(dest, g.rel)
		fallthrough
	default:
		if err := w.t.mkdirAll(path.Dir(dest), uid, gid); err != nil {
			return err
		}
	}
	switch {
	case g.data != nil:
		return w.inline(g, dest)
	case g.unpack:
		return w.unpack(g, cmpOr(dest, "/"))
	}
	return w.items(g, dest, top)
}

// inline writes a heredoc's content.
func (w *copier) inline(g *group, dest string) error {
	uid, gid := w.made()
	m := meta{uid: uid, gid: gid, mode: w.perm(0o644, false), mtime: now()}
	return w.t.file(dest, m, func(f *os.File) error {
		_, err := f.Write(g.data)
		return err
	})
}

func (w *copier) perm(mode uint32, dir bool) uint32 {
	if w.mode != nil {
		return w.mode(mode, dir)
	}
	return mode
}

func (w *copier) items(g *group, dest string, top bool) error {
	items := g.items
	if top {
		items = items[1:] // the destination stands for it
	}
	for i := range items {
		if err := w.ctx.Err(); err != nil {
			return context.Cause(w.ctx)
		}
		if err := w.item(g, &items[i], path.Join(dest, items[i].rel)); err != nil {
			return err
		}
	}
	return nil
}

func (w *copier) item(g *group, it *item, to string) error {
	uid, gid := w.ids(g.src, &it.stat)
	m := meta{uid: uid, gid: gid, mode: w.perm(it.stat.Mode&0o7777, it.isDir()), mtime: it.stat.Mtim}
	if g.fixed != 0 && w.mode == nil {
		m.mode = g.fixed
	}
	switch it.kind() {
	case unix.S_IFDIR:
		return w.t.mkdir(to, m, true)
	case unix.S_IFLNK:
		return w.t.symlink(to, it.link, m)
	case unix.S_IFREG:
		return w.regular(g, it, to, m)
	default:
		err := w.t.node(to, it.kind(), it.stat.Rdev, m)
		if errors.Is(err, unix.EPERM) {
			return fmt.Errorf("%s: a device cannot be made in a user namespace", it.path)
		}
		return err
	}
}

// regular copies a file, or links it to the copy of its other name.
func (w *copier) regular(g *group, it *item, to string, m meta) error {
	inode := [2]uint64{it.stat.Dev, it.stat.Ino}
	if it.stat.Nlink > 1 {
		if first, ok := w.linked[inode]; ok {
			return w.t.link(to, first)
		}
		w.linked[inode] = to
	}
	in, err := sys.OpenRegular(g.src.root, it.path)
	if err != nil {
		return err
	}
	defer in.Close()
	if m.attrs, err = readAttrs(in); err != nil {
		return err
	}
	return w.t.file(to, m, func(out *os.File) error {
		return copyData(out, in, it.stat.Size)
	})
}

// copyData copies size bytes. A file that changed length under the copy is an
// error: its digest is no longer the one in the key.
func copyData(out, in *os.File, size int64) error {
	if size <= smallFile {
		buf := make([]byte, size+1)
		n, err := io.ReadFull(in, buf)
		if int64(n) != size || err == nil && size >= 0 && n > int(size) {
			return fmt.Errorf("%s: changed while it was copied", in.Name())
		}
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
			return err
		}
		_, err = out.Write(buf[:n])
		return err
	}
	n, err := io.Copy(out, in)
	if err == nil && n != size {
		return fmt.Errorf("%s: changed while it was copied", in.Name())
	}
	return err
}

// smallFile is up to where one read and one write beat copy_file_range(2).
const smallFile = 64 << 10

package build

import (
	"context"
	"errors"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// merge puts the changes of an overlay layer into upper, which holds those of
// the layers below it: for --squash.
func (b *Builder) merge(ctx context.Context, from, upper string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	root, err := os.Open(upper)
	if err != nil {
		return err
	}
	defer root.Close()
	s := &source{name: from, root: src}
	items, err := s.scan(ctx, ".", nil)
	if err != nil {
		return err
	}
	t := &tree{root: root}
	defer t.forget()
	w := copier{copyStep: &copyStep{}, ctx: ctx, t: t, linked: map[[2]uint64]string{}}
	g := &group{src: s, items: items}
	for i := range items[1:] {
		if err := b.mergeItem(&w, g, &items[1+i], upper); err != nil {
			return err
		}
	}
	return t.close()
}

func (b *Builder) mergeItem(w *copier, g *group, it *item, upper string) error {
	to := path.Join("/", it.rel)
	old := filepath.Join(upper, it.rel)
	opaque := b.opaque(filepath.Join(g.src.root.Name(), it.rel))
	if it.isDir() {
		// A directory over a file, or one that hides what is below, begins empty.
		if st, err := os.Lstat(old); err == nil && (!st.IsDir() || opaque) {
			w.t.forget()
			if err := os.RemoveAll(old); err != nil {
				return err
			}
		}
	} else if err := os.RemoveAll(old); err != nil {
		return err
	}
	if err := w.item(g, it, to); err != nil {
		return err
	}
	if !opaque {
		return nil
	}
	return os.NewSyscallError("setxattr", unix.Lsetxattr(old, b.overlayAttr(), []byte("y"), 0))
}

func (b *Builder) overlayAttr() string {
	if b.o.Rootless {
		return "user.overlay.opaque"
	}
	return "trusted.overlay.opaque"
}

// opaque reports whether an overlay directory hides what lies below it.
func (b *Builder) opaque(dir string) bool {
	value := make([]byte, 2)
	n, err := unix.Lgetxattr(dir, b.overlayAttr(), value)
	return err == nil && n == 1 && value[0] == 'y' && !errors.Is(err, unix.ERANGE)
}

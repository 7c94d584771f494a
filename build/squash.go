package build

import (
	"context"
	"errors"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/image"
)

// squash makes one layer of all but the first keep: the changes are packed
// again from a view of them all.
func (b *Builder) squash(ctx context.Context, st *stageState, keep int, cfg *v1.ConfigFile) ([]layer, error) {
	dir, remove, err := b.scratch()
	if err != nil {
		return nil, err
	}
	defer remove()
	upper := filepath.Join(dir, "upper")
	if err := makeDir(upper, 0o755); err != nil {
		return nil, err
	}
	for _, l := range st.layers[keep:] {
		if err := b.merge(ctx, l.Dir, upper); err != nil {
			return nil, err
		}
	}
	parent := ""
	if keep > 0 {
		parent = st.layers[keep-1].ChainID
	}
	l, blob, err := b.store.AddLayerFromDir(ctx, parent, upper, image.LayerOptions{})
	if err != nil {
		return nil, err
	}
	h, err := v1.NewHash(l.DiffID)
	if err != nil {
		return nil, err
	}
	cfg.RootFS.DiffIDs = append(slices.Clone(cfg.RootFS.DiffIDs[:keep]), h)
	squashHistory(cfg, keep, st.clock)
	return append(slices.Clone(st.layers[:keep]), layer{DiffID: l.DiffID, ChainID: l.ChainID, Dir: l.Dir, Blob: blob}), nil
}

// squashHistory marks the build's entries as empty and adds docker's last one.
func squashHistory(cfg *v1.ConfigFile, base int, at time.Time) {
	seen := 0
	for i := range cfg.History {
		if !cfg.History[i].EmptyLayer {
			if seen++; seen > base {
				cfg.History[i].EmptyLayer = true
			}
		}
	}
	cfg.History = append(cfg.History, v1.History{Created: v1.Time{Time: at}, Comment: "merge of the build's layers"})
}

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

package build

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/kist-containers/kist/image"
	pack "github.com/kist-containers/kist/image/layer"
	"github.com/kist-containers/kist/internal/ui"
)

// write does one --output with the stored result.
func (b *Builder) write(ctx context.Context, o output, req *Request, res *Result, out *ui.Output) error {
	switch o.kind {
	case "image":
		if !o.push {
			return nil
		}
		return b.push(ctx, req, out)
	case "registry":
		return b.push(ctx, req, out)
	case "docker", "oci":
		if o.kind == "docker" && o.dest == "" {
			return nil // the store has it
		}
		if o.dir {
			return b.store.SaveDir(ctx, o.dest, savedNames(req, res), image.SaveOptions{})
		}
		w, err := o.create(out)
		if err != nil {
			return err
		}
		return errors.Join(b.archive(ctx, w, o.kind, req, res), w.Close())
	case "tar":
		w, err := o.create(out)
		if err != nil {
			return err
		}
		return errors.Join(b.oneTree(ctx, res, func(v *view) error { return b.tarTree(ctx, w, v) }), w.Close())
	}
	return b.localTrees(ctx, res, o.dest)
}

// localTrees copies the result into dest; each of several platforms gets a
// directory of its own there, linux_arm64.
func (b *Builder) localTrees(ctx context.Context, res *Result, dest string) error {
	for i := range res.Images {
		to := dest
		if len(res.Images) > 1 {
			to = filepath.Join(dest, strings.ReplaceAll(platformName(res.Images[i].Platform), "/", "_"))
		}
		err := b.tree(&res.Images[i], func(v *view) error { return b.copyTree(ctx, v, to) })
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *Builder) oneTree(ctx context.Context, res *Result, do func(*view) error) error {
	if len(res.Images) != 1 {
		return ui.Hint(errors.New("several platforms have no single file system"), "kist build -o type=local,dest=DIR …")
	}
	return b.tree(&res.Images[0], do)
}

// tree gives do the root file system of an image.
func (b *Builder) tree(built *Built, do func(*view) error) error {
	dir, remove, err := b.scratch()
	if err != nil {
		return err
	}
	defer remove()
	v, err := b.openView(built.layers, dir, false)
	if err != nil {
		return err
	}
	defer v.Close()
	return do(v)
}

// tarTree writes the merged tree as an archive. The view has no path of its
// own, so it is reached by its descriptor.
func (b *Builder) tarTree(ctx context.Context, w io.Writer, v *view) error {
	_, err := pack.WriteDiff(ctx, w, procPath(v.Root), nil, pack.DiffOptions{Rootless: b.o.Rootless, Flat: true})
	return err
}

// copyTree copies the merged tree into a directory of the user, who owns it all.
func (b *Builder) copyTree(ctx context.Context, v *view, dest string) error {
	if err := os.MkdirAll(dest, 0o755); err != nil {
		return err
	}
	root, err := os.Open(dest)
	if err != nil {
		return err
	}
	defer root.Close()
	s := &source{name: "the result", root: v.Root}
	cs := &copyStep{verb: "COPY", from: s, dest: "/", into: true}
	items, err := s.scan(ctx, ".", nil)
	if err != nil {
		return err
	}
	cs.groups = []group{{src: s, items: items}}
	t := &tree{root: root}
	defer t.forget()
	return cs.apply(ctx, t, &identity{uid: os.Geteuid(), gid: os.Getegid()})
}

package image

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kist-containers/kist/image/layer"
)

// AddLayerFromDir makes a layer of dir, a writable overlay layer (upper) that
// nothing has mounted any more and that lies on the store's file system. The
// directory itself becomes the layer: it is gone from its place afterwards.
func (s *Store) AddLayerFromDir(ctx context.Context, parent, dir string, o LayerOptions) (Layer, v1.Descriptor, error) {
	pin, err := s.pinned(ctx)
	if err != nil {
		return Layer{}, v1.Descriptor{}, err
	}
	defer pin.Unlock()
	stack, err := s.stackOf(parent)
	if err != nil {
		return Layer{}, v1.Descriptor{}, err
	}
	in := &ingested{blob: s.imageDir("partial", ".tmp-"+rand.Text())}
	below := Image{Layers: stack}
	if err := s.pack(ctx, in, dir, below.LowerDirs(), o); err != nil {
		in.discard()
		return Layer{}, v1.Descriptor{}, err
	}
	l := Layer{DiffID: in.res.DiffID, ChainID: chainID(parent, in.res.DiffID)}
	l.Dir = s.layerPath(l.ChainID)
	stack = append(stack, l)
	// The move comes last: after an error the caller still has its directory.
	tree := s.layerDir(".tmp-" + rand.Text())
	err = s.stage(tree, stack, in.desc, in.res)
	if err == nil {
		err = os.Rename(dir, tree)
	}
	if err == nil {
		in.tree = tree
		if err = s.publishIngested(in, stack); err != nil {
			err = errors.Join(err, os.Rename(tree, dir))
			in.tree = ""
		}
	}
	if err != nil {
		os.Remove(tree + recordSuffix)
		in.discard()
		return Layer{}, v1.Descriptor{}, err
	}
	return l, in.desc, s.syncNames()
}

// pack writes the blob of an upper directory.
func (s *Store) pack(ctx context.Context, in *ingested, dir string, lowers []string, o LayerOptions) error {
	pr, pw := io.Pipe()
	diff := sha256.New()
	size := int64(0)
	go func() {
		st, err := layer.WriteDiff(ctx, pw, dir, lowers, layer.DiffOptions{Rootless: s.o.Rootless})
		size = st.Size
		in.res.Disk, in.res.Files = st.Disk, st.Files
		pw.CloseWithError(err)
	}()
	d, err := writeLayerBlob(in.blob, pr, diff, !o.Uncompressed)
	pr.CloseWithError(errUnpackEnded)
	if err != nil {
		return err
	}
	store := layer.Gzip
	if o.Uncompressed {
		store = layer.None
	}
	d.MediaType = layerType(store)
	in.desc, in.res.DiffID, in.res.Size = d, digest(diff), size
	return nil
}

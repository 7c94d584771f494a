package image

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"

	"github.com/kist-containers/kist/image/layer"
	"github.com/kist-containers/kist/internal/state"
	"github.com/kist-containers/kist/internal/ui"
)

// LayerOptions say how a layer is added. The zero value compresses with gzip.
type LayerOptions struct {
	// Uncompressed stores the archive as it is, when the archive is not compressed.
	Uncompressed bool
	// DiffID is what the archive's digest must be, "" for any.
	DiffID string
	Task   *ui.Task
}

// AddLayer stores the archive r and unpacks it on top of parent, a chain ID or
// "" for a base layer. A compressed archive is kept as it came; another is
// compressed. The caller holds a pin until an image refers to the layer.
func (s *Store) AddLayer(ctx context.Context, parent string, r io.Reader, o LayerOptions) (Layer, v1.Descriptor, error) {
	pin, err := s.pinned(ctx)
	if err != nil {
		return Layer{}, v1.Descriptor{}, err
	}
	defer pin.Unlock()
	in, err := s.ingest(ctx, r, o)
	if err != nil {
		return Layer{}, v1.Descriptor{}, err
	}
	if o.DiffID != "" && o.DiffID != in.res.DiffID {
		in.discard()
		return Layer{}, v1.Descriptor{}, fmt.Errorf("%w: wanted the archive %s, got %s", ErrCorrupt, o.DiffID, in.res.DiffID)
	}
	l, err := s.adopt(in, parent)
	return l, in.desc, err
}

// An ingested layer is one whose place in a stack is not yet known.
type ingested struct {
	tree, blob string // temporary paths
	res        layer.Result
	desc       v1.Descriptor
}

func (in *ingested) discard() {
	discard(in.tree)
	if in.blob != "" {
		os.Remove(in.blob)
	}
}

// ingest unpacks the archive r and writes its blob, both under temporary names.
func (s *Store) ingest(ctx context.Context, r io.Reader, o LayerOptions) (_ *ingested, err error) {
	in := &ingested{blob: s.imageDir("partial", ".tmp-"+rand.Text())}
	defer func() {
		if err != nil {
			in.discard()
		}
	}()
	if in.tree, err = s.tempLayer(); err != nil {
		return nil, err
	}
	br := bufio.NewReaderSize(r, copyBuffer)
	head, err := br.Peek(6)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	comp := layer.Detect(head)
	store := comp
	if comp == layer.None && !o.Uncompressed || comp == layer.Bzip2 || comp == layer.XZ {
		store = layer.Gzip
	}
	in.desc, in.res, err = s.tee(ctx, br, in, comp, store)
	return in, err
}

const copyBuffer = 256 << 10

// tee copies r to the blob, recompressed where registries do not know its
// compression, and unpacks it at the same time.
func (s *Store) tee(ctx context.Context, r io.Reader, in *ingested, have, store layer.Compression) (v1.Descriptor, layer.Result, error) {
	if have != store && have != layer.None {
		plain, _, err := layer.Decompress(r)
		if err != nil {
			return v1.Descriptor{}, layer.Result{}, err
		}
		defer plain.Close()
		r = plain
	}
	pr, pw := io.Pipe()
	type unpacked struct {
		res layer.Result
		err error
	}
	done := make(chan unpacked, 1)
	go func() {
		res, err := layer.Apply(ctx, in.tree, pr, layer.Options{Rootless: s.o.Rootless})
		pr.CloseWithError(errors.Join(err, errUnpackEnded))
		done <- unpacked{res, err}
	}()
	d, err := writeLayerBlob(in.blob, r, pw, have != store)
	pw.CloseWithError(err)
	u := <-done
	if u.err != nil {
		err = u.err
	}
	d.MediaType = layerType(store)
	return d, u.res, err
}

var errUnpackEnded = errors.New("unpacking ended")

func layerType(c layer.Compression) types.MediaType {
	switch c {
	case layer.Zstd:
		return types.OCILayerZStd
	case layer.None:
		return types.OCIUncompressedLayer
	}
	return types.OCILayer
}

// writeLayerBlob copies r to also and, compressed or not, to the file path.
func writeLayerBlob(path string, r io.Reader, also io.Writer, compress bool) (d v1.Descriptor, err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return d, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h := sha256.New()
	count := &counter{w: io.MultiWriter(f, h)}
	if err := copyCompressed(count, r, also, compress); err != nil {
		return d, err
	}
	hash, err := v1.NewHash(digest(h))
	return v1.Descriptor{Digest: hash, Size: count.n}, err
}

func copyCompressed(w io.Writer, r io.Reader, also io.Writer, compress bool) error {
	buf := make([]byte, copyBuffer)
	onlyReader := struct{ io.Reader }{r}
	if !compress {
		_, err := io.CopyBuffer(io.MultiWriter(also, w), onlyReader, buf)
		return err
	}
	// Level 1 is four times as fast as the default, for a tenth more bytes. The
	// header has no name and no time, so equal layers have equal blobs.
	bw := bufio.NewWriterSize(w, copyBuffer)
	z, err := gzip.NewWriterLevel(bw, gzip.BestSpeed)
	if err != nil {
		return err
	}
	if _, err := io.CopyBuffer(io.MultiWriter(also, z), onlyReader, buf); err != nil {
		return err
	}
	return errors.Join(z.Close(), bw.Flush())
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

// adopt publishes an ingested layer on top of parent.
func (s *Store) adopt(in *ingested, parent string) (Layer, error) {
	stack, err := s.stackOf(parent)
	if err != nil {
		in.discard()
		return Layer{}, err
	}
	l := Layer{DiffID: in.res.DiffID, ChainID: chainID(parent, in.res.DiffID)}
	l.Dir = s.layerPath(l.ChainID)
	stack = append(stack, l)
	if err = s.stage(in.tree, stack, in.desc, in.res); err == nil {
		err = s.publishIngested(in, stack)
	}
	if err != nil {
		in.discard()
		return Layer{}, err
	}
	return l, s.syncNames()
}

// publishIngested gives a synced layer and its blob their names.
func (s *Store) publishIngested(in *ingested, stack []Layer) error {
	if err := os.Rename(in.blob, s.blobPath(in.desc.Digest)); err != nil {
		return err
	}
	return s.publish(in.tree, stack, in.res)
}

// syncNames makes the names of published layers and blobs durable.
func (s *Store) syncNames() error {
	return errors.Join(state.SyncDir(s.layerDir()), state.SyncDir(s.imageDir("blobs", "sha256")))
}

// stackOf returns the layers up to chain, base first, by their records.
func (s *Store) stackOf(chain string) ([]Layer, error) {
	var stack []Layer
	for chain != "" {
		rec, err := s.layerRecord(chain)
		if err != nil || len(stack) > maxLayers {
			return nil, fmt.Errorf("layer %s: %w", short(chain), errors.Join(err, ErrNotFound))
		}
		stack = append([]Layer{{DiffID: rec.DiffID, ChainID: chain, Dir: s.layerPath(chain)}}, stack...)
		chain = rec.Parent
	}
	return stack, nil
}

package image

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
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
	if err := s.prepare(); err != nil {
		return Layer{}, v1.Descriptor{}, err
	}
	pin, err := s.Pin(ctx)
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

// AddLayerFromDir makes a layer of dir, a writable overlay layer (upper) that
// nothing has mounted any more and that lies on the store's file system. The
// directory itself becomes the layer: it is gone from its place afterwards.
func (s *Store) AddLayerFromDir(ctx context.Context, parent, dir string, o LayerOptions) (Layer, v1.Descriptor, error) {
	if err := s.prepare(); err != nil {
		return Layer{}, v1.Descriptor{}, err
	}
	pin, err := s.Pin(ctx)
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

// AddImage records an image of layers that AddLayer returned, base first, whose
// diffIDs cfg lists in the same order, under names (each NAME[:TAG]; none makes
// an image without a name).
func (s *Store) AddImage(ctx context.Context, cfg *v1.ConfigFile, layers []v1.Descriptor, names []string) (*Image, error) {
	raw, err := json.Marshal(cfg)
	if err != nil {
		return nil, err
	}
	return s.AddRawImage(ctx, raw, layers, names)
}

// AddRawImage is AddImage for a configuration with fields that v1.ConfigFile
// does not have.
func (s *Store) AddRawImage(ctx context.Context, raw []byte, layers []v1.Descriptor, names []string) (*Image, error) {
	return s.AddAnnotatedImage(ctx, raw, layers, nil, names)
}

// AddAnnotatedImage is AddRawImage with annotations in the manifest.
func (s *Store) AddAnnotatedImage(ctx context.Context, raw []byte, layers []v1.Descriptor, annotations map[string]string, names []string) (*Image, error) {
	cfg, err := parseConfig(raw)
	if err != nil {
		return nil, err
	}
	if len(layers) != len(cfg.RootFS.DiffIDs) {
		return nil, fmt.Errorf("image has %d layers and %d diffIDs", len(layers), len(cfg.RootFS.DiffIDs))
	}
	if err := s.prepare(); err != nil {
		return nil, err
	}
	cd, err := s.writeBlob(raw, types.OCIConfigJSON)
	if err != nil {
		return nil, err
	}
	m := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Config: cd, Layers: bare(layers), Annotations: annotations}
	data, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	md, err := s.writeBlob(data, types.OCIManifestSchema1)
	if err != nil {
		return nil, err
	}
	return s.name(ctx, noted(md, "", "", cd.Digest, cfg, s.sizeOf(cfg)), names)
}

// bare keeps what a manifest says of a layer. layers may be nil; a manifest's may not.
func bare(layers []v1.Descriptor) []v1.Descriptor {
	out := make([]v1.Descriptor, 0, len(layers))
	for _, d := range layers {
		out = append(out, v1.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, Annotations: d.Annotations})
	}
	return out
}

// name records e under each name, or without one.
func (s *Store) name(ctx context.Context, e entry, names []string) (*Image, error) {
	var refs []string
	for _, n := range names {
		r, err := ParseReference(n)
		if err != nil {
			return nil, err
		}
		if r.Digest != "" {
			return nil, fmt.Errorf("%w %q: a digest cannot be a new image's name", ErrInvalid, n)
		}
		refs = append(refs, r.Tagged().String())
	}
	if len(refs) == 0 {
		return s.record(ctx, e)
	}
	var all []entry
	err := s.update(ctx, func(entries []entry) ([]entry, error) {
		for _, r := range refs {
			named := unnamed(e)
			named.Annotations[noteName] = r
			entries = put(entries, named)
		}
		all = entries
		return entries, nil
	})
	if err != nil {
		return nil, err
	}
	return s.open(e, all)
}

func readAll(r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("more than %d bytes", limit)
	}
	return data, err
}

// LayerDescriptors returns the descriptors of img's layers, base first, for an
// image that is to be made on top of it.
func (s *Store) LayerDescriptors(img *Image) ([]v1.Descriptor, error) {
	m, err := s.readManifest(img.Manifest)
	if err != nil {
		return nil, err
	}
	return m.Layers, nil
}

package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// An imageSource is where an image comes from: a repository, the store, a
// layout, an archive or a directory.
type imageSource interface {
	source
	// Manifest returns the document of a tag or digest; "" is the only one.
	Manifest(ctx context.Context, reference string) ([]byte, v1.Descriptor, error)
}

// A followed image is what a reference led to.
type followed struct {
	// top describes what the source means by the reference, d the image's manifest.
	top, d v1.Descriptor
	// data is the document that d describes.
	data []byte
}

// maxIndexDepth is how deep indexes may nest.
const maxIndexDepth = 2

var errNesting = errors.New("indexes nest too deep")

// follow gets the manifest that src means by reference for platform p, through
// indexes.
func follow(ctx context.Context, src imageSource, reference string, p v1.Platform) (f followed, err error) {
	for depth := 0; ; depth++ {
		if f.data, f.d, err = src.Manifest(ctx, reference); err != nil {
			return f, err
		}
		if depth == 0 {
			f.top = f.d
		}
		if !f.d.MediaType.IsIndex() {
			return f, nil
		}
		if depth >= maxIndexDepth {
			return f, errNesting
		}
		im, err := parseIndex(f.data, f.d.MediaType)
		if err != nil {
			return f, err
		}
		child, err := choose(im.Manifests, p)
		if err != nil {
			return f, err
		}
		reference = child.Digest.String()
	}
}

// withType describes a document by what it says of itself.
func withType(data []byte, err error) ([]byte, v1.Descriptor, error) {
	if err != nil {
		return nil, v1.Descriptor{}, err
	}
	var doc struct {
		MediaType types.MediaType `json:"mediaType"`
		Manifests []any           `json:"manifests"`
	}
	if err := unmarshal(data, &doc); err != nil {
		return nil, v1.Descriptor{}, err
	}
	switch {
	case doc.MediaType != "":
	case doc.Manifests != nil:
		doc.MediaType = types.OCIImageIndex
	default:
		doc.MediaType = types.OCIManifestSchema1
	}
	return data, v1.Descriptor{MediaType: doc.MediaType, Digest: hashOf(data), Size: int64(len(data))}, nil
}

// verified checks a document against the digest it was asked by.
func verified(data []byte, d v1.Descriptor, err error) func(v1.Hash) ([]byte, v1.Descriptor, error) {
	return func(h v1.Hash) ([]byte, v1.Descriptor, error) {
		if err == nil && d.Digest != h {
			err = fmt.Errorf("%w: wanted %s, got %s", ErrCorrupt, h, d.Digest)
		}
		return data, d, err
	}
}

// A storeSource is kist's own store; a reference is a digest.
type storeSource struct{ s *Store }

// Manifest implements imageSource.
func (s storeSource) Manifest(_ context.Context, digest string) ([]byte, v1.Descriptor, error) {
	h, err := v1.NewHash(digest)
	if err != nil {
		return nil, v1.Descriptor{}, err
	}
	return withType(s.s.readBlob(v1.Descriptor{Digest: h}, maxManifest))
}

// Blob implements source.
func (s storeSource) Blob(_ context.Context, d v1.Descriptor, offset int64) (io.ReadCloser, int64, error) {
	f, err := os.Open(s.s.blobPath(d.Digest))
	if err != nil {
		return nil, 0, fatal{err}
	}
	_, err = f.Seek(offset, io.SeekStart)
	return f, offset, err
}

// A layoutSource is an OCI layout, a directory or an archive.
type layoutSource struct{ archiveBlobs }

// Close closes the archive.
func (s layoutSource) Close() error { return s.a.Close() }

// Manifest implements imageSource: by digest, by tag or name, or the only one.
func (s layoutSource) Manifest(_ context.Context, reference string) ([]byte, v1.Descriptor, error) {
	if h, err := v1.NewHash(reference); err == nil {
		return verified(withType(readDocument(s.a, blobName(h), maxManifest)))(h)
	}
	data, err := readDocument(s.a, "index.json", maxManifest)
	if errors.Is(err, os.ErrNotExist) {
		return nil, v1.Descriptor{}, errors.New("not an OCI layout: no index.json")
	}
	if err != nil {
		return nil, v1.Descriptor{}, err
	}
	im, err := parseIndex(data, "")
	if err != nil {
		return nil, v1.Descriptor{}, err
	}
	var found []v1.Descriptor
	for _, d := range im.Manifests {
		if reference == "" || d.Annotations[noteName] == reference || sameName(layoutName(d), reference) {
			found = append(found, d)
		}
	}
	if len(found) != 1 {
		return nil, v1.Descriptor{}, fmt.Errorf("%d images match, name one of its tags", len(found))
	}
	return verified(withType(readDocument(s.a, blobName(found[0].Digest), maxManifest)))(found[0].Digest)
}

// sameName reports whether the full name is what a user means by short.
func sameName(full, short string) bool {
	r, err := ParseReference(short)
	return err == nil && r.Tagged().String() == full
}

// A flatSource is skopeo's dir: form.
type flatSource struct{ a archive }

// Close closes the directory.
func (s flatSource) Close() error { return s.a.Close() }

// Manifest implements imageSource.
func (s flatSource) Manifest(_ context.Context, reference string) ([]byte, v1.Descriptor, error) {
	h, err := v1.NewHash(reference)
	if err != nil {
		return withType(readDocument(s.a, "manifest.json", maxManifest))
	}
	name := h.Hex + ".manifest.json"
	if _, err := s.a.open(name); err != nil {
		name = h.Hex
	}
	return verified(withType(readDocument(s.a, name, maxManifest)))(h)
}

// Blob implements source.
func (s flatSource) Blob(_ context.Context, d v1.Descriptor, offset int64) (io.ReadCloser, int64, error) {
	r, err := s.a.open(d.Digest.Hex)
	return sectionFrom(r, err, d, offset)
}

// archiveBlobs is an archive in the form of an OCI layout as a source.
type archiveBlobs struct{ a archive }

// Blob implements source.
func (s archiveBlobs) Blob(_ context.Context, d v1.Descriptor, offset int64) (io.ReadCloser, int64, error) {
	r, err := s.a.open(blobName(d.Digest))
	return sectionFrom(r, err, d, offset)
}

// sectionFrom gives the blob d, which is r, from offset on.
func sectionFrom(r *io.SectionReader, err error, d v1.Descriptor, offset int64) (io.ReadCloser, int64, error) {
	if err != nil {
		return nil, 0, fatal{err}
	}
	if r.Size() != d.Size {
		return nil, 0, fatal{fmt.Errorf("%w: %d bytes, its descriptor says %d", ErrCorrupt, r.Size(), d.Size)}
	}
	if _, err := r.Seek(offset, io.SeekStart); err != nil {
		return nil, 0, fatal{err}
	}
	return io.NopCloser(r), offset, nil
}

func blobName(h v1.Hash) string { return "blobs/" + h.Algorithm + "/" + h.Hex }

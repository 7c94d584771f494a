package image

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kist-containers/kist/internal/state"
)

// readBlob returns the verified bytes of a small blob.
func (s *Store) readBlob(d v1.Descriptor, limit int64) ([]byte, error) {
	if d.Size > limit {
		return nil, fmt.Errorf("blob %s: %d bytes, more than %d", short(d.Digest.String()), d.Size, limit)
	}
	f, err := os.Open(s.blobPath(d.Digest))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	return data, verify(data, d)
}

// verify checks data against its descriptor.
func verify(data []byte, d v1.Descriptor) error {
	got := hashOf(data)
	if got != d.Digest && d.Digest.Algorithm == "sha256" {
		return fmt.Errorf("%w: wanted %s, got %s", ErrCorrupt, d.Digest, got)
	}
	if d.Digest.Algorithm != "sha256" {
		return fmt.Errorf("digest algorithm %s is not supported", d.Digest.Algorithm)
	}
	if d.Size > 0 && d.Size != int64(len(data)) {
		return fmt.Errorf("%w: %s has %d bytes, its descriptor says %d", ErrCorrupt, d.Digest, len(data), d.Size)
	}
	return nil
}

func hashOf(data []byte) v1.Hash {
	return v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%x", sha256.Sum256(data))}
}

// writeBlob stores a small document and returns its descriptor.
func (s *Store) writeBlob(data []byte, mt types.MediaType) (v1.Descriptor, error) {
	d := v1.Descriptor{MediaType: mt, Digest: hashOf(data), Size: int64(len(data))}
	if s.hasBlob(d) {
		return d, nil
	}
	return d, state.WriteFile(s.blobPath(d.Digest), data, 0o600)
}

// hasBlob reports whether the store has d, by its name and size: what has a
// name was verified.
func (s *Store) hasBlob(d v1.Descriptor) bool {
	st, err := os.Stat(s.blobPath(d.Digest))
	return err == nil && st.Mode().IsRegular() && (d.Size == 0 || st.Size() == d.Size)
}

func (s *Store) readManifest(d v1.Descriptor) (*v1.Manifest, error) {
	data, err := s.readBlob(d, maxManifest)
	if err != nil {
		return nil, err
	}
	return parseManifest(data, d.MediaType)
}

// walk visits d and, of an index, whatever the store has of what it lists: an
// index may name images that were never fetched.
func (s *Store) walk(d v1.Descriptor, visit func(v1.Descriptor) error) error {
	return s.walkDown(d, visit, 0)
}

func (s *Store) walkDown(d v1.Descriptor, visit func(v1.Descriptor) error, depth int) error {
	if err := visit(d); err != nil || !d.MediaType.IsIndex() {
		return err
	}
	data, err := s.readBlob(d, maxManifest)
	if err != nil {
		return err
	}
	im, err := parseIndex(data, d.MediaType)
	if err != nil || depth > maxIndexDepth {
		return err
	}
	for _, child := range im.Manifests {
		if s.hasBlob(child) {
			err = errors.Join(err, s.walkDown(child, visit, depth+1))
		}
	}
	return err
}

func (s *Store) readConfig(d v1.Descriptor) (*v1.ConfigFile, []byte, error) {
	data, err := s.readBlob(d, maxConfig)
	if err != nil {
		return nil, nil, err
	}
	cfg, err := parseConfig(data)
	return cfg, data, err
}

// short is a digest or ID as people see it: twelve digits.
func short(id string) string {
	const prefix = len("sha256:")
	if len(id) >= prefix+12 && id[:prefix] == "sha256:" {
		return id[prefix : prefix+12]
	}
	return id
}

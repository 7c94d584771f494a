package image

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kist-containers/kist/internal/state"
)

// Bounds on documents that are read whole into memory.
const (
	maxManifest = 4 << 20
	maxConfig   = 8 << 20
	maxLayers   = 500
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

// parseManifest reads an image manifest and refuses a document that another
// reader could take for something else.
func parseManifest(data []byte, mt types.MediaType) (*v1.Manifest, error) {
	var shape struct {
		SchemaVersion int               `json:"schemaVersion"`
		MediaType     types.MediaType   `json:"mediaType"`
		Manifests     []json.RawMessage `json:"manifests"`
		FSLayers      []json.RawMessage `json:"fsLayers"`
	}
	if err := unmarshal(data, &shape); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	switch {
	case shape.SchemaVersion == 1 || shape.FSLayers != nil:
		return nil, fmt.Errorf("manifest: schema 1 is too old, push the image again with a current tool")
	case shape.SchemaVersion != 2:
		return nil, fmt.Errorf("manifest: schema version %d is unknown", shape.SchemaVersion)
	case shape.Manifests != nil:
		return nil, fmt.Errorf("manifest: has manifests like an index, but says it is an image")
	case shape.MediaType != "" && mt != "" && shape.MediaType != mt:
		return nil, fmt.Errorf("manifest: says it is %s, was served as %s", shape.MediaType, mt)
	}
	var m v1.Manifest
	if err := unmarshal(data, &m); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	return &m, checkManifest(&m)
}

func checkManifest(m *v1.Manifest) error {
	if len(m.Layers) > maxLayers {
		return fmt.Errorf("manifest: %d layers, more than %d", len(m.Layers), maxLayers)
	}
	for _, d := range append([]v1.Descriptor{m.Config}, m.Layers...) {
		if d.Digest.Algorithm != "sha256" {
			return fmt.Errorf("manifest: digest %q is not sha256", d.Digest)
		}
		if d.Size < 0 {
			return fmt.Errorf("manifest: %s has a negative size", d.Digest)
		}
	}
	return nil
}

func (s *Store) readConfig(d v1.Descriptor) (*v1.ConfigFile, []byte, error) {
	data, err := s.readBlob(d, maxConfig)
	if err != nil {
		return nil, nil, err
	}
	cfg, err := parseConfig(data)
	return cfg, data, err
}

func parseConfig(data []byte) (*v1.ConfigFile, error) {
	var cfg v1.ConfigFile
	if err := unmarshal(data, &cfg); err != nil {
		return nil, fmt.Errorf("image configuration: %w", err)
	}
	if len(cfg.RootFS.DiffIDs) > maxLayers {
		return nil, fmt.Errorf("image configuration: %d layers, more than %d", len(cfg.RootFS.DiffIDs), maxLayers)
	}
	for _, d := range cfg.RootFS.DiffIDs {
		if d.Algorithm != "sha256" {
			return nil, fmt.Errorf("image configuration: diffID %q is not sha256", d)
		}
	}
	return &cfg, nil
}

// unmarshal decodes exactly one JSON value; an HTML page in its place is named.
func unmarshal(data []byte, v any) error {
	if head := bytes.TrimSpace(data); len(head) > 0 && head[0] == '<' {
		return fmt.Errorf("a web page instead of JSON")
	}
	return json.Unmarshal(data, v)
}

// short is a digest or ID as people see it: twelve digits.
func short(id string) string {
	const prefix = len("sha256:")
	if len(id) >= prefix+12 && id[:prefix] == "sha256:" {
		return id[prefix : prefix+12]
	}
	return id
}

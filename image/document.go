package image

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kist-containers/kist/internal/lazyjson"
)

// Bounds on documents that are read whole into memory.
const (
	maxManifest = 4 << 20
	maxConfig   = 8 << 20
	maxLayers   = 500
)

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

func parseIndex(data []byte, mt types.MediaType) (*v1.IndexManifest, error) {
	var im struct {
		v1.IndexManifest
		Layers []any `json:"layers"`
		Config any   `json:"config"`
	}
	if err := unmarshal(data, &im); err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	switch {
	case im.Layers != nil || im.Config != nil:
		return nil, errors.New("index: has layers like an image, but says it is an index")
	case im.MediaType != "" && mt != "" && im.MediaType != mt:
		return nil, fmt.Errorf("index: says it is %s, was served as %s", im.MediaType, mt)
	}
	return &im.IndexManifest, nil
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
		return errors.New("a web page instead of JSON")
	}
	return lazyjson.Unmarshal(data, v)
}

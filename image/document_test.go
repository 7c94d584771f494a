package image

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

func manifestOf(t *testing.T, layers int) []byte {
	t.Helper()
	d := v1.Descriptor{MediaType: types.OCILayer, Digest: hashOf(nil)}
	data, err := json.Marshal(v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Config: d, Layers: slices.Repeat([]v1.Descriptor{d}, layers)})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func configOf(t *testing.T, layers int) []byte {
	t.Helper()
	data, err := json.Marshal(v1.ConfigFile{RootFS: v1.RootFS{DiffIDs: slices.Repeat([]v1.Hash{hashOf(nil)}, layers)}})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestLayersAreLimited(t *testing.T) {
	for name, parse := range map[string]func(layers int) error{
		"manifest": func(n int) error { _, err := parseManifest(manifestOf(t, n), types.OCIManifestSchema1); return err },
		"config":   func(n int) error { _, err := parseConfig(configOf(t, n)); return err },
	} {
		if err := parse(maxLayers); err != nil {
			t.Errorf("%s of %d layers: %v", name, maxLayers, err)
		}
		if err := parse(maxLayers + 1); err == nil || !strings.Contains(err.Error(), "more than 500") {
			t.Errorf("%s of %d layers: %v, want a refusal", name, maxLayers+1, err)
		}
	}
}

// TestManifestThatIsAnIndexToo has a document that one reader takes for an
// image and another for an index.
func TestManifestThatIsAnIndexToo(t *testing.T) {
	data := manifestOf(t, 1)
	for _, manifests := range []string{`[]`, `[{}]`} {
		both := `{"manifests":` + manifests + `,` + string(data[1:])
		if _, err := parseManifest([]byte(both), types.OCIManifestSchema1); err == nil || !strings.Contains(err.Error(), "like an index") {
			t.Errorf("manifests %s: %v, want a refusal", manifests, err)
		}
	}
}

// TestSpoiledDocumentsAreNoticed changes what the store holds under a digest.
func TestSpoiledDocumentsAreNoticed(t *testing.T) {
	s := newStore(t)
	if err := os.MkdirAll(filepath.Dir(s.blobPath(hashOf(nil))), 0o700); err != nil {
		t.Fatal(err)
	}
	d, err := s.writeBlob(manifestOf(t, 1), types.OCIManifestSchema1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.readManifest(d); err != nil {
		t.Fatal(err)
	}
	spoiled := []byte(strings.Replace(string(manifestOf(t, 1)), `"size":0`, `"size":1`, 1))
	if err := os.WriteFile(s.blobPath(d.Digest), spoiled, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.readManifest(d); !errors.Is(err, ErrCorrupt) {
		t.Errorf("other bytes of the same size: %v, want ErrCorrupt", err)
	}
	if err := verify([]byte("abc"), v1.Descriptor{Digest: hashOf([]byte("abc")), Size: 2}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("another size: %v, want ErrCorrupt", err)
	}
	if err := verify(nil, v1.Descriptor{Digest: v1.Hash{Algorithm: "md5", Hex: "0"}}); err == nil {
		t.Error("md5 is taken for a digest")
	}
}

package image

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kist-containers/kist/image/layer"
)

// convertDocker writes the image called name of a docker archive ("" for its
// only one) to sink, with its layers compressed, as registries want them.
func convertDocker(ctx context.Context, a archive, name string, sink *dirSink) error {
	data, err := readDocument(a, "manifest.json", maxManifest)
	if err != nil {
		return err
	}
	items, err := parseDockerManifest(data)
	if err != nil {
		return err
	}
	it, err := pickDocker(items, name)
	if err != nil {
		return err
	}
	raw, cfg, err := dockerConfig(a, it)
	if err != nil {
		return err
	}
	m := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Config: v1.Descriptor{MediaType: types.OCIConfigJSON, Digest: hashOf(raw), Size: int64(len(raw))}}
	for i, l := range it.Layers {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		d, err := compressLayer(a, l, cfg.RootFS.DiffIDs[i], sink)
		if err != nil {
			return fmt.Errorf("layer %.255s: %w", l, err)
		}
		m.Layers = append(m.Layers, d)
	}
	if err := os.WriteFile(sink.path(m.Config.Digest), raw, 0o600); err != nil {
		return err
	}
	doc, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if err := sink.PutManifest(ctx, "", doc, m.MediaType); err != nil {
		return err
	}
	return sink.finish(v1.Descriptor{MediaType: m.MediaType, Digest: hashOf(doc), Size: int64(len(doc))})
}

// pickDocker returns the element of manifest.json that is called name, or the only one.
func pickDocker(items []dockerItem, name string) (dockerItem, error) {
	var found []dockerItem
	for _, it := range items {
		if name == "" || slices.ContainsFunc(it.RepoTags, func(tag string) bool { return sameTag(tag, name) }) {
			found = append(found, it)
		}
	}
	if len(found) != 1 {
		return dockerItem{}, fmt.Errorf("%d images match, name one of its tags", len(found))
	}
	return found[0], nil
}

// sameTag reports whether two names, as people write them, mean one image.
func sameTag(a, b string) bool {
	r, err := ParseReference(a)
	return err == nil && sameName(r.Tagged().String(), b)
}

// compressLayer writes the layer at name of the archive to sink, gzipped.
func compressLayer(a archive, name string, diffID v1.Hash, sink *dirSink) (v1.Descriptor, error) {
	r, err := a.open(name)
	if err != nil {
		return v1.Descriptor{}, err
	}
	plain, _, err := layer.Decompress(r)
	if err != nil {
		return v1.Descriptor{}, err
	}
	defer plain.Close()
	tmp := filepath.Join(sink.dir, ".tmp-"+rand.Text())
	h := sha256.New()
	d, err := writeLayerBlob(tmp, plain, h, true)
	if err != nil {
		return d, err
	}
	if got := digest(h); got != diffID.String() {
		return d, fmt.Errorf("%w: it is %s, the image says %s", ErrCorrupt, got, diffID)
	}
	d.MediaType = types.OCILayer
	return d, os.Rename(tmp, sink.path(d.Digest))
}

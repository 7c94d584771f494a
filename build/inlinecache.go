package build

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kist-containers/kist/image/registry"
)

// inlineField is what an image's configuration has besides OCI's fields when its
// build was told --cache-to type=inline: a cacheManifest. The archives of its
// steps are the image's own layers.
const inlineField = "dev.kist.buildcache.v1"

// inline says that the image is to carry its cache.
func (r *Request) inline() bool {
	return isTrue(r.Args["BUILDKIT_INLINE_CACHE"]) || slices.ContainsFunc(r.CacheTo, func(l CacheLocation) bool { return l.Type == "inline" })
}

// addInline puts the steps that gave the image's layers into its configuration,
// in an order that does not depend on which of them was ready first.
func (j *job) addInline(raw []byte, cfg *v1.ConfigFile) ([]byte, error) {
	m := cacheManifest{Version: 1}
	for _, rec := range j.used {
		if rec.DiffID == "" || layerIndex(cfg, rec.DiffID) >= 0 {
			m.Records = append(m.Records, &Record{Version: 1, Key: rec.Key, Text: rec.Text, DiffID: rec.DiffID, ChainID: rec.ChainID, Created: rec.Created})
		}
	}
	slices.SortFunc(m.Records, func(a, b *Record) int { return cmp.Compare(a.Key, b.Key) })
	var all map[string]json.RawMessage
	if err := json.Unmarshal(raw, &all); err != nil {
		return nil, err
	}
	var err error
	if all[inlineField], err = json.Marshal(m); err != nil {
		return nil, err
	}
	return json.Marshal(all)
}

// layerIndex is the place of a layer in the image, -1 for none.
func layerIndex(cfg *v1.ConfigFile, diffID string) int {
	return slices.IndexFunc(cfg.RootFS.DiffIDs, func(h v1.Hash) bool { return h.String() == diffID })
}

// openInline reads the cache that the image of a manifest carries, or those of
// all images of an index.
func openInline(ctx context.Context, repo *registry.Repository, m v1.Manifest, list []v1.Descriptor) (*cacheImport, error) {
	all := &cacheImport{records: map[string]*Record{}, blob: func(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error) {
		body, _, err := repo.Blob(ctx, d, 0)
		return body, err
	}}
	for _, d := range list[:min(len(list), maxPlatforms)] {
		raw, _, err := repo.Manifest(ctx, d.Digest.String())
		if err != nil {
			return nil, err
		}
		var one v1.Manifest
		if err := json.Unmarshal(raw, &one); err != nil {
			return nil, err
		}
		if err := all.addImage(ctx, repo, one); err != nil {
			return nil, err
		}
	}
	if len(list) == 0 {
		if err := all.addImage(ctx, repo, m); err != nil {
			return nil, err
		}
	}
	if len(all.records) == 0 {
		return nil, errors.New("neither a cache of kist nor an image that carries one")
	}
	return all, nil
}

// maxPlatforms bounds the images of an index that are read.
const maxPlatforms = 32

func (in *cacheImport) addImage(ctx context.Context, repo *registry.Repository, m v1.Manifest) error {
	data, err := fetchSmall(ctx, repo, m.Config)
	if err != nil {
		return err
	}
	var cfg v1.ConfigFile
	var carried map[string]json.RawMessage
	if err := errors.Join(json.Unmarshal(data, &cfg), json.Unmarshal(data, &carried)); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	if carried[inlineField] == nil {
		return nil
	}
	found, err := parseCacheManifest(carried[inlineField])
	if err != nil {
		return err
	}
	for key, rec := range found {
		if rec.DiffID != "" {
			i := layerIndex(&cfg, rec.DiffID)
			if i < 0 || i >= len(m.Layers) {
				continue
			}
			rec.Blob = m.Layers[i]
		}
		in.records[key] = rec
	}
	return nil
}

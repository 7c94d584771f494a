package build

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kist-containers/kist/image"
	"github.com/kist-containers/kist/image/registry"
	"github.com/kist-containers/kist/internal/ui"
)

func procPath(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d/.", f.Fd()) }

// push uploads the result under each of its names.
func (b *Builder) push(ctx context.Context, req *Request, out *ui.Output) error {
	if len(req.Tags) == 0 {
		return ui.Hint(errors.New("push: the result has no name"), "kist build -t REGISTRY/NAME --push …")
	}
	p := out.Progress()
	defer p.Close()
	for _, t := range req.Tags {
		if _, err := b.store.Push(ctx, t, image.PushOptions{Progress: p, Registry: b.o.Registry}); err != nil {
			return fmt.Errorf("push %s: %w", t, err)
		}
	}
	return nil
}

// archive writes the result as a docker or OCI archive.
func (b *Builder) archive(ctx context.Context, w io.Writer, kind string, req *Request, res *Result) error {
	format := image.DockerArchive
	if kind == "oci" {
		format = image.OCIArchive
	}
	return b.store.Save(ctx, w, savedNames(req, res), image.SaveOptions{Format: format})
}

// savedNames are what an archive holds: the names, or the images without one.
func savedNames(req *Request, res *Result) []string {
	names := req.Tags
	if len(names) == 0 {
		for _, built := range res.Images {
			names = append(names, built.ID)
		}
	}
	return names
}

// index names the images of several platforms as one.
func (b *Builder) index(ctx context.Context, req *Request, res *Result) error {
	if len(req.Tags) == 0 {
		return nil // each image is in the store, without a name
	}
	var all []v1.Descriptor
	for i := range res.Images {
		m := res.Images[i].manifest
		m.Platform, m.Annotations = &res.Images[i].Platform, nil
		all = append(all, m)
	}
	all = append(all, res.attestations...)
	d, err := b.store.AddIndex(ctx, all, req.Tags)
	res.ID, res.Digest, res.Names = d.Digest.String(), d.Digest.String(), slices.Clone(req.Tags)
	return err
}

// cacheMediaType is the type of the configuration of a cache in a registry.
const cacheMediaType = "application/vnd.kist.buildcache.v1+json"

func (b *Builder) openRepository(ref string) (*registry.Repository, image.Reference, error) {
	r, err := image.ParseReference(ref)
	if err != nil {
		return nil, r, err
	}
	r = r.Tagged()
	config := b.o.Registry
	if config == nil {
		flags := image.RegistryFlags{TLSVerify: true}
		config = flags.Config()
	}
	repo, err := registry.Open(config, r.Host, r.Path)
	return repo, r, err
}

// pushCache uploads the archives of the steps and a manifest that lists them.
func (b *Builder) pushCache(ctx context.Context, ref string, m cacheManifest) error {
	repo, r, err := b.openRepository(ref)
	if err != nil {
		return err
	}
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(data)
	config := v1.Descriptor{MediaType: cacheMediaType, Size: int64(len(data)), Digest: v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}}
	manifest := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Config: config, Layers: []v1.Descriptor{}}
	if _, err := repo.PutBlob(ctx, config, bytes.NewReader(data), registry.PutOptions{}); err != nil {
		return err
	}
	seen := map[v1.Hash]bool{}
	for _, rec := range m.Records {
		if rec.ChainID == "" || seen[rec.Blob.Digest] {
			continue
		}
		seen[rec.Blob.Digest] = true
		if err := b.putBlob(ctx, repo, rec.Blob); err != nil {
			return err
		}
		manifest.Layers = append(manifest.Layers, v1.Descriptor{MediaType: rec.Blob.MediaType, Size: rec.Blob.Size, Digest: rec.Blob.Digest})
	}
	raw, err := json.Marshal(manifest)
	if err != nil {
		return err
	}
	return repo.PutManifest(ctx, r.Tag, raw, types.OCIManifestSchema1)
}

func (b *Builder) putBlob(ctx context.Context, repo *registry.Repository, d v1.Descriptor) error {
	if has, err := repo.HasBlob(ctx, d); err != nil || has {
		return err
	}
	f, err := os.Open(b.blobPath(d.Digest))
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = repo.PutBlob(ctx, d, f, registry.PutOptions{})
	return err
}

// openRegistryCache reads the list of steps that pushCache wrote.
func (b *Builder) openRegistryCache(ctx context.Context, ref string) (*cacheImport, error) {
	repo, r, err := b.openRepository(ref)
	if err != nil {
		return nil, err
	}
	raw, _, err := repo.Manifest(ctx, r.Tag)
	if err != nil {
		return nil, err
	}
	var m struct {
		v1.Manifest
		Manifests []v1.Descriptor `json:"manifests"`
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, err
	}
	if m.Config.MediaType != cacheMediaType {
		return openInline(ctx, repo, m.Manifest, m.Manifests)
	}
	data, err := fetchSmall(ctx, repo, m.Config)
	if err != nil {
		return nil, err
	}
	records, err := parseCacheManifest(data)
	if err != nil {
		return nil, err
	}
	in := &cacheImport{records: records}
	in.blob = func(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error) {
		body, _, err := repo.Blob(ctx, d, 0)
		return body, err
	}
	return in, nil
}

// fetchSmall reads a configuration, verified.
func fetchSmall(ctx context.Context, repo *registry.Repository, d v1.Descriptor) ([]byte, error) {
	body, _, err := repo.Blob(ctx, d, 0)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	data, err := io.ReadAll(io.LimitReader(body, min(d.Size, maxCacheManifest)))
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != d.Digest.Hex {
		return nil, fmt.Errorf("%s: its content has another digest", d.Digest)
	}
	return data, nil
}

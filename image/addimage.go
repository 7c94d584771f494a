package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

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
	return s.add(ctx, raw, v1.Manifest{MediaType: types.OCIManifestSchema1, Layers: bare(layers), Annotations: annotations}, names)
}

// AddDockerImage is AddImage with docker's media types, which some registries and
// programs want. A layer that is compressed with zstd has none of them.
func (s *Store) AddDockerImage(ctx context.Context, cfg *v1.ConfigFile, layers []v1.Descriptor, names []string) (*Image, error) {
	raw, err := json.Marshal(cfg)
	if err != nil {
		return nil, err
	}
	m := v1.Manifest{MediaType: types.DockerManifestSchema2, Layers: bare(layers)}
	for i := range m.Layers {
		l := &m.Layers[i]
		switch l.MediaType {
		case types.DockerLayer, types.OCILayer:
			l.MediaType = types.DockerLayer
		case types.DockerUncompressedLayer, types.OCIUncompressedLayer:
			l.MediaType = types.DockerUncompressedLayer
		default:
			return nil, fmt.Errorf("docker's format has no layers of type %s", l.MediaType)
		}
	}
	return s.add(ctx, raw, m, names)
}

// add records an image whose manifest m lacks the configuration raw yet.
func (s *Store) add(ctx context.Context, raw []byte, m v1.Manifest, names []string) (*Image, error) {
	cfg, err := parseConfig(raw)
	if err != nil {
		return nil, err
	}
	if len(m.Layers) != len(cfg.RootFS.DiffIDs) {
		return nil, fmt.Errorf("image has %d layers and %d diffIDs", len(m.Layers), len(cfg.RootFS.DiffIDs))
	}
	if err := s.prepare(); err != nil {
		return nil, err
	}
	configType := types.OCIConfigJSON
	if m.MediaType == types.DockerManifestSchema2 {
		configType = types.DockerConfigJSON
	}
	cd, err := s.writeBlob(raw, configType)
	if err != nil {
		return nil, err
	}
	m.SchemaVersion, m.Config = 2, cd
	data, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	md, err := s.writeBlob(data, m.MediaType)
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
	for _, r := range refs {
		s.event(e.id(), "tag", shown(r))
	}
	return s.open(e, all)
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

// AddIndex stores an index of manifests of the store under each of names, which
// may not be empty: an index without a name would be garbage.
func (s *Store) AddIndex(ctx context.Context, manifests []v1.Descriptor, names []string) (v1.Descriptor, error) {
	im := &v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}
	for _, m := range manifests {
		entry := bareWithPlatform(m)
		entry.Annotations = m.Annotations
		im.Manifests = append(im.Manifests, entry)
	}
	if len(names) == 0 {
		return v1.Descriptor{}, errors.New("an index wants a name")
	}
	var d v1.Descriptor
	var err error
	for _, name := range names {
		if d, err = s.saveList(ctx, name, im); err != nil {
			return d, err
		}
	}
	return d, nil
}

// ExtendIndex adds manifests of the store to the list name, in place of equal
// ones; it makes a list that is missing.
func (s *Store) ExtendIndex(ctx context.Context, manifests []v1.Descriptor, name string) error {
	_, im, err := s.list(name)
	if errors.Is(err, ErrNotFound) {
		im, err = &v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}, nil
	}
	if err != nil {
		return err
	}
	for _, m := range manifests {
		replace(im, bareWithPlatform(m))
	}
	_, err = s.saveList(ctx, name, im)
	return err
}

// AddAttestation stores an in-toto statement about the manifest subject and
// returns its entry of the index that is to hold both, as BuildKit's are. See
// github.com/moby/buildkit, docs/attestations/attestation-storage.md.
func (s *Store) AddAttestation(statement []byte, predicate string, subject v1.Hash) (v1.Descriptor, error) {
	if err := s.prepare(); err != nil {
		return v1.Descriptor{}, err
	}
	layer, err := s.writeBlob(statement, "application/vnd.in-toto+json")
	if err != nil {
		return v1.Descriptor{}, err
	}
	layer.Annotations = map[string]string{"in-toto.io/predicate-type": predicate}
	unknown := v1.Platform{OS: "unknown", Architecture: "unknown"}
	cfg := v1.ConfigFile{OS: unknown.OS, Architecture: unknown.Architecture, RootFS: v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{layer.Digest}}}
	raw, err := json.Marshal(cfg)
	if err != nil {
		return v1.Descriptor{}, err
	}
	config, err := s.writeBlob(raw, types.OCIConfigJSON)
	if err != nil {
		return v1.Descriptor{}, err
	}
	raw, err = json.Marshal(v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Config: config, Layers: []v1.Descriptor{layer}})
	if err != nil {
		return v1.Descriptor{}, err
	}
	d, err := s.writeBlob(raw, types.OCIManifestSchema1)
	d.Platform = &unknown
	d.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": subject.String()}
	return d, err
}

package image

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kist-containers/kist/image/registry"
)

// ManifestCmds are the subcommands of `kist manifest`. A list is an index in
// the store: it has a name like an image, and is pushed like one.
type ManifestCmds struct {
	Create   ManifestCreateCmd   `cmd:"" help:"Make a list of images"`
	Add      ManifestAddCmd      `cmd:"" help:"Add images to a list"`
	Annotate ManifestAnnotateCmd `cmd:"" help:"Say what platform an image of a list is for"`
	Inspect  ManifestInspectCmd  `cmd:"" help:"Print a list or manifest, also of a registry"`
	Push     ManifestPushCmd     `cmd:"" help:"Push a list and its images"`
	Remove   ManifestRemoveCmd   `cmd:"" help:"Take an image out of a list"`
	Rm       ManifestRmCmd       `cmd:"" help:"Remove lists"`
	Exists   ManifestExistsCmd   `cmd:"" help:"Tell by the exit status whether a list is there"`
}

// list returns the index named name.
func (s *Store) list(name string) (entry, *v1.IndexManifest, error) {
	entries, err := s.readIndex()
	if err != nil {
		return entry{}, nil, err
	}
	r, err := ParseReference(name)
	if err != nil {
		return entry{}, nil, err
	}
	e, ok := findRef(entries, r)
	if !ok || !e.MediaType.IsIndex() {
		return entry{}, nil, fmt.Errorf("%s: no such manifest list: %w", r.Tagged().Familiar(), ErrNotFound)
	}
	data, err := s.readBlob(e.Descriptor, maxManifest)
	if err != nil {
		return entry{}, nil, err
	}
	im, err := parseIndex(data, e.MediaType)
	return e, im, err
}

// saveList stores im under name.
func (s *Store) saveList(ctx context.Context, name string, im *v1.IndexManifest) (v1.Descriptor, error) {
	r, err := ParseReference(name)
	if err != nil {
		return v1.Descriptor{}, err
	}
	if err := s.prepare(); err != nil {
		return v1.Descriptor{}, err
	}
	data, err := json.Marshal(im)
	if err != nil {
		return v1.Descriptor{}, err
	}
	d, err := s.writeBlob(data, im.MediaType)
	if err != nil {
		return d, err
	}
	e := entry{d}
	e.Annotations = map[string]string{noteName: r.Tagged().String()}
	return d, s.update(ctx, func(entries []entry) ([]entry, error) {
		// A list that loses its name is of no use: unlike an image it goes.
		entries = slices.DeleteFunc(entries, func(x entry) bool { return x.name() == e.name() && x.MediaType.IsIndex() })
		return put(entries, e), nil
	})
}

// describe returns the descriptor, with its platform, of an image of the store
// or of a registry. all gives every image of a list.
func (s *Store) describe(ctx context.Context, c *registry.Config, name string, all bool) ([]v1.Descriptor, error) {
	if img, err := s.Resolve(name); err == nil {
		return []v1.Descriptor{bareWithPlatform(img.Manifest)}, nil
	}
	r, err := ParseReference(name)
	if err != nil {
		return nil, err
	}
	repo, err := registry.Open(c, r.Host, r.Path)
	if err != nil {
		return nil, err
	}
	data, d, err := repo.Manifest(ctx, r.identifier())
	if err != nil {
		return nil, err
	}
	if d.MediaType.IsIndex() {
		im, err := parseIndex(data, d.MediaType)
		if err != nil {
			return nil, err
		}
		if all {
			return im.Manifests, nil
		}
		here, _ := ParsePlatform("")
		child, err := choose(im.Manifests, here)
		return []v1.Descriptor{child}, err
	}
	m, err := parseManifest(data, d.MediaType)
	if err != nil {
		return nil, err
	}
	raw, err := s.fetchSmall(ctx, repo, m.Config, maxConfig)
	if err != nil {
		return nil, err
	}
	cfg, err := parseConfig(raw)
	if err != nil {
		return nil, err
	}
	d.Platform = cfg.Platform()
	return []v1.Descriptor{d}, nil
}

// bareWithPlatform leaves out kist's own annotations.
func bareWithPlatform(d v1.Descriptor) v1.Descriptor {
	return v1.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, Platform: d.Platform}
}

// addTo adds images to a list, in place of equal ones.
func (s *Store) addTo(ctx context.Context, im *v1.IndexManifest, c *registry.Config, names []string, all bool) error {
	for _, name := range names {
		name = strings.TrimPrefix(name, "docker://")
		ds, err := s.describe(ctx, c, name, all)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		for _, d := range ds {
			replace(im, d)
		}
	}
	return nil
}

// replace adds d, in place of an equal one.
func replace(im *v1.IndexManifest, d v1.Descriptor) {
	im.Manifests = slices.DeleteFunc(im.Manifests, func(x v1.Descriptor) bool { return x.Digest == d.Digest })
	im.Manifests = append(im.Manifests, d)
}

// document returns the list of the store, else what the registry has by that
// name, else the manifest of the store's image.
func (s *Store) document(ctx context.Context, c *registry.Config, name string) ([]byte, v1.Descriptor, error) {
	entries, err := s.readIndex()
	if err != nil {
		return nil, v1.Descriptor{}, err
	}
	r, err := ParseReference(name)
	if err != nil {
		return nil, v1.Descriptor{}, err
	}
	e, here := findRef(entries, r)
	if !here || !e.MediaType.IsIndex() {
		data, d, err := remoteManifest(ctx, c, r)
		if err == nil || !here {
			return data, d, err
		}
	}
	data, err := s.readBlob(e.Descriptor, maxManifest)
	return data, bareWithPlatform(e.Descriptor), err
}

func remoteManifest(ctx context.Context, c *registry.Config, r Reference) ([]byte, v1.Descriptor, error) {
	repo, err := registry.Open(c, r.Host, r.Path)
	if err != nil {
		return nil, v1.Descriptor{}, err
	}
	return repo.Manifest(ctx, r.identifier())
}

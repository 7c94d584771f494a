package image

import (
	"context"
	"errors"
	"fmt"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kist-containers/kist/image/registry"
	"github.com/kist-containers/kist/internal/ui"
)

// PullOptions say what to pull and how to show it. The zero value pulls for
// this machine and shows nothing.
type PullOptions struct {
	// Platform is os[/arch[/variant]], "" for this machine.
	Platform string
	Progress *ui.Progress
	// Registry is how registries are reached; nil for the machine's settings.
	Registry *registry.Config
}

// Pull policies, docker's --pull.
const (
	PullAlways  = "always"
	PullMissing = "missing"
	PullNever   = "never"
)

// Ensure returns the image ref, pulled as policy says: "" is missing.
func (s *Store) Ensure(ctx context.Context, ref, policy string, o PullOptions) (*Image, error) {
	switch policy {
	case PullAlways:
		return s.Pull(ctx, ref, o)
	case "", PullMissing, PullNever:
	case "newer":
		img, err := s.Pull(ctx, ref, o)
		if err != nil {
			if local, lerr := s.Resolve(ref); lerr == nil {
				return local, nil
			}
		}
		return img, err
	default:
		return nil, fmt.Errorf("--pull %s: want always, missing or never", policy)
	}
	img, err := s.local(ctx, ref, o.Platform)
	if errors.Is(err, ErrNotFound) {
		// registries.conf is read only now: most names need none of it.
		if o.Registry == nil {
			o.Registry = defaultConfig()
		}
		if names, xerr := expand(o.Registry, ref); xerr == nil {
			for _, r := range names {
				if found, ferr := s.local(ctx, r.String(), o.Platform); ferr == nil {
					return found, nil
				}
			}
		}
	}
	if err == nil || !errors.Is(err, ErrNotFound) {
		return img, err
	}
	if policy == PullNever {
		return nil, ui.Hint(err, "kist pull %s", ref)
	}
	return s.Pull(ctx, ref, o)
}

// local is Resolve for an image that is to run: of the right platform, and with
// all layers unpacked.
func (s *Store) local(ctx context.Context, ref, platform string) (*Image, error) {
	img, err := s.Resolve(ref)
	if errors.Is(err, ErrNotFound) && isHello(ref) {
		return s.makeHello(ctx)
	}
	if err != nil {
		return nil, err
	}
	if platform != "" {
		want, err := ParsePlatform(platform)
		if err != nil {
			return nil, err
		}
		if have := normalize(v1.Platform{OS: img.Config.OS, Architecture: img.Config.Architecture, Variant: img.Config.Variant}); have.OS != want.OS || have.Architecture != want.Architecture {
			return nil, fmt.Errorf("%s is for %s, not %s: %w", ref, have, want, ErrNotFound)
		}
	}
	if img.unpacked() {
		return img, nil
	}
	return img, s.unpackAgain(ctx, img)
}

// unpackAgain makes the layers of an image whose blobs another program put into
// the layout, or whose layers were lost.
func (s *Store) unpackAgain(ctx context.Context, img *Image) error {
	pin, err := s.Pin(ctx)
	if err != nil {
		return err
	}
	defer pin.Unlock()
	m, err := s.readManifest(img.Manifest)
	if err != nil {
		return err
	}
	if len(m.Layers) != len(img.Config.RootFS.DiffIDs) {
		return fmt.Errorf("image %s: %d layers, but %d diffIDs", short(img.ID), len(m.Layers), len(img.Config.RootFS.DiffIDs))
	}
	_, err = s.newFetch(noSource{}, nil).all(ctx, m.Layers, img.Config.RootFS.DiffIDs)
	return err
}

// noSource has nothing: the blobs must be in the store.
type noSource struct{ source }

// Pull brings the image ref from its registry into the store, with all that is
// missing of it, and gives it that name.
//
// A short name may mean several images, as registries.conf says; the first that
// a registry has is taken.
func (s *Store) Pull(ctx context.Context, ref string, o PullOptions) (*Image, error) {
	if o.Registry == nil {
		o.Registry = defaultConfig()
	}
	candidates, err := expand(o.Registry, ref)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, r := range candidates {
		img, err := s.pull(ctx, r, o)
		if err == nil {
			return img, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", r.Familiar(), err))
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

// expand returns what ref may mean, in the order to try.
func expand(c *registry.Config, ref string) ([]Reference, error) {
	r, err := ParseReference(ref)
	if err != nil {
		return nil, err
	}
	short := r.FamiliarName()
	if !strings.HasPrefix(ref, short) || r.Host != DefaultHost || isHello(ref) {
		return []Reference{r.Tagged()}, nil
	}
	names, err := c.Expand(short)
	if err != nil {
		return nil, err
	}
	var list []Reference
	for _, n := range names {
		full, err := ParseReference(n)
		if err != nil {
			return nil, fmt.Errorf("registries.conf: %w", err)
		}
		full.Tag, full.Digest = r.Tag, r.Digest
		list = append(list, full.Tagged())
	}
	if len(list) == 0 {
		list = []Reference{r.Tagged()}
	}
	return list, nil
}

func (s *Store) pull(ctx context.Context, r Reference, o PullOptions) (*Image, error) {
	if isHello(r.Familiar()) && r.Digest == "" {
		return s.makeHello(ctx)
	}
	platform, err := ParsePlatform(o.Platform)
	if err != nil {
		return nil, err
	}
	if err := s.prepare(); err != nil {
		return nil, err
	}
	pin, err := s.Pin(ctx)
	if err != nil {
		return nil, err
	}
	defer s.unpin(pin)
	repo, err := s.repository(r, o.Registry)
	if err != nil {
		return nil, err
	}
	if img := s.upToDate(ctx, repo, r, platform); img != nil {
		return img, nil
	}
	top, d, m, err := s.fetchManifest(ctx, repo, r.identifier(), platform)
	if err != nil {
		return nil, err
	}
	return s.pullImage(ctx, repo, r, top, d, m, o.Progress)
}

func (s *Store) repository(r Reference, c *registry.Config) (*registry.Repository, error) {
	if c == nil {
		c = defaultConfig()
	}
	return registry.Open(c, r.Host, r.Path)
}

// upToDate returns the stored image when the registry, asked with one request,
// still means the same by its name; else nil.
func (s *Store) upToDate(ctx context.Context, repo *registry.Repository, r Reference, p v1.Platform) *Image {
	entries, err := s.readIndex()
	if err != nil {
		return nil
	}
	e, ok := findRef(entries, r)
	if !ok || e.repoDigest() == "" || e.Platform == nil {
		return nil
	}
	if have := normalize(*e.Platform); have.OS != p.OS || have.Architecture != p.Architecture || p.Variant != "" && have.Variant != p.Variant {
		return nil
	}
	known, err := ParseReference(e.repoDigest())
	if err != nil {
		return nil
	}
	if r.Digest == "" {
		d, err := repo.Head(ctx, r.Tag)
		if err != nil || d.Digest.String() != known.Digest {
			return nil
		}
	}
	img, err := s.open(e, entries)
	if err != nil || !img.unpacked() {
		return nil
	}
	return img
}

// maxIndexDepth is how deep indexes may nest.
const maxIndexDepth = 2

// fetchManifest gets the manifest of reference for platform p, through indexes.
// top describes what the registry means by reference.
func (s *Store) fetchManifest(ctx context.Context, repo *registry.Repository, reference string, p v1.Platform) (top, d v1.Descriptor, m *v1.Manifest, err error) {
	for depth := 0; ; depth++ {
		data, got, err := repo.Manifest(ctx, reference)
		if err != nil {
			return top, got, nil, err
		}
		if depth == 0 {
			top = got
		}
		if !got.MediaType.IsIndex() {
			m, err := parseManifest(data, got.MediaType)
			if err == nil {
				_, err = s.writeBlob(data, got.MediaType)
			}
			return top, got, m, err
		}
		if depth >= maxIndexDepth {
			return top, got, nil, errors.New("indexes nest too deep")
		}
		im, err := parseIndex(data, got.MediaType)
		if err != nil {
			return top, got, nil, err
		}
		child, err := choose(im.Manifests, p)
		if err != nil {
			return top, got, nil, err
		}
		reference = child.Digest.String()
	}
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

// pullImage fetches configuration and layers and records the image.
func (s *Store) pullImage(ctx context.Context, src source, r Reference, top, d v1.Descriptor, m *v1.Manifest, p *ui.Progress) (*Image, error) {
	cfg, err := s.fetchConfig(ctx, src, m)
	if err != nil {
		return nil, err
	}
	if _, err := s.newFetch(src, p).all(ctx, m.Layers, cfg.RootFS.DiffIDs); err != nil {
		return nil, err
	}
	name := r
	name.Digest = ""
	if r.Tag == "" {
		name = Reference{}
	}
	e := noted(d, nameOf(name), r.Name()+"@"+top.Digest.String(), m.Config.Digest, cfg, s.sizeOf(cfg))
	return s.record(ctx, e)
}

func nameOf(r Reference) string {
	if r.Path == "" {
		return ""
	}
	return r.String()
}

// record adds an entry to the index and returns its image.
func (s *Store) record(ctx context.Context, e entry) (*Image, error) {
	var all []entry
	err := s.update(ctx, func(entries []entry) ([]entry, error) {
		all = put(entries, e)
		return all, nil
	})
	if err != nil {
		return nil, err
	}
	return s.open(e, all)
}

// fetchConfig gets the configuration of an image and checks that it fits the
// manifest. What is no container image is refused by name.
func (s *Store) fetchConfig(ctx context.Context, src source, m *v1.Manifest) (*v1.ConfigFile, error) {
	if !isConfig(m.Config.MediaType) {
		return nil, fmt.Errorf("not a container image but an artifact (%s)", m.Config.MediaType)
	}
	data, err := s.fetchSmall(ctx, src, m.Config, maxConfig)
	if err != nil {
		return nil, err
	}
	cfg, err := parseConfig(data)
	if err != nil {
		return nil, err
	}
	if len(cfg.RootFS.DiffIDs) != len(m.Layers) {
		return nil, fmt.Errorf("the manifest has %d layers, the configuration %d", len(m.Layers), len(cfg.RootFS.DiffIDs))
	}
	_, err = s.writeBlob(data, m.Config.MediaType)
	return cfg, err
}

func isConfig(t types.MediaType) bool {
	return t == types.OCIConfigJSON || t == types.DockerConfigJSON || t == "" || t == "application/octet-stream"
}

// fetchSmall gets a verified document, from the store if it has it.
func (s *Store) fetchSmall(ctx context.Context, src source, d v1.Descriptor, limit int64) ([]byte, error) {
	if s.hasBlob(d) {
		return s.readBlob(d, limit)
	}
	if d.Size > limit {
		return nil, fmt.Errorf("blob %s: %d bytes, more than %d", short(d.Digest.String()), d.Size, limit)
	}
	var last error
	for try := range stalls {
		data, err := readSmall(ctx, src, d, limit)
		if err == nil {
			return data, nil
		}
		last = fmt.Errorf("blob %s: %w", short(d.Digest.String()), err)
		if _, again := registry.Retry(err, try); !again || errors.Is(err, ErrCorrupt) || ctx.Err() != nil {
			break
		}
	}
	return nil, last
}

func readSmall(ctx context.Context, src source, d v1.Descriptor, limit int64) ([]byte, error) {
	body, _, err := src.Blob(ctx, d, 0)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	data, err := readAll(body, limit)
	if err != nil {
		return nil, err
	}
	return data, verify(data, d)
}

// sizeOf sums the sizes of the files of an image's layers.
func (s *Store) sizeOf(cfg *v1.ConfigFile) int64 {
	var sum int64
	for _, l := range s.layers(cfg.RootFS.DiffIDs) {
		if rec, err := s.layerRecord(l.ChainID); err == nil {
			sum += rec.Size
		}
	}
	return sum
}

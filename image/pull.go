package image

import (
	"context"
	"fmt"
	"strings"

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
			img.Pulled = r.String()
			s.event(r.Familiar(), "pull", r.FamiliarName())
			return img, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", r.Familiar(), err))
		if ctx.Err() != nil {
			break
		}
	}
	return nil, registry.Join(errs)
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
	pin, err := s.pinned(ctx)
	if err != nil {
		return nil, err
	}
	defer s.unpin(pin)
	repo, err := registry.Open(o.Registry, r.Host, r.Path)
	if err != nil {
		return nil, err
	}
	if img := s.upToDate(ctx, repo, r, o.Platform); img != nil {
		return img, nil
	}
	e, top, err := s.fetchImage(ctx, repo, r.identifier(), o.Platform, o.Progress)
	if err != nil {
		return nil, err
	}
	if r.Tag != "" {
		e.Annotations[noteName] = Reference{Host: r.Host, Path: r.Path, Tag: r.Tag}.String()
	}
	e.Annotations[noteDigest] = r.Name() + "@" + top.Digest.String()
	return s.record(ctx, e)
}

// upToDate returns the stored image when the registry, asked with one request,
// still means the same by its name; else nil.
func (s *Store) upToDate(ctx context.Context, repo *registry.Repository, r Reference, platform string) *Image {
	entries, err := s.readIndex()
	if err != nil {
		return nil
	}
	e, ok := findRef(entries, r)
	if !ok || e.repoDigest() == "" || e.Platform == nil {
		return nil
	}
	want, err := ParsePlatform(platform)
	if err != nil || !matchesPlatform(*e.Platform, want) {
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

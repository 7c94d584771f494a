package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

	"github.com/kist-containers/kist/image/registry"
	"github.com/kist-containers/kist/internal/ui"
)

// PushOptions say how to push. The zero value shows nothing.
type PushOptions struct {
	Progress *ui.Progress
	// Registry is how registries are reached; nil for the machine's settings.
	Registry *registry.Config
	// Destination is another name to push to, "" for the image's own.
	Destination string
	// ChunkSize uploads blobs in pieces of so many bytes; 0 in one.
	ChunkSize int64
	// Platform picks the image of a list, "" pushes the list.
	Platform string
	// ListOnly pushes a list without its images, which must be there.
	ListOnly bool
}

// parallelUploads is docker's number.
const parallelUploads = 5

// Push uploads what the registry misses of the image named ref, and then its
// manifest, byte for byte as it is in the store. It returns the manifest's
// descriptor.
func (s *Store) Push(ctx context.Context, ref string, o PushOptions) (v1.Descriptor, error) {
	if o.Registry == nil {
		o.Registry = defaultConfig()
	}
	if o.Destination == "" {
		o.Destination = ref
	}
	dest, err := ParseReference(o.Destination)
	if err != nil {
		return v1.Descriptor{}, err
	}
	dest = dest.Tagged()
	pin, err := s.Pin(ctx)
	if err != nil {
		return v1.Descriptor{}, err
	}
	defer s.unpin(pin)
	entries, err := s.readIndex()
	if err != nil {
		return v1.Descriptor{}, err
	}
	e, err := find(entries, ref)
	if err != nil {
		return v1.Descriptor{}, err
	}
	if o.Platform != "" {
		if e, err = s.forPlatform(e, o.Platform); err != nil {
			return v1.Descriptor{}, fmt.Errorf("%s: %w", ref, err)
		}
	}
	repo, err := registry.Open(o.Registry, dest.Host, dest.Path)
	if err != nil {
		return v1.Descriptor{}, err
	}
	p := &pusher{s: s, repo: repo, o: o, mounts: s.mountSources(entries, dest)}
	if err := p.push(ctx, e.Descriptor, dest.identifier()); err != nil {
		return v1.Descriptor{}, fmt.Errorf("%s: %w", dest.Familiar(), err)
	}
	s.event(dest.Familiar(), "push", dest.FamiliarName())
	return e.Descriptor, s.pushed(ctx, e, dest)
}

// pushed notes the digest by which the registry now knows the image.
func (s *Store) pushed(ctx context.Context, e entry, dest Reference) error {
	known := dest.Name() + "@" + e.Digest.String()
	if e.name() != dest.String() || e.repoDigest() == known {
		return nil
	}
	return s.update(ctx, func(entries []entry) ([]entry, error) {
		for i, x := range entries {
			if x.name() == e.name() && x.Digest == e.Digest {
				entries[i].Annotations[noteDigest] = known
			}
		}
		return entries, nil
	})
}

// mountSources tells, for each layer, another repository of dest's registry
// that an image with it was pulled from or pushed to.
func (s *Store) mountSources(entries []entry, dest Reference) map[v1.Hash]string {
	sources := map[v1.Hash]string{}
	for _, e := range entries {
		r, err := ParseReference(e.repoDigest())
		if err != nil || r.Host != dest.Host || r.Path == dest.Path {
			continue
		}
		if m, err := s.readManifest(e.Descriptor); err == nil {
			for _, l := range m.Layers {
				sources[l.Digest] = r.Path
			}
		}
	}
	return sources
}

type pusher struct {
	s      *Store
	repo   *registry.Repository
	o      PushOptions
	mounts map[v1.Hash]string
}

// push uploads the manifest or index d under reference, children first. Where
// the registry has it, that is one request.
func (p *pusher) push(ctx context.Context, d v1.Descriptor, reference string) error {
	have, err := p.repo.Head(ctx, reference)
	if err == nil && have.Digest == d.Digest {
		return nil
	}
	if err != nil && !notFound(err) && !errors.Is(err, registry.ErrNoDigest) {
		return err
	}
	data, err := p.s.readBlob(d, maxManifest)
	if err != nil {
		return err
	}
	if d.MediaType.IsIndex() {
		err = p.children(ctx, data, d)
	} else {
		err = p.blobs(ctx, data, d)
	}
	if err != nil {
		return err
	}
	return p.repo.PutManifest(ctx, reference, data, d.MediaType)
}

func notFound(err error) bool {
	var refused *registry.Error
	return errors.As(err, &refused) && refused.Status == 404
}

func (p *pusher) children(ctx context.Context, data []byte, d v1.Descriptor) error {
	im, err := parseIndex(data, d.MediaType)
	if err != nil {
		return err
	}
	for _, child := range im.Manifests {
		if p.o.ListOnly || !p.s.hasBlob(child) {
			// An index may list what is only in the registry; it must be there then.
			if _, err := p.repo.Head(ctx, child.Digest.String()); err != nil {
				return fmt.Errorf("%s of the list is not there, and not pushed: %w", child.Digest, err)
			}
			continue
		}
		if err := p.push(ctx, child, child.Digest.String()); err != nil {
			return err
		}
	}
	return nil
}

func (p *pusher) blobs(ctx context.Context, data []byte, d v1.Descriptor) error {
	m, err := parseManifest(data, d.MediaType)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelUploads)
	seen := map[v1.Hash]bool{}
	for _, b := range append(slices.Clone(m.Layers), m.Config) {
		if seen[b.Digest] || foreign(b) {
			continue
		}
		seen[b.Digest] = true
		task := p.o.Progress.Task(short(b.Digest.String()), b.Size)
		g.Go(func() error {
			if err := p.blob(ctx, b, task); err != nil {
				return fmt.Errorf("blob %s: %w", short(b.Digest.String()), err)
			}
			return nil
		})
	}
	return g.Wait()
}

// foreign reports whether a layer may not be distributed.
func foreign(d v1.Descriptor) bool { return !d.MediaType.IsDistributable() && d.MediaType.IsLayer() }

func (p *pusher) blob(ctx context.Context, d v1.Descriptor, task *ui.Task) error {
	has, err := p.repo.HasBlob(ctx, d)
	if err != nil {
		return err
	}
	if has {
		task.Done("Layer already exists")
		return nil
	}
	f, err := os.Open(p.s.blobPath(d.Digest))
	if err != nil {
		return err
	}
	defer f.Close()
	task.Phase("Pushing", d.Size)
	how, err := p.repo.PutBlob(ctx, d, f, registry.PutOptions{
		From: p.mounts[d.Digest], ChunkSize: p.o.ChunkSize, Sent: task.Add,
	})
	if err != nil {
		return err
	}
	task.Done(string(how))
	return nil
}

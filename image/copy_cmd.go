package image

import (
	"context"
	"fmt"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kist-containers/kist/internal/ui"
)

// CopyCmd is `kist image copy`.
type CopyCmd struct {
	RegistryFlags
	All      bool   `short:"a" help:"Copy all platforms."`
	Platform string `help:"Copy the image for another platform." placeholder:"PLATFORM"`
	Quiet    bool   `short:"q" help:"Show no progress."`
	Source   string `arg:"" help:"docker://NAME, oci:DIR[:TAG], oci-archive:FILE, docker-archive:FILE, dir:DIR, or a name in the store."`
	Dest     string `arg:"" help:"The same forms."`
}

// Run copies and prints the digest.
func (c *CopyCmd) Run(ctx context.Context, s *Store, out *ui.Output) error {
	d, err := c.copy(ctx, s, out)
	if err != nil {
		return fmt.Errorf("image copy %s: %w", c.Source, err)
	}
	out.Print(d.Digest)
	return nil
}

func (c *CopyCmd) copy(ctx context.Context, s *Store, out *ui.Output) (d v1.Descriptor, err error) {
	from, err := parseLocation(c.Source)
	if err != nil {
		return d, err
	}
	to, err := parseLocation(c.Dest)
	if err != nil {
		return d, err
	}
	platform, err := ParsePlatform(c.Platform)
	if err != nil {
		return d, err
	}
	pin, err := s.pinned(ctx)
	if err != nil {
		return d, err
	}
	defer s.unpin(pin)
	src, reference, err := s.openSource(ctx, c.Config(), from)
	if err != nil {
		return d, err
	}
	if closer, ok := src.(io.Closer); ok {
		defer closer.Close()
	}
	var progress *ui.Progress
	if !c.Quiet {
		progress = out.Progress()
		defer progress.Close()
	}
	if to.transport == "kist" {
		return c.intoStore(ctx, s, src, reference, to, progress)
	}
	cp := &copier{from: src, all: c.All, platform: platform, spool: s.imageDir("partial"), progress: progress}
	return s.copyTo(ctx, cp, c.Config(), reference, to)
}

// intoStore brings the image into the store and names it.
func (c *CopyCmd) intoStore(ctx context.Context, s *Store, src imageSource, reference string, to location, p *ui.Progress) (v1.Descriptor, error) {
	name, err := ParseReference(to.path)
	if err != nil {
		return v1.Descriptor{}, err
	}
	if name.Digest != "" {
		return v1.Descriptor{}, fmt.Errorf("%w %q: a digest cannot be a new image's name", ErrInvalid, to.path)
	}
	e, _, err := s.fetchImage(ctx, src, reference, c.Platform, p)
	if err != nil {
		return v1.Descriptor{}, err
	}
	e.Annotations[noteName] = name.Tagged().String()
	_, err = s.record(ctx, e)
	return e.Descriptor, err
}

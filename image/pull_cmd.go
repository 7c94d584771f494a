package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"

	"github.com/kist-containers/kist/image/registry"
	"github.com/kist-containers/kist/internal/ui"
)

// PullCmd is `kist pull`.
type PullCmd struct {
	RegistryFlags
	RetryFlags
	forPlatform `embed:""`
	AllTags     bool   `short:"a" help:"Pull all tags of the repository."`
	Policy      string `default:"always" enum:"always,missing,never,newer" help:"always, missing, never or newer."`
	Quiet       bool   `short:"q" help:"Show no progress, print only the name."`
	// ContentTrust is docker's --disable-content-trust, gone with version 29.
	ContentTrust bool     `name:"disable-content-trust" default:"true" hidden:""`
	Image        []string `arg:"" help:"NAME[:TAG|@DIGEST]."`
}

// Run pulls and prints what docker prints: the full name, or with -q only that.
func (c *PullCmd) Run(ctx context.Context, s *Store, out *ui.Output) error {
	o := PullOptions{Platform: c.platform(), Registry: c.Config()}
	names := c.Image
	if c.AllTags {
		names = nil
		for _, repo := range c.Image {
			tags, err := allTags(ctx, repo, o)
			if err != nil {
				return loginHint(fmt.Errorf("pull %s: %w", repo, err))
			}
			names = append(names, tags...)
		}
	}
	for _, name := range names {
		if err := c.one(ctx, s, out, name, o); err != nil {
			return loginHint(fmt.Errorf("pull %w", err))
		}
	}
	return nil
}

func (c *PullCmd) one(ctx context.Context, s *Store, out *ui.Output, name string, o PullOptions) error {
	before, _ := s.Resolve(name)
	if !c.Quiet {
		o.Progress = out.Progress()
	}
	var img *Image
	err := c.Again(ctx, func() (err error) {
		img, err = s.Ensure(ctx, name, c.Policy, o)
		return err
	})
	o.Progress.Close()
	if err != nil {
		return err
	}
	full := img.Pulled
	if r, err := ParseReference(name); full == "" && err == nil {
		full = r.Tagged().String()
	}
	if c.Quiet {
		out.Print(full)
		return nil
	}
	out.Printf("Digest: %s\n", servedDigest(img, full))
	if before != nil && before.ID == img.ID {
		out.Printf("Status: Image is up to date for %s\n", shown(full))
	} else {
		out.Printf("Status: Downloaded newer image for %s\n", shown(full))
	}
	out.Print(full)
	return nil
}

// shown is a full name as people write it.
func shown(full string) string {
	r, err := ParseReference(full)
	if err != nil {
		return ui.Escape(full)
	}
	return r.Familiar()
}

// servedDigest is the digest by which the registry of name knows img.
func servedDigest(img *Image, name string) string {
	want, _ := ParseReference(name)
	for _, d := range img.RepoDigests {
		if r, err := ParseReference(d); err == nil && r.Name() == want.Name() {
			return r.Digest
		}
	}
	return img.Digest
}

// forPlatform says for which platform an image is: docker's one flag, or
// podman's three.
type forPlatform struct {
	Platform string `help:"Image for another platform: os[/arch[/variant]]." placeholder:"PLATFORM"`
	OS       string `help:"Image for another operating system." placeholder:"OS"`
	Arch     string `help:"Image for another architecture." placeholder:"ARCH"`
	Variant  string `help:"Image for a variant of the architecture." placeholder:"VARIANT"`
}

func (f *forPlatform) platform() string {
	if f.Platform != "" || f.OS == "" && f.Arch == "" && f.Variant == "" {
		return f.Platform
	}
	p := cmp.Or(f.OS, "linux") + "/" + cmp.Or(f.Arch, runtime.GOARCH)
	if f.Variant != "" {
		p += "/" + f.Variant
	}
	return p
}

func allTags(ctx context.Context, name string, o PullOptions) ([]string, error) {
	r, err := ParseReference(name)
	if err != nil {
		return nil, err
	}
	if r.Tag != "" || r.Digest != "" {
		return nil, errors.New("--all-tags takes a name without a tag")
	}
	repo, err := registry.Open(o.Registry, r.Host, r.Path)
	if err != nil {
		return nil, err
	}
	tags, err := repo.Tags(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, t := range tags {
		r.Tag = t
		names = append(names, r.String())
	}
	return names, nil
}

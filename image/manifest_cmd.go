package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kist-containers/kist/internal/ui"
)

// ManifestCreateCmd is `kist manifest create`.
type ManifestCreateCmd struct {
	RegistryFlags
	Amend      bool     `short:"a" help:"Add to a list that is there."`
	All        bool     `help:"Add all images of lists."`
	Annotation []string `sep:"none" help:"Annotation of the list." placeholder:"KEY=VALUE"`
	Insecure   bool     `help:"Same as --no-tls-verify."`
	List       string   `arg:"" help:"Name of the list."`
	Images     []string `arg:"" optional:"" help:"Images, of the store or of registries."`
}

// Run makes the list and prints its name.
func (c *ManifestCreateCmd) Run(ctx context.Context, s *Store, out *ui.Output) error {
	_, im, err := s.list(c.List)
	switch {
	case err == nil && !c.Amend:
		return ui.Hint(fmt.Errorf("manifest create %s: there is such a list", c.List), "use --amend")
	case err != nil && !errors.Is(err, ErrNotFound):
		return err
	case err != nil:
		im = &v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{}}
	}
	if im.Annotations, err = annotate(im.Annotations, c.Annotation); err != nil {
		return err
	}
	c.TLSVerify = c.TLSVerify && !c.Insecure
	if err := s.addTo(ctx, im, c.Config(), c.Images, c.All); err != nil {
		return fmt.Errorf("manifest create %s: %w", c.List, err)
	}
	if _, err := s.saveList(ctx, c.List, im); err != nil {
		return err
	}
	r, _ := ParseReference(c.List)
	out.Printf("Created manifest list %s\n", r.Tagged())
	return nil
}

// platformFlags set parts of a platform.
type platformFlags struct {
	Arch       string   `help:"Architecture." placeholder:"ARCH"`
	OS         string   `help:"Operating system." placeholder:"OS"`
	OSVersion  string   `help:"Version of the operating system." placeholder:"VERSION"`
	OSFeatures []string `help:"Features of the operating system." placeholder:"FEATURE"`
	Features   []string `help:"Features of the processor." placeholder:"FEATURE"`
	Variant    string   `help:"Variant of the architecture." placeholder:"VARIANT"`
	Annotation []string `sep:"none" help:"Annotation of the entry." placeholder:"KEY=VALUE"`
}

func (f *platformFlags) apply(d *v1.Descriptor) error {
	p := v1.Platform{}
	if d.Platform != nil {
		p = *d.Platform
	}
	for _, part := range []struct {
		to   *string
		from string
	}{{&p.Architecture, f.Arch}, {&p.OS, f.OS}, {&p.OSVersion, f.OSVersion}, {&p.Variant, f.Variant}} {
		if part.from != "" {
			*part.to = part.from
		}
	}
	if len(f.OSFeatures) > 0 {
		p.OSFeatures = f.OSFeatures
	}
	if len(f.Features) > 0 {
		p.Features = f.Features
	}
	d.Platform = &p
	var err error
	d.Annotations, err = annotate(d.Annotations, f.Annotation)
	return err
}

// annotate adds annotations as they are given on the command line.
func annotate(notes map[string]string, add []string) (map[string]string, error) {
	for _, a := range add {
		k, v, ok := strings.Cut(a, "=")
		if !ok {
			return notes, fmt.Errorf("--annotation %s: want KEY=VALUE", a)
		}
		notes = set(notes, k, v)
	}
	return notes, nil
}

// ManifestAddCmd is `kist manifest add`.
type ManifestAddCmd struct {
	RegistryFlags
	platformFlags `embed:""`
	All           bool     `help:"Add all images of lists."`
	List          string   `arg:"" help:"Name of the list."`
	Images        []string `arg:"" help:"Images, of the store or of registries."`
}

// Run adds the images and prints the list's digest.
func (c *ManifestAddCmd) Run(ctx context.Context, s *Store, out *ui.Output) error {
	_, im, err := s.list(c.List)
	if err != nil {
		return err
	}
	before := len(im.Manifests)
	if err := s.addTo(ctx, im, c.Config(), c.Images, c.All); err != nil {
		return fmt.Errorf("manifest add %s: %w", c.List, err)
	}
	for i := min(before, len(im.Manifests)); i < len(im.Manifests); i++ {
		if err := c.apply(&im.Manifests[i]); err != nil {
			return err
		}
	}
	d, err := s.saveList(ctx, c.List, im)
	if err == nil {
		out.Print(d.Digest)
	}
	return err
}

// ManifestAnnotateCmd is `kist manifest annotate`.
type ManifestAnnotateCmd struct {
	platformFlags `embed:""`
	Index         bool   `help:"Annotate the list itself."`
	List          string `arg:"" help:"Name of the list."`
	Image         string `arg:"" optional:"" help:"Image of the list: digest, or name in the store or a registry."`
}

// Validate wants one thing to annotate.
func (c *ManifestAnnotateCmd) Validate() error {
	if c.Index == (c.Image != "") {
		return errors.New("manifest annotate: name an image of the list, or give --index")
	}
	return nil
}

// Run changes the entry.
func (c *ManifestAnnotateCmd) Run(ctx context.Context, s *Store) error {
	_, im, err := s.list(c.List)
	if err != nil {
		return err
	}
	if c.Index {
		im.Annotations, err = annotate(im.Annotations, c.Annotation)
	} else {
		var i int
		if i, err = s.member(ctx, im, c.Image); err == nil {
			err = c.apply(&im.Manifests[i])
		}
	}
	if err != nil {
		return fmt.Errorf("manifest annotate %s: %w", c.List, err)
	}
	_, err = s.saveList(ctx, c.List, im)
	return err
}

// member finds an image in a list.
func (s *Store) member(ctx context.Context, im *v1.IndexManifest, name string) (int, error) {
	_, digest, _ := strings.Cut(name, "@")
	if digest == "" && strings.HasPrefix(name, "sha256:") {
		digest = name
	}
	if digest == "" {
		ds, err := s.describe(ctx, defaultConfig(), name, false)
		if err != nil {
			return 0, err
		}
		digest = ds[0].Digest.String()
	}
	i := slices.IndexFunc(im.Manifests, func(d v1.Descriptor) bool { return d.Digest.String() == digest })
	if i < 0 {
		return 0, fmt.Errorf("%s is not in the list: %w", name, ErrNotFound)
	}
	return i, nil
}

// ManifestInspectCmd is `kist manifest inspect`.
type ManifestInspectCmd struct {
	RegistryFlags
	Insecure bool     `help:"Same as --no-tls-verify."`
	Verbose  bool     `short:"v" help:"Show descriptor and platform too."`
	Names    []string `arg:"" help:"[LIST] MANIFEST."`
}

type verboseManifest struct {
	Ref        string
	Descriptor v1.Descriptor
	Manifest   json.RawMessage
}

// Run prints the document, from the store or its registry.
func (c *ManifestInspectCmd) Run(ctx context.Context, s *Store, out *ui.Output) error {
	name := c.Names[len(c.Names)-1]
	c.TLSVerify = c.TLSVerify && !c.Insecure
	data, d, err := s.document(ctx, c.Config(), name)
	if err != nil {
		return fmt.Errorf("manifest inspect %s: %w", name, err)
	}
	var v any = json.RawMessage(data)
	if c.Verbose {
		v = verboseManifest{name, d, data}
	}
	text, err := json.MarshalIndent(v, "", "   ")
	if err != nil {
		return err
	}
	out.Print(string(text))
	return nil
}

// ManifestPushCmd is `kist manifest push`.
type ManifestPushCmd struct {
	RegistryFlags
	Insecure   bool   `help:"Same as --no-tls-verify."`
	Purge      bool   `short:"p" aliases:"rm" help:"Remove the list afterwards."`
	All        bool   `default:"true" negatable:"" help:"Push the images too; without them the registry must have them."`
	Digestfile string `help:"Write the digest to this file." placeholder:"FILE"`
	Quiet      bool   `short:"q" help:"Show no progress."`
	List       string `arg:"" help:"Name of the list."`
	Dest       string `arg:"" optional:"" help:"Another name to push to."`
}

// Run pushes and prints the digest.
func (c *ManifestPushCmd) Run(ctx context.Context, s *Store, out *ui.Output) error {
	if _, _, err := s.list(c.List); err != nil {
		return err
	}
	c.TLSVerify = c.TLSVerify && !c.Insecure
	o := PushOptions{Registry: c.Config(), Destination: strings.TrimPrefix(c.Dest, "docker://"), ListOnly: !c.All}
	if !c.Quiet {
		o.Progress = out.Progress()
	}
	d, err := s.Push(ctx, c.List, o)
	o.Progress.Close()
	if err != nil {
		return fmt.Errorf("manifest push %w", err)
	}
	out.Print(d.Digest)
	if err := writeDigest(c.Digestfile, d); err != nil {
		return err
	}
	if c.Purge {
		_, err = s.Remove(ctx, c.List, RemoveOptions{Force: true})
	}
	return err
}

package image

import (
	"context"
	"fmt"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kist-containers/kist/internal/ui"
)

// PushCmd is `kist push`.
type PushCmd struct {
	RegistryFlags
	RetryFlags
	AllTags      bool     `short:"a" help:"Push all tags of the repository."`
	Quiet        bool     `short:"q" help:"Show no progress, print only the name."`
	Digestfile   string   `help:"Write the digest to this file." placeholder:"FILE"`
	ChunkSize    ui.Bytes `help:"Upload in pieces of this size." placeholder:"SIZE"`
	Platform     string   `help:"Push only this image of a list." placeholder:"PLATFORM"`
	ContentTrust bool     `name:"disable-content-trust" default:"true" hidden:""`
	Image        string   `arg:"" help:"NAME[:TAG]."`
	Dest         string   `arg:"" optional:"" help:"Another name to push to."`
}

// Run pushes and prints the digest, as docker does.
func (c *PushCmd) Run(ctx context.Context, s *Store, out *ui.Output) error {
	names, err := c.names(s)
	if err != nil {
		return err
	}
	o := PushOptions{Registry: c.Config(), Destination: c.Dest, ChunkSize: int64(c.ChunkSize), Platform: c.Platform}
	for _, name := range names {
		r, err := ParseReference(name)
		if err == nil && c.Dest != "" {
			r, err = ParseReference(c.Dest)
		}
		if err != nil {
			return fmt.Errorf("push: %w", err)
		}
		if !c.Quiet {
			out.Printf("The push refers to repository [%s]\n", r.Name())
			o.Progress = out.Progress()
		}
		var d v1.Descriptor
		err = c.Again(ctx, func() (err error) {
			d, err = s.Push(ctx, name, o)
			return err
		})
		o.Progress.Close()
		if err != nil {
			return loginHint(fmt.Errorf("push %w", err))
		}
		if c.Quiet {
			out.Print(r.Tagged().String())
		} else {
			out.Printf("%s: digest: %s size: %d\n", r.Tagged().Tag, d.Digest, d.Size)
		}
		if err := writeDigest(c.Digestfile, d); err != nil {
			return err
		}
	}
	return nil
}

func (c *PushCmd) names(s *Store) ([]string, error) {
	if !c.AllTags {
		return []string{c.Image}, nil
	}
	want, err := ParseReference(c.Image)
	if err != nil {
		return nil, err
	}
	if want.Tag != "" {
		return nil, fmt.Errorf("push --all-tags %s: a tag cannot be given with it", c.Image)
	}
	entries, err := s.readIndex()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if r := e.ref(); r.Name() == want.Name() {
			names = append(names, r.String())
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("push %s: %w", want.Familiar(), ErrNotFound)
	}
	return names, nil
}

// writeDigest writes the digest to file, if one is named.
func writeDigest(file string, d v1.Descriptor) error {
	if file == "" {
		return nil
	}
	return os.WriteFile(file, []byte(d.Digest.String()+"\n"), 0o644)
}

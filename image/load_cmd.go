package image

import (
	"context"
	"errors"
	"fmt"

	"github.com/kist-containers/kist/internal/ui"
)

// LoadCmd is `kist load`.
type LoadCmd struct {
	Input    string   `short:"i" help:"Archive or OCI layout directory; standard input without it." placeholder:"FILE"`
	Platform []string `help:"Only these platforms of a multi-platform image." placeholder:"PLATFORM"`
	Quiet    bool     `short:"q" help:"Show no progress."`
}

// Run loads all images of the archive.
func (c *LoadCmd) Run(ctx context.Context, s *Store, out *ui.Output) error {
	o := LoadOptions{Platforms: c.Platform}
	if !c.Quiet {
		o.Progress = out.Progress()
	}
	images, err := c.load(ctx, s, o, out)
	o.Progress.Close()
	for _, img := range images {
		if len(img.Names) == 0 {
			out.Printf("Loaded image ID: %s\n", img.ID)
		}
		for _, n := range img.Names {
			out.Printf("Loaded image: %s\n", ui.Escape(n))
		}
	}
	return err
}

func (c *LoadCmd) load(ctx context.Context, s *Store, o LoadOptions, out *ui.Output) ([]*Image, error) {
	if c.Input != "" {
		images, err := s.LoadFile(ctx, c.Input, o)
		if err != nil {
			return images, fmt.Errorf("load %s: %w", c.Input, err)
		}
		return images, nil
	}
	if ui.IsTerminal(out.In) {
		return nil, ui.Hint(errors.New("load: standard input is a terminal"), "kist load -i FILE")
	}
	images, err := s.Load(ctx, out.In, o)
	if err != nil {
		return images, fmt.Errorf("load: %w", err)
	}
	return images, nil
}

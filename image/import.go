package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kist-containers/kist/internal/ui"
)

// ImportOptions describe an image made of a root file system.
type ImportOptions struct {
	// Names are the new image's.
	Names []string
	// Changes are Dockerfile instructions; see ApplyChanges.
	Changes  []string
	Message  string
	Platform string
	Source   string
}

// Import makes an image of one layer from the archive of a root file system.
func (s *Store) Import(ctx context.Context, r io.Reader, o ImportOptions) (*Image, error) {
	p, err := ParsePlatform(o.Platform)
	if err != nil {
		return nil, err
	}
	cfg := &v1.ConfigFile{Architecture: p.Architecture, Variant: p.Variant, OS: p.OS, Created: now()}
	if err := ApplyChanges(&cfg.Config, o.Changes); err != nil {
		return nil, err
	}
	pin, err := s.pinned(ctx)
	if err != nil {
		return nil, err
	}
	defer s.unpin(pin)
	l, d, err := s.AddLayer(ctx, "", r, LayerOptions{})
	if err != nil {
		return nil, err
	}
	diffID, err := v1.NewHash(l.DiffID)
	if err != nil {
		return nil, err
	}
	comment := o.Message
	if comment == "" {
		comment = "Imported from " + o.Source
	}
	cfg.RootFS = v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{diffID}}
	cfg.History = []v1.History{{Created: cfg.Created, Comment: comment}}
	img, err := s.AddImage(ctx, cfg, []v1.Descriptor{d}, o.Names)
	if err == nil {
		s.event(img.ID, "import", firstName(img))
	}
	return img, err
}

// ImportCmd is `kist import`.
type ImportCmd struct {
	forPlatform `embed:""`
	Change      []string `short:"c" sep:"none" help:"Apply a Dockerfile instruction." placeholder:"INSTRUCTION"`
	Message     string   `short:"m" help:"Comment for the history." placeholder:"TEXT"`
	Quiet       bool     `short:"q" help:"Accepted; nothing is shown anyway."`
	Source      string   `arg:"" help:"File, URL, or - for standard input."`
	Name        string   `arg:"" optional:"" help:"NAME[:TAG] of the image."`
}

// Run imports and prints the ID.
func (c *ImportCmd) Run(ctx context.Context, s *Store, out *ui.Output) error {
	r, err := c.open(ctx, out)
	if err != nil {
		return fmt.Errorf("import %s: %w", c.Source, err)
	}
	defer r.Close()
	o := ImportOptions{Changes: c.Change, Message: c.Message, Platform: c.platform(), Source: c.Source}
	if c.Name != "" {
		o.Names = []string{c.Name}
	}
	img, err := s.Import(ctx, r, o)
	if err != nil {
		return fmt.Errorf("import %s: %w", c.Source, err)
	}
	out.Print(img.ID)
	return nil
}

func (c *ImportCmd) open(ctx context.Context, out *ui.Output) (io.ReadCloser, error) {
	switch {
	case c.Source == "-":
		return io.NopCloser(out.In), nil
	case strings.HasPrefix(c.Source, "http://"), strings.HasPrefix(c.Source, "https://"):
		return get(ctx, c.Source)
	}
	return os.Open(c.Source)
}

func get(ctx context.Context, address string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err
		}
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, fmt.Errorf("%s", resp.Status)
	}
	return resp.Body, nil
}

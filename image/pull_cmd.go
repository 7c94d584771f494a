package image

import (
	"context"
	"fmt"

	"github.com/kist-containers/kist/internal/ui"
)

// PullCmd is `kist pull`.
type PullCmd struct {
	Platform string `help:"Image for another platform: os[/arch[/variant]]." placeholder:"PLATFORM"`
	Quiet    bool   `short:"q" help:"Show no progress, print only the name."`
	Image    string `arg:"" help:"NAME[:TAG|@DIGEST]."`
}

// Run pulls and prints what docker prints.
func (c *PullCmd) Run(ctx context.Context, s *Store, out *ui.Output) error {
	r, err := ParseReference(c.Image)
	if err != nil {
		return fmt.Errorf("pull: %w", err)
	}
	o := PullOptions{Platform: c.Platform}
	if !c.Quiet {
		o.Progress = out.Progress()
		defer o.Progress.Close()
	}
	img, err := s.Pull(ctx, c.Image, o)
	o.Progress.Close()
	if err != nil {
		return fmt.Errorf("pull %w", err)
	}
	_ = img
	out.Print(r.Tagged().String())
	return nil
}

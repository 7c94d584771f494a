package image

import (
	"context"
	"fmt"

	"github.com/kist-containers/kist/internal/ui"
)

// UntagCmd is `kist untag`.
type UntagCmd struct {
	Image string   `arg:"" help:"Name or ID."`
	Names []string `arg:"" optional:"" help:"Names to take away; all without any."`
}

// Run takes names away; the image stays.
func (c *UntagCmd) Run(ctx context.Context, s *Store) error {
	if err := s.Untag(ctx, c.Image, c.Names); err != nil {
		return fmt.Errorf("untag: %w", err)
	}
	return nil
}

// ExistsCmd is `kist image exists`.
type ExistsCmd struct {
	Image string `arg:"" help:"Name or ID."`
}

// Run says by its status whether the image is there.
func (c *ExistsCmd) Run(s *Store) error {
	if _, err := s.Resolve(c.Image); err != nil {
		return ui.Exit(1)
	}
	return nil
}

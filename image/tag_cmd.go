package image

import (
	"context"
	"fmt"
)

// TagCmd is `kist tag`.
type TagCmd struct {
	Source string `arg:"" help:"Image: name, ID or prefix of an ID."`
	Target string `arg:"" help:"New name: NAME[:TAG]."`
}

// Run adds the name.
func (c *TagCmd) Run(ctx context.Context, s *Store) error {
	if err := s.Tag(ctx, c.Source, c.Target); err != nil {
		return fmt.Errorf("tag: %w", err)
	}
	return nil
}

package system

import (
	"context"
	"errors"
	"fmt"

	"github.com/kist-containers/kist/build"
	"github.com/kist-containers/kist/container"
	"github.com/kist-containers/kist/image"
	"github.com/kist-containers/kist/internal/ui"
)

// CheckCmd is `kist system check`.
type CheckCmd struct {
	Repair bool `short:"r" help:"Heal what can be healed."`
	// Force and Max are podman's.
	Force bool   `short:"f" hidden:""`
	Max   string `short:"m" hidden:""`
	Quick bool   `short:"q" help:"Leave the images out, whose blobs take time."`
}

// Run looks for what crashes left wrong.
func (c *CheckCmd) Run(ctx context.Context, e *container.Engine, s *image.Store, b *build.Builder, out *ui.Output) error {
	switch {
	case c.Max != "":
		return errors.New("system check --max: what a killed command left is healed whatever its age; kist system prune --filter until=TIME goes by age")
	case c.Force && !c.Repair:
		return errors.New("system check --force: needs --repair too")
	}
	found, err := b.Check(ctx, c.Repair)
	more, errMore := e.Check(ctx, c.Repair)
	found, err = append(found, more...), errors.Join(err, errMore)
	if !c.Quick {
		more, errMore := s.Check(ctx, c.Repair)
		found, err = append(found, more...), errors.Join(err, errMore)
	}
	for _, line := range found {
		out.Print(ui.Escape(line))
	}
	switch {
	case err != nil:
		return fmt.Errorf("system check: %w", err)
	case len(found) == 0 || c.Repair:
		return nil
	}
	out.Notef("hint: kist system check --repair")
	return ui.Exit(1)
}

// RestoreCmd is `kist system restore`.
type RestoreCmd struct{}

// Run starts what comes back after a boot.
func (c *RestoreCmd) Run(ctx context.Context, e *container.Engine, out *ui.Output) error {
	started, err := e.Restore(ctx)
	for _, name := range started {
		out.Print(name)
	}
	if err != nil {
		return fmt.Errorf("system restore: %w", err)
	}
	return nil
}

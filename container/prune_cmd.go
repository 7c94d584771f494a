package container

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/kist-containers/kist/internal/ui"
)

// PruneCmd is `kist container prune`.
type PruneCmd struct {
	Filter []string `sep:"none" help:"until=TIME, label=KEY[=VALUE], label!=KEY[=VALUE]." placeholder:"KEY=VALUE"`
	Force  bool     `short:"f" help:"Do not ask."`
}

// Pruned is what a prune removed.
type Pruned struct {
	IDs       []string
	Reclaimed int64 // bytes
}

// Run asks, prunes, and says what it gained.
func (c *PruneCmd) Run(ctx context.Context, e *Engine, out *ui.Output) error {
	f, err := ui.ParseFilters(c.Filter, "until", "label", "label!")
	if err != nil {
		return fmt.Errorf("container prune: %w", err)
	}
	if !c.Force && !out.Confirm("WARNING! This will remove all stopped containers.") {
		return nil
	}
	p, err := e.Prune(ctx, f)
	if err != nil && len(p.IDs) == 0 {
		return fmt.Errorf("container prune: %w", err)
	}
	if len(p.IDs) > 0 {
		out.Print("Deleted Containers:")
	}
	for _, id := range p.IDs {
		out.Print(id)
	}
	if len(p.IDs) > 0 {
		out.Print()
	}
	out.Printf("Total reclaimed space: %s\n", ui.Size(p.Reclaimed))
	return err
}

// Prune removes the containers that do not run and that pass f, which may hold
// until, label and label!. What is just being created is left alone.
func (e *Engine) Prune(ctx context.Context, f ui.Filters) (p Pruned, err error) {
	var before time.Time
	for _, v := range f["until"] {
		if before, err = ui.ParseTime(v, time.Now()); err != nil {
			return p, fmt.Errorf("--filter until=%s: %w", v, err)
		}
	}
	list, err := e.all()
	if err != nil {
		return p, err
	}
	var errs []error
	for _, c := range list {
		if !before.IsZero() && !c.Created.Before(before) || !f.MatchLabels("label", c.Labels) || !f.ExcludeLabels("label!", c.Labels) {
			continue
		}
		size, err := e.pruneOne(ctx, c)
		switch {
		case errors.Is(err, ErrRunning), errors.Is(err, ErrNotFound):
		case err != nil:
			errs = append(errs, fmt.Errorf("rm %s: %w", c.Name, err))
		default:
			p.IDs, p.Reclaimed = append(p.IDs, c.ID), p.Reclaimed+size
		}
	}
	errs = append(errs, e.pruneShifted(ctx, ""))
	e.NoteEvent(eventContainer, "", "prune", map[string]string{"reclaimed": strconv.FormatInt(p.Reclaimed, 10)})
	return p, errors.Join(errs...)
}

func (e *Engine) pruneOne(ctx context.Context, c *Config) (int64, error) {
	if e.settledStatus(c).Busy() {
		return 0, ErrRunning
	}
	lock, err := e.lock(ctx, c.ID)
	if err != nil {
		return 0, err
	}
	defer lock.Unlock()
	if _, err := e.read(c.ID); err != nil {
		return 0, err
	}
	if e.Status(c.ID).Busy() {
		return 0, ErrRunning
	}
	size := treeSize(e.dataDir(c.ID, upperDir))
	return size, e.remove(ctx, c, false)
}

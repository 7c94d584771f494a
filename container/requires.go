package container

import (
	"context"
	"errors"
	"fmt"

	"github.com/kist-containers/kist/internal/ui"
)

// settleRequires replaces names by IDs, which a rename does not change.
func (e *Engine) settleRequires(c *Config) error {
	for i, name := range c.Requires {
		o, err := e.Lookup(name)
		if err != nil {
			return fmt.Errorf("--requires %s: %w", name, err)
		}
		c.Requires[i] = o.ID
	}
	return nil
}

// startRequired starts what the container needs, each one's own needs first. A
// container can name only those that were there before it, so there is no circle.
func (e *Engine) startRequired(ctx context.Context, c *Config) error {
	for _, id := range c.Requires {
		if e.Status(id).Busy() {
			continue
		}
		if err := e.startByID(ctx, id); err != nil {
			return fmt.Errorf("required container %s: %w", shortID(id), err)
		}
	}
	return nil
}

func (e *Engine) startByID(ctx context.Context, id string) error {
	lock, err := e.lock(ctx, id)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	o, err := e.read(id)
	if err != nil {
		return ui.Hint(err, "kist ps -a")
	}
	if e.Status(id).Busy() {
		return nil // another command was faster
	}
	return e.Start(ctx, o, nil, nil)
}

// replace removes the container of a name that is wanted, running or not.
func (e *Engine) replace(ctx context.Context, name string) error {
	if err := (&RmCmd{Force: true}).remove(ctx, e, name); err != nil && !errors.Is(err, errSkip) {
		return fmt.Errorf("--replace %s: %w", name, err)
	}
	return nil
}

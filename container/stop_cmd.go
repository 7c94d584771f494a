package container

import (
	"context"
	"errors"
	"fmt"

	"github.com/kist-containers/kist/internal/ui"
)

// StopCmd is `kist stop`.
type StopCmd struct {
	choice     `embed:""`
	latestFlag `embed:""`
	Signal     string   `short:"s" help:"Signal to send instead of the container's own." placeholder:"SIGNAL"`
	Timeout    *int     `short:"t" aliases:"time" help:"Seconds to wait before SIGKILL (10); -1 waits for ever." placeholder:"SECONDS"`
	All        bool     `short:"a" help:"Stop all running containers."`
	Ignore     bool     `short:"i" help:"A container that is not there is no error."`
	Containers []string `arg:"" optional:"" name:"container" help:"Containers to stop."`
}

// Run stops containers, all at the same time.
func (c *StopCmd) Run(ctx context.Context, e *Engine, out *ui.Output) error {
	names, err := e.choose(c.Containers, c.All, c.Latest, c.choice, Status.Busy)
	if err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	return atOnce(out, names, func(name string) error {
		ct, err := e.Lookup(name)
		if errors.Is(err, ErrNotFound) && c.Ignore {
			return nil
		}
		if err != nil {
			return fmt.Errorf("stop %s: %w", name, err)
		}
		if c.Signal != "" {
			if _, err := parseSignal(c.Signal); err != nil {
				return fmt.Errorf("stop %s: --signal %s: %w", name, c.Signal, err)
			}
			ct.StopSignal = c.Signal
		}
		if c.Timeout != nil {
			ct.StopTimeoutSec = c.Timeout
		}
		if err := e.Stop(ctx, ct, ct.StopTimeout()); err != nil {
			return fmt.Errorf("stop %s: %w", name, err)
		}
		return nil
	})
}

// RestartCmd is `kist restart`.
type RestartCmd struct {
	choice     `embed:""`
	latestFlag `embed:""`
	Signal     string   `short:"s" help:"Signal to send instead of the container's own." placeholder:"SIGNAL"`
	Timeout    *int     `short:"t" aliases:"time" help:"Seconds to wait before SIGKILL (10); -1 waits for ever." placeholder:"SECONDS"`
	All        bool     `short:"a" help:"All containers."`
	Running    bool     `help:"All that run."`
	Containers []string `arg:"" optional:"" name:"container" help:"Containers to restart."`
}

// Run stops and starts containers.
func (c *RestartCmd) Run(ctx context.Context, e *Engine, out *ui.Output) error {
	match := Status.Busy
	if c.All {
		match = nil
	}
	names, err := e.choose(c.Containers, c.All || c.Running, c.Latest, c.choice, match)
	if err != nil {
		return fmt.Errorf("restart: %w", err)
	}
	return each(e, out, "restart", names, func(ct *Config) error {
		stopped := *ct
		if c.Timeout != nil {
			stopped.StopTimeoutSec = c.Timeout
		}
		if c.Signal != "" {
			if _, err := parseSignal(c.Signal); err != nil {
				return fmt.Errorf("--signal %s: %w", c.Signal, err)
			}
			stopped.StopSignal = c.Signal
		}
		if err := e.Stop(ctx, &stopped, stopped.StopTimeout()); err != nil {
			return err
		}
		lock, err := e.lock(ctx, ct.ID)
		if err != nil {
			return err
		}
		defer lock.Unlock()
		if e.Status(ct.ID).Live() {
			return nil // another command was faster: it has been started anew
		}
		if err := e.Start(ctx, ct, nil, nil); err != nil {
			return err
		}
		e.event(ct, "restart", nil)
		return nil
	})
}

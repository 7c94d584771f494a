package container

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/ui"
)

// KillCmd is `kist kill`.
type KillCmd struct {
	choice     `embed:""`
	latestFlag `embed:""`
	Signal     string   `short:"s" default:"KILL" help:"Signal to send." placeholder:"SIGNAL"`
	All        bool     `short:"a" help:"All running containers."`
	Containers []string `arg:"" optional:"" name:"container" help:"Containers to signal."`
}

// Run sends a signal to the first process of containers.
func (c *KillCmd) Run(ctx context.Context, e *Engine, out *ui.Output) error {
	sig, err := parseSignal(c.Signal)
	if err != nil {
		return fmt.Errorf("kill: --signal %s: %w", c.Signal, err)
	}
	names, err := e.choose(c.Containers, c.All, c.Latest, c.choice, Status.Live)
	if err != nil {
		return fmt.Errorf("kill: %w", err)
	}
	return each(e, out, "kill", names, func(ct *Config) error {
		if !e.Status(ct.ID).Live() {
			return ErrNotRunning
		}
		if sig == unix.SIGKILL {
			e.noRestart(ct.ID)
		}
		if sig == unix.SIGKILL {
			e.thaw(ct)
		}
		if err := e.signal(ct.ID, sig); err != nil {
			return endedMeanwhile(err)
		}
		e.event(ct, "kill", map[string]string{"signal": fmt.Sprint(int(sig))})
		if sig == unix.SIGKILL {
			return e.settled(ctx, ct)
		}
		return nil
	})
}

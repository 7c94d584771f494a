package container

import (
	"context"
	"errors"
	"fmt"

	"github.com/kist-containers/kist/container/monitor"
	"github.com/kist-containers/kist/internal/ui"
)

// HealthCmds is `kist healthcheck`.
type HealthCmds struct {
	Run HealthRunCmd `cmd:"" help:"Run a container's health check once: 0 is healthy, 1 is not."`
}

// HealthRunCmd is `kist healthcheck run`.
type HealthRunCmd struct {
	IgnoreResult bool   `help:"Exit 0 whatever the check says."`
	Container    string `arg:"" help:"Container."`
}

// Run runs the check once.
func (c *HealthRunCmd) Run(ctx context.Context, e *Engine, out *ui.Output) error {
	ct, err := e.running("healthcheck run", c.Container)
	if err != nil {
		return ui.WithCode(failedCode, err)
	}
	if ct.Health == nil || len(ct.Health.Test) == 0 || ct.Health.Test[0] == "NONE" {
		return ui.WithCode(failedCode, fmt.Errorf("healthcheck run %s: it has no health check", c.Container))
	}
	code, text, err := monitor.Probe(ctx, e.runtime(), ct.ID, e.dataDir(ct.ID, bundleDir), *ct.Health)
	if err != nil {
		return ui.WithCode(failedCode, fmt.Errorf("healthcheck run %s: %w", c.Container, err))
	}
	if code == 0 || c.IgnoreResult {
		return nil
	}
	out.Notef("unhealthy: exit code %d: %s", code, text)
	return ui.Exit(1)
}

// ExistsCmd is `kist container exists`.
type ExistsCmd struct {
	External  bool   `help:"Other tools' containers too; there are none in kist's store."`
	Container string `arg:"" help:"Container."`
}

// Run says by its exit code whether there is such a container.
func (c *ExistsCmd) Run(e *Engine) error {
	_, err := e.Lookup(c.Container)
	if errors.Is(err, ErrNotFound) {
		return ui.Exit(1)
	}
	return ui.WithCode(failedCode, err)
}

// CleanupCmd is `kist container cleanup`.
type CleanupCmd struct {
	choice     `embed:""`
	latestFlag `embed:""`
	All        bool     `short:"a" help:"All containers that do not run."`
	Rm         bool     `help:"Remove them too."`
	Rmi        bool     `help:"With --rm, remove their images as well."`
	Exec       string   `hidden:""`
	Containers []string `arg:"" optional:"" name:"container" help:"Containers."`
}

// Run undoes what a run of stopped containers made and a killed monitor left.
func (c *CleanupCmd) Run(ctx context.Context, e *Engine, out *ui.Output) error {
	switch {
	case c.Exec != "":
		return errors.New("container cleanup --exec: an exec session leaves nothing behind in kist")
	case c.Rmi && !c.Rm:
		return errors.New("container cleanup: --rmi needs --rm too")
	}
	names, err := e.choose(c.Containers, c.All, c.Latest, c.choice, func(s Status) bool { return !s.Busy() })
	if err != nil {
		return fmt.Errorf("container cleanup: %w", err)
	}
	return each(e, out, "container cleanup", names, func(ct *Config) error {
		if e.Status(ct.ID).Busy() {
			return ErrRunning
		}
		if c.Rm {
			ct.RemoveImage = c.Rmi
			return errors.Join((&RmCmd{}).remove(ctx, e, ct.ID), e.removeImage(ctx, ct))
		}
		return e.reconcile(ctx, ct)
	})
}

// CheckpointCmd is podman's `container checkpoint` and `restore`.
type CheckpointCmd struct {
	Argv []string `arg:"" optional:"" passthrough:"" hidden:""`
}

// Run says why it does not.
func (c *CheckpointCmd) Run() error {
	return ui.WithCode(failedCode, ui.Hint(errors.New("checkpoints need CRIU, which kist does not drive"), "kist commit saves the files; kist pause freezes the processes"))
}

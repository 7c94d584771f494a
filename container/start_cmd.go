package container

import (
	"context"
	"errors"
	"fmt"

	"github.com/kist-containers/kist/internal/ui"
)

// StartCmd is `kist start`.
type StartCmd struct {
	choice      `embed:""`
	latestFlag  `embed:""`
	Attach      bool   `short:"a" help:"Attach to its output, and pass signals on."`
	Interactive bool   `short:"i" help:"Attach to its standard input."`
	DetachKeys  string `help:"Keys that detach from a terminal (ctrl-p,ctrl-q)." placeholder:"KEYS"`
	SigProxy    bool   `negatable:"" default:"true" help:"With -a, pass signals on."`
	All         bool   `help:"All containers that do not run."`
	// What restores checkpoints elsewhere.
	Checkpoint    string   `hidden:""`
	CheckpointDir string   `hidden:""`
	Containers    []string `arg:"" optional:"" name:"container" help:"Containers to start."`
}

// HandlesSignals says that signals are for the container.
func (c *StartCmd) HandlesSignals() {}

// Validate refuses flags that contradict each other.
func (c *StartCmd) Validate() error {
	switch {
	case (c.Attach || c.Interactive) && (len(c.Containers) > 1 || c.All || len(c.Filter) > 0):
		return errors.New("start -a and -i take one container")
	case c.Checkpoint+c.CheckpointDir != "":
		return errors.New("--checkpoint: kist does not restore checkpoints")
	}
	return nil
}

// Run starts containers.
func (c *StartCmd) Run(ctx context.Context, e *Engine, out *ui.Output) error {
	names, err := e.choose(c.Containers, c.All, c.Latest, c.choice, func(s Status) bool { return !s.Busy() })
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	if c.Attach || c.Interactive {
		c.Containers = names
		return c.attached(ctx, e, out)
	}
	return each(e, out, "start", names, func(ct *Config) error {
		lock, err := e.lock(ctx, ct.ID)
		if err != nil {
			return err
		}
		defer lock.Unlock()
		if e.Status(ct.ID).Live() {
			return nil // docker: starting what runs is no error
		}
		return ui.WithCode(1, e.Start(ctx, ct, nil, nil))
	})
}

func (c *StartCmd) attached(ctx context.Context, e *Engine, out *ui.Output) error {
	name := c.Containers[0]
	ct, err := e.Lookup(name)
	if err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	keys, err := detachKeys(c.DetachKeys)
	if err != nil {
		return err
	}
	lock, err := e.lock(ctx, ct.ID)
	if err != nil {
		return err
	}
	if e.Status(ct.ID).Live() {
		lock.Unlock()
		return (&AttachCmd{DetachKeys: c.DetachKeys, SigProxy: c.SigProxy, NoStdin: !c.Interactive, Container: name}).Run(ctx, e, out)
	}
	run := &RunCmd{SigProxy: c.SigProxy}
	ct.StdinOnce = ct.OpenStdin && c.Interactive
	view := *ct
	view.OpenStdin = ct.OpenStdin && c.Interactive
	s, err := run.foreground(ctx, e, &created{ct, lock}, nil, out, keys, nil)
	if err != nil {
		lock.Unlock()
		return ui.WithCode(1, fmt.Errorf("start %s: %w", name, err))
	}
	if !view.OpenStdin {
		s.client.Stdin = nil
	}
	return s.wait(ctx, e)
}

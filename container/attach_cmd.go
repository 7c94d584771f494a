package container

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/container/monitor"
	"github.com/kist-containers/kist/internal/ui"
)

// AttachCmd is `kist attach`.
type AttachCmd struct {
	latestFlag `embed:""`
	DetachKeys string `help:"Keys that detach from a terminal (ctrl-p,ctrl-q)." placeholder:"KEYS"`
	NoStdin    bool   `help:"Do not attach to standard input."`
	SigProxy   bool   `negatable:"" default:"true" help:"Pass signals on."`
	Container  string `arg:"" optional:"" help:"Container."`
}

// HandlesSignals says that signals are for the container.
func (c *AttachCmd) HandlesSignals() {}

// Run connects this command's streams to a running container's.
func (c *AttachCmd) Run(ctx context.Context, e *Engine, out *ui.Output) error {
	if c.Container == "" && c.Latest {
		if names, err := e.latest(); err == nil {
			c.Container = names[0]
		}
	}
	if c.Container == "" {
		return errors.New("attach: no container is given")
	}
	ct, err := e.running("attach", c.Container)
	if err != nil {
		return err
	}
	if e.Status(ct.ID).Word == StatusPaused {
		return ui.Hint(fmt.Errorf("attach %s: container is paused", c.Container), "kist unpause %s", c.Container)
	}
	keys, err := detachKeys(c.DetachKeys)
	if err != nil {
		return err
	}
	client, err := monitor.Dial(e.runDir(ct.ID))
	if err != nil {
		return fmt.Errorf("attach %s: %w", c.Container, err)
	}
	e.event(ct, "attach", nil)
	streams(client, ct, nil, out)
	client.DetachKeys, client.Redraw = keys, true
	if c.NoStdin {
		client.Stdin = nil
	}
	s := &session{client, ct, c.SigProxy && !ct.Tty}
	if s.sigProxy {
		s.proxy(e)
	}
	code, err := client.Run(ctx, false)
	switch {
	case errors.Is(err, monitor.ErrDetached):
		e.event(ct, "detach", nil)
		return err
	case errors.Is(err, unix.EPIPE):
		return ui.Exit(128 + int(unix.SIGPIPE))
	case err != nil:
		return err
	case code != 0:
		return ui.Exit(code)
	}
	return nil
}

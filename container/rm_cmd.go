package container

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/ui"
)

// RmCmd is `kist rm`.
type RmCmd struct {
	Force      bool     `short:"f" help:"Kill what runs; a container that is not there is no error."`
	Volumes    bool     `short:"v" help:"Remove its anonymous volumes too."`
	All        bool     `short:"a" help:"All containers."`
	Latest     bool     `help:"The container that was created last."`
	Ignore     bool     `short:"i" help:"A container that is not there is no error."`
	Depend     bool     `help:"Remove those that share its namespaces too."`
	Link       bool     `short:"l" hidden:""`
	Cidfile    []string `sep:"none" help:"Read the ID of a container from a file." placeholder:"FILE"`
	Filter     []string `sep:"none" help:"Choose those that match, as kist ps does." placeholder:"KEY=VALUE"`
	Time       *int     `short:"t" help:"With -f, seconds to wait before SIGKILL (0)." placeholder:"SECONDS"`
	Containers []string `arg:"" optional:"" name:"container" help:"Containers to remove."`
}

// Run removes containers.
func (c *RmCmd) Run(ctx context.Context, e *Engine, out *ui.Output) error {
	if c.Link {
		return errors.New("rm --link: kist has no links; containers of one network find each other by name")
	}
	names, err := e.choose(c.Containers, c.All, c.Latest, choice{c.Cidfile, c.Filter}, nil)
	if err == nil && c.Depend {
		names, err = e.withDependants(names)
	}
	if err != nil {
		return fmt.Errorf("rm: %w", err)
	}
	return atOnce(out, names, func(name string) error {
		err := c.remove(ctx, e, name)
		switch {
		case errors.Is(err, errSkip) && !c.Ignore:
			out.Warn("rm %s: %v", name, ErrNotFound)
		case err != nil && !errors.Is(err, errSkip):
			return fmt.Errorf("rm %s: %w", name, err)
		}
		return err
	})
}

func (c *RmCmd) remove(ctx context.Context, e *Engine, name string) error {
	ct, err := e.Lookup(name)
	if errors.Is(err, ErrNotFound) && (c.Force || c.Ignore) {
		return errSkip
	}
	var damaged *DamagedError
	if c.Force && errors.As(err, &damaged) {
		ct, err = e.wreck(damaged.ID), nil
	}
	if err != nil {
		return err
	}
	if e.Status(ct.ID).Busy() {
		if !c.Force {
			return ui.Hint(ErrRunning, "kist rm -f %s", name)
		}
		e.noRestart(ct.ID)
		if c.Time != nil && *c.Time > 0 {
			err = e.Stop(ctx, ct, time.Duration(*c.Time)*time.Second)
		} else {
			e.thaw(ct)
			e.signal(ct.ID, unix.SIGKILL)
			e.event(ct, "kill", map[string]string{"signal": "9"})
			err = e.settled(ctx, ct)
		}
		if err != nil {
			return err
		}
	}
	lock, err := e.lock(ctx, ct.ID)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	if _, err := e.read(ct.ID); errors.Is(err, ErrNotFound) {
		return nil // it removed itself (--rm), or another command did
	}
	if e.Status(ct.ID).Busy() {
		return fmt.Errorf("%w: it was started again meanwhile", ErrRunning)
	}
	return e.remove(ctx, ct, c.Volumes || ct.AutoRemove)
}

// withDependants adds the containers that share a namespace of those named, and
// puts them first.
func (e *Engine) withDependants(names []string) ([]string, error) {
	list, err := e.all()
	if err != nil {
		return nil, err
	}
	var all []string
	for _, name := range names {
		c, err := e.Lookup(name)
		if err != nil {
			all = append(all, name) // for rm to tell
			continue
		}
		for _, o := range list {
			if o.joins(c) {
				all = append(all, o.Name)
			}
		}
		all = append(all, name)
	}
	return all, nil
}

// joins reports whether c lives in a namespace of o's.
func (c *Config) joins(o *Config) bool {
	for _, mode := range []string{c.Network.Mode, c.Spaces.IPC, c.Spaces.PID, c.Spaces.UTS, c.Spaces.User} {
		if other, ok := strings.CutPrefix(mode, "container:"); ok && (other == o.Name || strings.HasPrefix(o.ID, other)) {
			return true
		}
	}
	return false
}

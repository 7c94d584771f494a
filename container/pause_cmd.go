package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/kist-containers/kist/internal/ui"
)

// PauseCmd is `kist pause`.
type PauseCmd struct {
	choice     `embed:""`
	latestFlag `embed:""`
	All        bool     `short:"a" help:"All that it applies to."`
	Containers []string `arg:"" optional:"" name:"container" help:"Containers."`
}

// Run stops all processes of containers where they are.
func (c *PauseCmd) Run(ctx context.Context, e *Engine, out *ui.Output) error {
	names, err := e.choose(c.Containers, c.All, c.Latest, c.choice, func(s Status) bool { return s.Word == StatusRunning })
	if err != nil {
		return fmt.Errorf("pause: %w", err)
	}
	return each(e, out, "pause", names, func(ct *Config) error {
		lock, err := e.lock(ctx, ct.ID)
		if err != nil {
			return err
		}
		defer lock.Unlock()
		switch st := e.Status(ct.ID); {
		case st.Word == StatusPaused:
			return errors.New("container is paused already")
		case !st.Live():
			return ErrNotRunning
		}
		if err := e.pause(ct); err != nil {
			return err
		}
		e.event(ct, "pause", nil)
		return nil
	})
}

// pause notes that the container is to be frozen, then freezes it. Status asks the
// kernel of what has the note.
func (e *Engine) pause(c *Config) error {
	note := e.runDir(c.ID, pausedFile)
	if err := os.WriteFile(note, nil, 0o600); err != nil {
		return err
	}
	if err := e.runtime().Pause(c.ID); err != nil {
		return errors.Join(endedMeanwhile(err), ignoreMissing(os.Remove(note)))
	}
	return nil
}

// UnpauseCmd is `kist unpause`.
type UnpauseCmd struct {
	choice     `embed:""`
	latestFlag `embed:""`
	All        bool     `short:"a" help:"All that it applies to."`
	Containers []string `arg:"" optional:"" name:"container" help:"Containers."`
}

// Run lets paused containers go on.
func (c *UnpauseCmd) Run(ctx context.Context, e *Engine, out *ui.Output) error {
	names, err := e.choose(c.Containers, c.All, c.Latest, c.choice, func(s Status) bool { return s.Word == StatusPaused })
	if err != nil {
		return fmt.Errorf("unpause: %w", err)
	}
	return each(e, out, "unpause", names, func(ct *Config) error {
		lock, err := e.lock(ctx, ct.ID)
		if err != nil {
			return err
		}
		defer lock.Unlock()
		if e.Status(ct.ID).Word != StatusPaused {
			return errors.New("container is not paused")
		}
		if err := e.unpause(ct); err != nil {
			return err
		}
		e.event(ct, "unpause", nil)
		return nil
	})
}

// PortCmd is `kist port`.
type PortCmd struct {
	latestFlag `embed:""`
	All        bool   `short:"a" help:"All running containers."`
	Container  string `arg:"" optional:"" help:"Container."`
	Port       string `arg:"" optional:"" help:"Port of the container: PORT[/PROTO]."`
}

// Run lists the published ports.
func (c *PortCmd) Run(e *Engine, out *ui.Output) error {
	if c.All {
		return c.all(e, out)
	}
	ct, err := e.one(c.Container, c.Latest)
	if err != nil {
		return fmt.Errorf("%s: %w", strings.TrimSpace("port "+c.Container), err)
	}
	return c.show(e, out, ct, "")
}

func (c *PortCmd) all(e *Engine, out *ui.Output) error {
	list, err := e.list(nil, false)
	if err != nil {
		return fmt.Errorf("port: %w", err)
	}
	for _, l := range list {
		if err := c.show(e, out, l.Config, shortID(l.ID)+"\t"); err != nil {
			return err
		}
	}
	return nil
}

// show lists the ports of one container, each line after prefix.
func (c *PortCmd) show(e *Engine, out *ui.Output, ct *Config, prefix string) error {
	s, err := e.Networks.Sandbox(ct.ID)
	if err != nil {
		s = nil
	}
	want := strings.ToLower(c.Port)
	if want != "" && !strings.Contains(want, "/") {
		want += "/tcp"
	}
	found := false
	if s != nil {
		for _, p := range s.Ports {
			inside := fmt.Sprintf("%d/%s", p.ContainerPort, p.Proto)
			for _, host := range p.Hosts() {
				switch want {
				case "":
					out.Printf("%s%s -> %s\n", prefix, inside, host)
				case inside:
					out.Print(host)
					found = true
				}
			}
		}
	}
	if want != "" && !found {
		return fmt.Errorf("port %s: no public port '%s' published", c.Container, want)
	}
	return nil
}

// TopCmd is `kist top`.
type TopCmd struct {
	latestFlag `embed:""`
	Argv       []string `arg:"" optional:"" name:"container" passthrough:"" help:"Container, then options of ps."`
}

package container

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/kist-containers/kist/internal/ui"
)

// PauseCmd is `kist pause`.
type PauseCmd struct {
	Containers []string `arg:"" name:"container" help:"Containers."`
}

// Run stops all processes of containers where they are.
func (c *PauseCmd) Run(e *Engine, out *ui.Output) error {
	return each(e, out, "pause", c.Containers, func(ct *Config) error {
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

// pause freezes the container, then notes it: a note without ice would be a lie.
func (e *Engine) pause(c *Config) error {
	if err := e.runtime().Pause(c.ID); err != nil {
		return err
	}
	return os.WriteFile(e.runDir(c.ID, pausedFile), nil, 0o600)
}

// UnpauseCmd is `kist unpause`.
type UnpauseCmd struct {
	Containers []string `arg:"" name:"container" help:"Containers."`
}

// Run lets paused containers go on.
func (c *UnpauseCmd) Run(e *Engine, out *ui.Output) error {
	return each(e, out, "unpause", c.Containers, func(ct *Config) error {
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
	Container string `arg:"" help:"Container."`
	Port      string `arg:"" optional:"" help:"Port of the container: PORT[/PROTO]."`
}

// Run lists the published ports.
func (c *PortCmd) Run(e *Engine, out *ui.Output) error {
	ct, err := e.Lookup(c.Container)
	if err != nil {
		return fmt.Errorf("port %s: %w", c.Container, err)
	}
	s, err := e.Networks.Sandbox(ct.ID)
	if err != nil {
		s = nil
	}
	want := c.Port
	if want != "" && !strings.Contains(want, "/") {
		want += "/tcp"
	}
	found := false
	if s != nil {
		for _, p := range s.Ports {
			inside := fmt.Sprintf("%d/%s", p.ContainerPort, p.Proto)
			switch {
			case want == "":
				out.Printf("%s -> %s\n", inside, p.Host())
			case want == inside:
				out.Print(p.Host())
				found = true
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
	Argv []string `arg:"" name:"container" passthrough:"" help:"Container, then options of ps."`
}

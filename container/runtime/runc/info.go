package runc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/kist-containers/kist/container/runtime"
	"github.com/kist-containers/kist/internal/ui"
)

type eventsCmd struct {
	Stats    bool          `help:"Print the counters once and exit."`
	Interval time.Duration `help:"Time between counters." default:"5s"`
	ID       string        `arg:"" help:"Name of the container."`
}

type event struct {
	Type string `json:"type"`
	ID   string `json:"id"`
	Data any    `json:"data,omitempty"`
}

// Run is `events`: counters at the interval, and "oom" when the count of such
// kills has grown.
func (c *eventsCmd) Run(ctx context.Context, r *runtime.Runtime, out *ui.Output) error {
	if c.Interval <= 0 {
		return errors.New("--interval: want more than 0")
	}
	enc := json.NewEncoder(out.Out)
	oom := false
	for {
		s, err := r.State(c.ID)
		if err != nil {
			return err
		}
		if s.Status == specs.StateStopped {
			return nil
		}
		stats, err := r.Stats(c.ID)
		if err != nil {
			return err
		}
		if err := enc.Encode(event{"stats", c.ID, convertStats(stats)}); err != nil || c.Stats {
			return err
		}
		if killed, err := r.OOMKilled(c.ID); err == nil && killed && !oom {
			oom = true
			enc.Encode(event{"oom", c.ID, nil})
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(c.Interval):
		}
	}
}

type featuresCmd struct{}

// Run is `features`.
func (c *featuresCmd) Run(out *ui.Output) error { return printJSON(out, runtime.Features()) }

type specCmd struct {
	Bundle   string `short:"b" help:"Directory to write config.json to." placeholder:"DIR"`
	Rootless bool   `help:"For a user without the host's root."`
}

// Run is `spec`.
func (c *specCmd) Run() error {
	path := filepath.Join(c.Bundle, "config.json")
	data, err := json.MarshalIndent(runtime.ExampleSpec(c.Rootless), "", "\t")
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("spec: %w", err)
	}
	_, err = f.Write(append(data, '\n'))
	return errors.Join(err, f.Close())
}

package runc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/container/runtime"
	"github.com/kist-containers/kist/internal/sys"
	"github.com/kist-containers/kist/internal/ui"
)

type stateCmd struct {
	ID string `arg:"" help:"Name of the container."`
}

// stateJSON is the specification's state with what runc adds to it.
type stateJSON struct {
	specs.State
	Rootfs  string    `json:"rootfs"`
	Created time.Time `json:"created"`
	Owner   string    `json:"owner"`
}

// Run is `state`.
func (c *stateCmd) Run(r *runtime.Runtime, out *ui.Output) error {
	s, err := r.State(c.ID)
	if err != nil {
		return err
	}
	return printJSON(out, stateOf(s))
}

func stateOf(s *runtime.Status) stateJSON {
	return stateJSON{State: s.State, Rootfs: s.Rootfs, Created: s.Created}
}

func printJSON(out *ui.Output, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	out.Print(string(data))
	return nil
}

type listCmd struct {
	Format string `short:"f" help:"table or json." enum:"table,json" default:"table"`
	Quiet  bool   `short:"q" help:"Print names only."`
}

// Run is `list`.
func (c *listCmd) Run(r *runtime.Runtime, out *ui.Output) error {
	ids, err := r.List()
	if err != nil {
		return err
	}
	all := []stateJSON{}
	for _, id := range ids {
		s, err := r.State(id)
		if errors.Is(err, runtime.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		all = append(all, stateOf(s))
	}
	switch {
	case c.Quiet:
		for _, s := range all {
			out.Print(s.ID)
		}
	case c.Format == "json":
		return printJSON(out, all)
	default:
		out.Printf("%-24s %-8s %-9s %-30s %s\n", "ID", "PID", "STATUS", "BUNDLE", "CREATED")
		for _, s := range all {
			out.Printf("%-24s %-8d %-9s %-30s %s\n", s.ID, s.Pid, s.Status, s.Bundle, s.Created.Format(time.RFC3339Nano))
		}
	}
	return nil
}

type psCmd struct {
	Format string   `short:"f" help:"table or json." enum:"table,json" default:"table"`
	Words  []string `arg:"" name:"id" passthrough:"" help:"Container, then flags of ps(1)."`
}

// Run is `ps`.
func (c *psCmd) Run(ctx context.Context, r *runtime.Runtime, out *ui.Output) error {
	pids, err := r.Pids(c.Words[0])
	if err != nil {
		return err
	}
	if c.Format == "json" {
		return json.NewEncoder(out.Out).Encode(append([]int{}, pids...))
	}
	args := c.Words[1:]
	if len(args) == 0 {
		args = []string{"-ef"}
	}
	text, err := exec.CommandContext(ctx, "ps", args...).Output()
	if err != nil {
		return fmt.Errorf("ps %s: %w", strings.Join(args, " "), err)
	}
	lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	column := slices.Index(strings.Fields(lines[0]), "PID")
	if column < 0 {
		return fmt.Errorf("ps %s: no column PID", strings.Join(args, " "))
	}
	out.Print(lines[0])
	for _, line := range lines[1:] {
		fields := strings.Fields(line)
		if len(fields) <= column {
			continue
		}
		if pid, err := strconv.Atoi(fields[column]); err == nil && slices.Contains(pids, pid) {
			out.Print(line)
		}
	}
	return nil
}

type killCmd struct {
	All    bool   `short:"a" help:"Every process of the container."`
	ID     string `arg:"" help:"Name of the container."`
	Signal string `arg:"" optional:"" help:"Name or number of the signal." default:"SIGTERM"`
}

// Run is `kill`.
func (c *killCmd) Run(r *runtime.Runtime) error {
	sig, err := parseSignal(c.Signal)
	if err != nil {
		return err
	}
	err = r.Kill(c.ID, sig, c.All)
	if errors.Is(err, sys.ErrGone) {
		return fmt.Errorf("kill %s: container not running", c.ID)
	}
	return err
}

func parseSignal(text string) (unix.Signal, error) {
	if n, err := strconv.Atoi(text); err == nil && n >= 0 && n <= 64 {
		return unix.Signal(n), nil
	}
	name := strings.ToUpper(text)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if s := unix.SignalNum(name); s != 0 {
		return s, nil
	}
	return 0, fmt.Errorf("signal %q: unknown", text)
}

type deleteCmd struct {
	Force bool   `short:"f" help:"Kill it first; one that is not there is no error."`
	ID    string `arg:"" help:"Name of the container."`
}

// Run is `delete`.
func (c *deleteCmd) Run(ctx context.Context, r *runtime.Runtime) error {
	return r.Delete(ctx, c.ID, c.Force)
}

type pauseCmd struct {
	ID string `arg:"" help:"Name of the container."`
}

// Run is `pause`.
func (c *pauseCmd) Run(r *runtime.Runtime) error { return r.Pause(c.ID) }

type resumeCmd struct {
	ID string `arg:"" help:"Name of the container."`
}

// Run is `resume`.
func (c *resumeCmd) Run(r *runtime.Runtime) error { return r.Resume(c.ID) }

// checkpointCmd takes any words, so that the answer is always the same.
type checkpointCmd struct {
	Words []string `arg:"" optional:"" passthrough:"all"`
}

// Run is `checkpoint` and `restore`.
func (c *checkpointCmd) Run() error {
	return errors.New("checkpoint and restore are not supported by kist")
}

package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/container/monitor"
	"github.com/kist-containers/kist/internal/state"
	"github.com/kist-containers/kist/internal/sys"
	"github.com/kist-containers/kist/internal/ui"
)

// InitCmd is podman's `init`.
type InitCmd struct {
	latestFlag `embed:""`
	All        bool     `short:"a" help:"All containers that do not run."`
	Containers []string `arg:"" optional:"" name:"container" help:"Containers to prepare."`
}

// Run prepares containers: files, networks and a first process that waits.
func (c *InitCmd) Run(ctx context.Context, e *Engine, out *ui.Output) error {
	idle := func(s Status) bool { return s.Word == StatusCreated || s.Word == StatusExited }
	names, err := e.choose(c.Containers, c.All, c.Latest, choice{}, idle)
	if err != nil {
		return fmt.Errorf("init: %w", err)
	}
	return each(e, out, "init", names, func(ct *Config) error {
		lock, err := e.lock(ctx, ct.ID)
		if err != nil {
			return err
		}
		defer lock.Unlock()
		return e.initialize(ctx, ct)
	})
}

// initialize is Start up to the point where the program would begin. The caller
// holds the container's lock.
func (e *Engine) initialize(ctx context.Context, c *Config) error {
	switch st := e.Status(c.ID); {
	case st.Busy():
		return ErrRunning
	case st.Word == StatusInitialized:
		return errors.New("container is initialized already")
	}
	if err := e.launch(ctx, c, launch{held: true}); err != nil {
		return err
	}
	e.event(c, "init", nil)
	return nil
}

// startHeld lets the program of an initialized container go.
func (e *Engine) startHeld(ctx context.Context, c *Config, client *os.File) error {
	err := e.noteStart(c)
	if err == nil {
		err = monitor.Release(e.runDir(c.ID), client)
	}
	if err != nil {
		os.Remove(e.dataDir(c.ID, beganFile))
		err = errors.Join(e.explain(c, err), e.cleanRun(context.WithoutCancel(ctx), c))
		e.noteFailure(c, err)
		return err
	}
	e.event(c, "start", nil)
	return nil
}

// endHeld ends what waits in an initialized container, and the monitor with it.
func (e *Engine) endHeld(c *Config) {
	var st monitor.State
	if state.ReadJSON(e.runDir(c.ID, stateFile), &st) != nil || !st.Held || st.Monitor == os.Getpid() {
		return
	}
	mon := sys.Process{Pid: st.Monitor, Start: st.MonStart}
	if monitor.EndHeld(e.runDir(c.ID)) != nil {
		sys.Process{Pid: st.Pid, Start: st.PidStart}.Signal(unix.SIGKILL)
		mon.Signal(unix.SIGKILL)
	}
	// It answers before it has ended.
	for pause := time.Millisecond; mon.Alive() && pause < time.Second; pause *= 2 {
		time.Sleep(pause)
	}
}

package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/container/monitor"
	"github.com/kist-containers/kist/internal/state"
	"github.com/kist-containers/kist/internal/sys"
	"github.com/kist-containers/kist/internal/ui"
)

// running looks up a container that must run.
func (e *Engine) running(verb, name string) (*Config, error) {
	c, err := e.Lookup(name)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", verb, name, err)
	}
	if st := e.Status(c.ID); !st.Live() {
		return nil, fmt.Errorf("%s %s: %w", verb, name, ui.Hint(ErrNotRunning, "kist start %s", name))
	}
	return c, nil
}

// process is the container's first process as it was recorded.
func (e *Engine) process(id string) sys.Process {
	f := e.facts(id)
	if f.State == nil {
		return sys.Process{}
	}
	return sys.Process{Pid: f.State.Pid, Start: f.State.PidStart}
}

// signal sends sig to the container's first process; another runtime may have to
// pass it on.
func (e *Engine) signal(id string, sig unix.Signal) error {
	if c, err := e.read(id); err == nil {
		if sig != unix.SIGKILL {
			e.awaitInit(c)
		}
		if c.Runtime != "" {
			return e.runtime().Kill(id, sig, false)
		}
	}
	return e.process(id).Signal(sig)
}

// noRestart tells the monitor that a user wants the container down. A monitor
// that is gone restarts nothing.
func (e *Engine) noRestart(id string) {
	if client, err := monitor.Dial(e.runDir(id)); err == nil {
		client.Stop()
		client.Close()
	}
}

// Stop ends a container: its stop signal, then SIGKILL after timeout; a negative
// timeout waits for ever. No lock is held meanwhile.
func (e *Engine) Stop(ctx context.Context, c *Config, timeout time.Duration) error {
	st := e.Status(c.ID)
	if !st.Busy() {
		return nil
	}
	e.noRestart(c.ID)
	sig := unix.SIGTERM
	if s, err := parseSignal(c.StopSignal); err == nil {
		sig = s
	}
	if st.Word == StatusPaused {
		e.unpause(c)
	}
	p := e.process(c.ID)
	err := e.signal(c.ID, sig)
	if err == nil {
		e.event(c, "kill", map[string]string{"signal": fmt.Sprint(int(sig))})
		if !waitGone(ctx, p, timeout) {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			err = p.Signal(unix.SIGKILL)
			e.event(c, "kill", map[string]string{"signal": "9"})
		}
	}
	if err != nil && !errors.Is(err, sys.ErrGone) {
		return err
	}
	if err := e.settled(ctx, c); err != nil {
		return err
	}
	e.event(c, "stop", nil)
	return nil
}

// waitGone waits for the end of p, at most for timeout unless it is negative.
func waitGone(ctx context.Context, p sys.Process, timeout time.Duration) bool {
	f, err := p.Open()
	if err != nil {
		return true
	}
	defer f.Close()
	var deadline time.Time
	if timeout >= 0 {
		deadline = time.Now().Add(timeout)
	}
	fds := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLIN}}
	for ctx.Err() == nil {
		step := 100 * time.Millisecond
		if !deadline.IsZero() {
			left := time.Until(deadline)
			if left <= 0 {
				return !p.Alive()
			}
			step = min(step, left)
		}
		if n, _ := unix.Poll(fds, int(step.Milliseconds())+1); n > 0 {
			return true
		}
	}
	return false
}

// patience is how long what was killed may take to end.
const patience = 20 * time.Second

// settled waits until the run has ended and is cleaned up. Where its monitor was
// killed, that is done here.
func (e *Engine) settled(ctx context.Context, c *Config) error {
	f := e.facts(c.ID)
	if f.State == nil {
		return nil
	}
	m := sys.Process{Pid: f.State.Monitor, Start: f.State.MonStart}
	if !waitGone(ctx, m, patience) {
		return fmt.Errorf("its monitor (pid %d) does not end", m.Pid)
	}
	if !f.MonitorAlive {
		p := sys.Process{Pid: f.State.Pid, Start: f.State.PidStart}
		if !waitGone(ctx, p, patience) {
			return fmt.Errorf("its process (pid %d) does not end", p.Pid)
		}
	}
	return e.reconcile(ctx, c)
}

// reconcile records the end of a run whose monitor was killed, and undoes what
// the run made. It does nothing to a run that has a living process, and leaves
// it to others when another command is at the container.
func (e *Engine) reconcile(ctx context.Context, c *Config) error {
	lock, err := state.TryLock(e.Roots.Lock("container-" + c.ID))
	if errors.Is(err, state.ErrLocked) {
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.Unlock()
	f := e.facts(c.ID)
	if f.State == nil || f.InitAlive || f.MonitorAlive {
		return nil
	}
	st := statusOf(f)
	if !c.AutoRemove && st.FinishedAt.IsZero() && !st.StartedAt.IsZero() {
		exit := monitor.Exit{Version: 1, StartedAt: st.StartedAt, FinishedAt: time.Now().UTC(), ExitCode: st.ExitCode, Error: st.Error}
		if err := state.WriteJSON(e.dataDir(c.ID, exitFile), exit); err != nil {
			return err
		}
	}
	if c.AutoRemove {
		return e.remove(ctx, c, true)
	}
	return e.endRun(ctx, c)
}

// thaw lets what is paused go on, so that a signal reaches it.
func (e *Engine) thaw(c *Config) {
	if e.Status(c.ID).Word == StatusPaused {
		e.unpause(c)
	}
}

// unpause lets a paused container go on.
func (e *Engine) unpause(c *Config) error {
	if err := e.runtime().Resume(c.ID); err != nil {
		return endedMeanwhile(err)
	}
	return os.Remove(filepath.Join(e.runDir(c.ID), pausedFile))
}

package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/container/monitor"
	"github.com/kist-containers/kist/internal/state"
	"github.com/kist-containers/kist/internal/sys"
	"github.com/kist-containers/kist/internal/ui"
)

// each does f to every named container, prints the name of each that it worked
// for and tells of each that it did not.
func each(e *Engine, out *ui.Output, verb string, names []string, f func(c *Config) error) error {
	var errs []error
	for _, name := range names {
		c, err := e.Lookup(name)
		if err == nil {
			err = f(c)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s %s: %w", verb, name, err))
			continue
		}
		out.Print(name)
	}
	return together(out, errs)
}

// together tells of all errors but the last, which the caller returns.
func together(out *ui.Output, errs []error) error {
	for i, err := range errs {
		if i == len(errs)-1 {
			return err
		}
		out.Notef("%s", ui.ErrorText(err))
	}
	return nil
}

// StartCmd is `kist start`.
type StartCmd struct {
	choice      `embed:""`
	latestFlag  `embed:""`
	Attach      bool     `short:"a" help:"Attach to its output, and pass signals on."`
	Interactive bool     `short:"i" help:"Attach to its standard input."`
	DetachKeys  string   `help:"Keys that detach from a terminal (ctrl-p,ctrl-q)." placeholder:"KEYS"`
	SigProxy    bool     `negatable:"" default:"true" help:"With -a, pass signals on."`
	All         bool     `help:"All containers that do not run."`
	Checkpoint  string   `hidden:""`
	Containers  []string `arg:"" optional:"" name:"container" help:"Containers to start."`
}

// HandlesSignals says that signals are for the container.
func (c *StartCmd) HandlesSignals() {}

// Validate refuses flags that contradict each other.
func (c *StartCmd) Validate() error {
	switch {
	case (c.Attach || c.Interactive) && (len(c.Containers) > 1 || c.All || len(c.Filter) > 0):
		return errors.New("start -a and -i take one container")
	case c.Checkpoint != "":
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
	client.DetachKeys = keys
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
	return e.cleanRun(ctx, c)
}

// StopCmd is `kist stop`.
type StopCmd struct {
	choice     `embed:""`
	latestFlag `embed:""`
	Signal     string   `short:"s" help:"Signal to send instead of the container's own." placeholder:"SIGNAL"`
	Timeout    *int     `short:"t" aliases:"time" help:"Seconds to wait before SIGKILL (10); -1 waits for ever." placeholder:"SECONDS"`
	All        bool     `short:"a" help:"Stop all running containers."`
	Ignore     bool     `short:"i" help:"A container that is not there is no error."`
	Containers []string `arg:"" optional:"" name:"container" help:"Containers to stop."`
}

// Run stops containers, all at the same time.
func (c *StopCmd) Run(ctx context.Context, e *Engine, out *ui.Output) error {
	names, err := e.choose(c.Containers, c.All, c.Latest, c.choice, Status.Busy)
	if err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	return atOnce(out, names, func(name string) error {
		ct, err := e.Lookup(name)
		if errors.Is(err, ErrNotFound) && c.Ignore {
			return nil
		}
		if err != nil {
			return fmt.Errorf("stop %s: %w", name, err)
		}
		if c.Signal != "" {
			if _, err := parseSignal(c.Signal); err != nil {
				return fmt.Errorf("stop %s: --signal %s: %w", name, c.Signal, err)
			}
			ct.StopSignal = c.Signal
		}
		if c.Timeout != nil {
			ct.StopTimeoutSec = c.Timeout
		}
		if err := e.Stop(ctx, ct, ct.StopTimeout()); err != nil {
			return fmt.Errorf("stop %s: %w", name, err)
		}
		return nil
	})
}

// errSkip says that there was nothing to do, and no failure either.
var errSkip = errors.New("nothing to do")

// atOnce does f to all names at the same time and prints those that worked, in
// their order.
func atOnce(out *ui.Output, names []string, f func(name string) error) error {
	results := make([]chan error, len(names))
	slots := make(chan struct{}, 16)
	for i, name := range names {
		results[i] = make(chan error, 1)
		go func() {
			slots <- struct{}{}
			results[i] <- f(name)
			<-slots
		}()
	}
	var errs []error
	for i, name := range names {
		switch err := <-results[i]; {
		case err == nil:
			out.Print(name)
		case !errors.Is(err, errSkip):
			errs = append(errs, err)
		}
	}
	return together(out, errs)
}

// RestartCmd is `kist restart`.
type RestartCmd struct {
	choice     `embed:""`
	latestFlag `embed:""`
	Signal     string   `short:"s" help:"Signal to send instead of the container's own." placeholder:"SIGNAL"`
	Timeout    *int     `short:"t" aliases:"time" help:"Seconds to wait before SIGKILL (10); -1 waits for ever." placeholder:"SECONDS"`
	All        bool     `short:"a" help:"All containers."`
	Running    bool     `help:"All that run."`
	Containers []string `arg:"" optional:"" name:"container" help:"Containers to restart."`
}

// Run stops and starts containers.
func (c *RestartCmd) Run(ctx context.Context, e *Engine, out *ui.Output) error {
	match := Status.Busy
	if c.All {
		match = nil
	}
	names, err := e.choose(c.Containers, c.All || c.Running, c.Latest, c.choice, match)
	if err != nil {
		return fmt.Errorf("restart: %w", err)
	}
	return each(e, out, "restart", names, func(ct *Config) error {
		stopped := *ct
		if c.Timeout != nil {
			stopped.StopTimeoutSec = c.Timeout
		}
		if c.Signal != "" {
			if _, err := parseSignal(c.Signal); err != nil {
				return fmt.Errorf("--signal %s: %w", c.Signal, err)
			}
			stopped.StopSignal = c.Signal
		}
		if err := e.Stop(ctx, &stopped, stopped.StopTimeout()); err != nil {
			return err
		}
		lock, err := e.lock(ctx, ct.ID)
		if err != nil {
			return err
		}
		defer lock.Unlock()
		if err := e.Start(ctx, ct, nil, nil); err != nil {
			return err
		}
		e.event(ct, "restart", nil)
		return nil
	})
}

// KillCmd is `kist kill`.
type KillCmd struct {
	choice     `embed:""`
	latestFlag `embed:""`
	Signal     string   `short:"s" default:"KILL" help:"Signal to send." placeholder:"SIGNAL"`
	All        bool     `short:"a" help:"All running containers."`
	Containers []string `arg:"" optional:"" name:"container" help:"Containers to signal."`
}

// Run sends a signal to the first process of containers.
func (c *KillCmd) Run(ctx context.Context, e *Engine, out *ui.Output) error {
	sig, err := parseSignal(c.Signal)
	if err != nil {
		return fmt.Errorf("kill: --signal %s: %w", c.Signal, err)
	}
	names, err := e.choose(c.Containers, c.All, c.Latest, c.choice, Status.Live)
	if err != nil {
		return fmt.Errorf("kill: %w", err)
	}
	return each(e, out, "kill", names, func(ct *Config) error {
		if !e.Status(ct.ID).Live() {
			return ErrNotRunning
		}
		if sig == unix.SIGKILL {
			e.noRestart(ct.ID)
		}
		if sig == unix.SIGKILL {
			e.thaw(ct)
		}
		if err := e.signal(ct.ID, sig); err != nil {
			return err
		}
		e.event(ct, "kill", map[string]string{"signal": fmt.Sprint(int(sig))})
		if sig == unix.SIGKILL {
			return e.settled(ctx, ct)
		}
		return nil
	})
}

// RmCmd is `kist rm`.
type RmCmd struct {
	choice     `embed:""`
	Force      bool     `short:"f" help:"Kill what runs; a container that is not there is no error."`
	Volumes    bool     `short:"v" help:"Remove its anonymous volumes too."`
	All        bool     `short:"a" help:"All containers."`
	Latest     bool     `help:"The container that was created last."`
	Ignore     bool     `short:"i" help:"A container that is not there is no error."`
	Depend     bool     `help:"Remove those that share its namespaces too."`
	Link       bool     `short:"l" hidden:""`
	Time       *int     `short:"t" help:"With -f, seconds to wait before SIGKILL (0)." placeholder:"SECONDS"`
	Containers []string `arg:"" optional:"" name:"container" help:"Containers to remove."`
}

// Run removes containers.
func (c *RmCmd) Run(ctx context.Context, e *Engine, out *ui.Output) error {
	if c.Link {
		return errors.New("rm --link: kist has no links; containers of one network find each other by name")
	}
	names, err := e.choose(c.Containers, c.All, c.Latest, c.choice, nil)
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

// WaitCmd is `kist wait`.
type WaitCmd struct {
	Condition  string `default:"stopped" enum:"stopped,exited,not-running,removed,removing,next-exit,created,configured,initialized,paused,stopping,running,healthy,unhealthy" help:"What to wait for: stopped, removed, next-exit, running, paused, created, healthy, unhealthy."`
	Interval   string `hidden:""`
	latestFlag `embed:""`
	Ignore     bool     `short:"i" help:"A container that is not there counts as ended with -1."`
	Containers []string `arg:"" optional:"" name:"container" help:"Containers to wait for."`
}

// Run prints the exit code of each container when it has ended.
func (c *WaitCmd) Run(ctx context.Context, e *Engine, out *ui.Output) error {
	names, err := e.choose(c.Containers, false, c.Latest, choice{}, nil)
	if err != nil {
		return fmt.Errorf("wait: %w", err)
	}
	var errs []error
	for _, name := range names {
		ct, err := e.Lookup(name)
		if errors.Is(err, ErrNotFound) && c.Ignore {
			out.Print(-1)
			continue
		}
		var code int
		if err == nil {
			code, err = e.await(ctx, ct.ID, c.Condition)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("wait %s: %w", name, err))
			continue
		}
		out.Print(code)
	}
	return together(out, errs)
}

// await waits for a condition and returns the exit code, 0 while it runs.
func (e *Engine) await(ctx context.Context, id, condition string) (int, error) {
	client, _ := monitor.Dial(e.runDir(id))
	if client != nil && (condition == "stopped" || condition == "exited" || condition == "not-running" || condition == "removed") {
		// The monitor knows best: it tells the code even of a container that is
		// removed with its exit.
		code, err := client.Run(ctx, condition == "removed")
		client.Close()
		if err == nil || ctx.Err() != nil {
			return code, ctx.Err()
		}
	}
	ran := false
	for {
		st := e.Status(id)
		_, err := e.read(id)
		switch gone := errors.Is(err, ErrNotFound); {
		case gone && condition == "removed":
			return st.ExitCode, nil
		case gone:
			return 0, ErrNotFound
		case condition == "running" && st.Live(), condition == st.Health && st.Health != "", condition == StatusPaused && st.Word == StatusPaused:
			return 0, nil
		case (condition == "created" || condition == "configured" || condition == "initialized") && err == nil:
			return 0, nil
		case condition == "next-exit":
			if ran = ran || st.Live(); ran && !st.Busy() {
				return st.ExitCode, nil
			}
		case (condition == "stopped" || condition == "exited" || condition == "not-running" || condition == "stopping" || condition == "removing") && !st.Busy():
			return st.ExitCode, nil
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
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

// thaw lets what is paused go on, so that a signal reaches it.
func (e *Engine) thaw(c *Config) {
	if e.Status(c.ID).Word == StatusPaused {
		e.unpause(c)
	}
}

// unpause lets a paused container go on.
func (e *Engine) unpause(c *Config) error {
	if err := e.runtime().Resume(c.ID); err != nil {
		return err
	}
	return os.Remove(filepath.Join(e.runDir(c.ID), pausedFile))
}

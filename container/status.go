package container

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/kist-containers/kist/container/monitor"
	"github.com/kist-containers/kist/internal/state"
	"github.com/kist-containers/kist/internal/sys"
	"github.com/kist-containers/kist/internal/ui"
)

// Status words: docker's.
const (
	StatusCreated    = "created"
	StatusRunning    = "running"
	StatusPaused     = "paused"
	StatusRestarting = "restarting"
	StatusExited     = "exited"
	// StatusInitialized is podman's: all is there, and the program waits.
	StatusInitialized = "initialized"
)

// Facts are what is written of a container's runs and what the kernel says of
// its processes.
type Facts struct {
	State *monitor.State
	Exit  *monitor.Exit
	// InitAlive and MonitorAlive are the kernel's answers about the recorded
	// processes.
	InitAlive, MonitorAlive bool
	Paused                  bool
}

// lostExit is the exit code of a run whose end nobody saw: the machine went
// down, or the monitor was killed. docker: 255 after the daemon was killed.
const lostExit = 255

// Status is what a container is, a pure function of its facts.
type Status struct {
	Word       string
	ExitCode   int
	Error      string
	OOMKilled  bool
	StartedAt  time.Time
	FinishedAt time.Time
	Pid        int
	Restarts   int
	Health     string
}

// statusOf decides. A run began if there is a state file with a start time; it
// has ended properly if the exit file is of that run or a later one.
func statusOf(f Facts) Status {
	s := Status{Word: StatusCreated}
	if f.Exit != nil {
		s = Status{Word: StatusExited, ExitCode: f.Exit.ExitCode, Error: f.Exit.Error, OOMKilled: f.Exit.OOMKilled,
			StartedAt: f.Exit.StartedAt, FinishedAt: f.Exit.FinishedAt, Restarts: f.Exit.Restarts}
		if f.Exit.NeverRan {
			s.Word = StatusCreated
		}
	}
	if f.State != nil && f.State.Held && f.InitAlive && f.MonitorAlive {
		s.Word, s.Pid = StatusInitialized, f.State.Pid
		return s
	}
	if f.State == nil || f.State.StartedAt.IsZero() {
		return s
	}
	switch {
	case f.InitAlive && f.Paused:
		s.Word = StatusPaused
	case f.InitAlive:
		s.Word = StatusRunning
	case f.MonitorAlive && f.State.Restarting:
		s.Word, s.Restarts = StatusRestarting, f.State.Restarts
		return s
	case f.Exit != nil && !f.Exit.StartedAt.Before(f.State.StartedAt):
		return s
	case f.MonitorAlive:
		s.Word = StatusRunning // its monitor is about to say how it ended
	default:
		// It ran, and nobody recorded its end.
		return Status{Word: StatusExited, ExitCode: lostExit, StartedAt: f.State.StartedAt,
			Error: "its monitor was killed, so the exit code is not known"}
	}
	s.Pid, s.StartedAt, s.FinishedAt, s.Restarts = f.State.Pid, f.State.StartedAt, time.Time{}, f.State.Restarts
	s.ExitCode, s.OOMKilled, s.Error = 0, false, ""
	if !f.MonitorAlive {
		s.Error = "its monitor was killed: output is lost and its exit code will not be known"
	}
	return s
}

// Live reports whether there is a process.
func (s Status) Live() bool { return s.Word == StatusRunning || s.Word == StatusPaused }

// HasProcess reports whether there is a process that sees the container's files,
// though it may not have begun.
func (s Status) HasProcess() bool { return s.Live() || s.Word == StatusInitialized }

// Busy reports whether the container runs or is about to run again.
func (s Status) Busy() bool { return s.Live() || s.Word == StatusRestarting }

// facts gathers what statusOf decides on. Paused is asked only of what runs.
func (e *Engine) facts(id string) Facts {
	var f Facts
	var st monitor.State
	if state.ReadJSON(e.runDir(id, stateFile), &st) == nil {
		f.State = &st
		f.InitAlive = sys.Process{Pid: st.Pid, Start: st.PidStart}.Alive()
		f.MonitorAlive = sys.Process{Pid: st.Monitor, Start: st.MonStart}.Alive()
	}
	var exit monitor.Exit
	if state.ReadJSON(e.dataDir(id, exitFile), &exit) == nil {
		f.Exit = &exit
	}
	if f.State != nil {
		var kept monitor.Exit // where the other could not be written
		if state.ReadJSON(e.runDir(id, exitFile), &kept) == nil && (f.Exit == nil || kept.StartedAt.After(exit.StartedAt)) {
			f.Exit = &kept
		}
	}
	return f
}

// Status asks what the container is now.
func (e *Engine) Status(id string) Status {
	f := e.facts(id)
	if f.InitAlive {
		f.Paused = e.paused(id)
	}
	s := statusOf(f)
	if s.Live() {
		if h, err := monitor.ReadHealth(e.runDir(id)); err == nil {
			s.Health = h.Status
		}
	}
	if f.State == nil {
		e.lostInReboot(id, &s)
	}
	return s
}

// pausedFile stands while the container may be paused.
const pausedFile = "paused"

// paused asks the kernel, which costs several files, of a container with the note
// only.
func (e *Engine) paused(id string) bool {
	if _, err := os.Stat(e.runDir(id, pausedFile)); err != nil {
		return false
	}
	st, err := e.runtime().State(id)
	return err == nil && st.Status == "paused"
}

// lostInReboot notices a run of before the last boot: the start was noted beside
// the configuration, and neither its state nor its end is there.
func (e *Engine) lostInReboot(id string, s *Status) {
	var began monitor.State
	err := state.ReadJSON(e.dataDir(id, beganFile), &began)
	if errors.Is(err, fs.ErrNotExist) || err != nil || !began.StartedAt.After(s.StartedAt) {
		return
	}
	*s = Status{Word: StatusExited, ExitCode: lostExit, StartedAt: began.StartedAt, Error: "the machine went down while it ran"}
}

// beganFile notes a start in the tree that survives a reboot.
const beganFile = "began.json"

// Text is the STATUS column.
func (s Status) Text(now time.Time) string {
	switch s.Word {
	case StatusCreated:
		return "Created"
	case StatusInitialized:
		return "Initialized"
	case StatusRestarting:
		return fmt.Sprintf("Restarting (%d) %s ago", s.ExitCode, ui.Duration(now.Sub(s.FinishedAt)))
	case StatusExited:
		if s.FinishedAt.IsZero() {
			return fmt.Sprintf("Exited (%d)", s.ExitCode)
		}
		return fmt.Sprintf("Exited (%d) %s ago", s.ExitCode, ui.Duration(now.Sub(s.FinishedAt)))
	}
	up := "Up " + ui.Duration(now.Sub(s.StartedAt))
	switch {
	case s.Word == StatusPaused:
		return up + " (Paused)"
	case s.Health == monitor.HealthStarting:
		return up + " (health: starting)"
	case s.Health != "":
		return up + " (" + s.Health + ")"
	}
	return up
}

// Monitors lists the monitors that are recorded, living or not.
func (e *Engine) Monitors() []sys.Process {
	entries, err := os.ReadDir(e.runDir())
	if err != nil {
		return nil
	}
	var list []sys.Process
	for _, entry := range entries {
		var st monitor.State
		if state.ReadJSON(e.runDir(entry.Name(), stateFile), &st) == nil {
			list = append(list, sys.Process{Pid: st.Monitor, Start: st.MonStart})
		}
	}
	return list
}

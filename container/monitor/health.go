package monitor

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/container/runtime"
	"github.com/kist-containers/kist/internal/state"
)

// Health states: docker's.
const (
	HealthStarting  = "starting"
	HealthHealthy   = "healthy"
	HealthUnhealthy = "unhealthy"
)

// HealthState is <runDir>/health.json.
type HealthState struct {
	Version       int           `json:"version"`
	Status        string        `json:"status"`
	FailingStreak int           `json:"failingStreak"`
	Log           []ProbeResult `json:"log,omitempty"`
}

// ProbeResult is one run of the probe.
type ProbeResult struct {
	Start    time.Time `json:"start"`
	End      time.Time `json:"end"`
	ExitCode int       `json:"exitCode"`
	Output   string    `json:"output"`
}

// Bounds of what is kept of probes.
const (
	keptProbes  = 5
	keptOutput  = 4096
	healthFile  = "health.json"
	probeFailed = -1 // exit code of a probe that ran out of time
)

func (h Health) withDefaults() Health {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&h.Interval, 30*time.Second)
	def(&h.Timeout, 30*time.Second)
	def(&h.StartInterval, 5*time.Second)
	if h.Retries == 0 {
		h.Retries = 3
	}
	if h.MaxLog == 0 {
		h.MaxLog = keptProbes
	}
	if h.MaxOutput == 0 {
		h.MaxOutput = keptOutput
	}
	return h
}

// watchHealth probes the container until ctx ends.
func (m *monitor) watchHealth(ctx context.Context) {
	h := m.Health.withDefaults()
	s := HealthState{Version: 1, Status: HealthStarting}
	m.saveHealth(s)
	if h.Startup != nil && !m.untilStarted(ctx, h.Startup) {
		return
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(h.pause(s, time.Since(m.began))):
		}
		r := m.probe(ctx, h)
		if ctx.Err() != nil {
			return
		}
		before := s.Status
		s = h.after(s, r, r.Start.Sub(m.began))
		m.saveHealth(s)
		if s.Status == HealthUnhealthy && before != HealthUnhealthy {
			m.unhealthy(h.OnFailure)
		}
		if s.Status == HealthHealthy && before != s.Status && m.Notify.Who == NotifyHealthy {
			m.Notify.ready()
		}
		if s.Status != before {
			m.event("health_status: "+s.Status, nil)
		}
	}
}

// pause is the time to the next probe.
func (h Health) pause(s HealthState, up time.Duration) time.Duration {
	if s.Status == HealthStarting && up < h.StartPeriod {
		return h.StartInterval
	}
	return h.Interval
}

// after is the state after a probe that began at up: failures within the start
// period do not count, a success ends it.
func (h Health) after(s HealthState, r ProbeResult, up time.Duration) HealthState {
	h = h.withDefaults()
	s.Log = append(s.Log[max(0, len(s.Log)-h.MaxLog+1):len(s.Log):len(s.Log)], r)
	switch {
	case r.ExitCode == 0:
		s.Status, s.FailingStreak = HealthHealthy, 0
	case s.Status == HealthStarting && up < h.StartPeriod:
	default:
		if s.FailingStreak++; s.FailingStreak >= h.Retries {
			s.Status = HealthUnhealthy
		}
	}
	return s
}

// unhealthy does what --health-on-failure says. To restart is to end the run and
// begin the next whatever the policy says.
func (m *monitor) unhealthy(action string) {
	switch action {
	case "kill":
		m.init.Signal(unix.SIGKILL)
	case "stop", "restart":
		if action == "stop" {
			m.stopped.Store(true)
		} else {
			m.wanted.Store(true)
		}
		m.signal(stopSignal(m.StopSignal))
		init := m.init
		time.AfterFunc(max(m.StopTimeout, time.Second), func() { init.Signal(unix.SIGKILL) })
	}
}

func (m *monitor) saveHealth(s HealthState) {
	state.WriteVolatileJSON(filepath.Join(m.RunDir, healthFile), s)
	if dir := m.Health.LogDir; dir != "" {
		state.WriteJSON(filepath.Join(dir, m.ID+"-healthcheck.log"), s)
	}
}

// ReadHealth reads what the monitor last found; os.ErrNotExist without a check.
func ReadHealth(runDir string) (s HealthState, err error) {
	return s, state.ReadJSON(filepath.Join(runDir, healthFile), &s)
}

// probe runs the check once, as an exec session of the container's own user.
func (m *monitor) probe(ctx context.Context, h Health) ProbeResult {
	r := ProbeResult{Start: time.Now().UTC()}
	m.probing.Lock()
	code, out, err := Probe(ctx, m.run, m.ID, m.Bundle, h)
	m.probing.Unlock()
	r.End, r.ExitCode, r.Output = time.Now().UTC(), code, out
	if err != nil {
		r.ExitCode, r.Output = probeFailed, err.Error()
	}
	return r
}

// Probe runs a health check's command in a container and returns its exit code
// and the beginning of its output.
func Probe(ctx context.Context, run *runtime.Runtime, id, bundle string, h Health) (int, string, error) {
	spec, err := runtime.ReadSpec(filepath.Join(bundle, "config.json"))
	if err != nil {
		return probeFailed, "", err
	}
	proc := *spec.Process
	proc.Terminal, proc.Args = false, h.command()
	r, w, err := os.Pipe()
	if err != nil {
		return probeFailed, "", err
	}
	defer r.Close()
	p, err := run.Exec(ctx, id, &proc, runtime.ExecOptions{Stdout: w, Stderr: w, Seccomp: spec.Linux.Seccomp})
	w.Close()
	if err != nil {
		return probeFailed, "", err
	}
	timer := time.AfterFunc(h.withDefaults().Timeout, func() {
		unix.Kill(-p.Pid(), unix.SIGKILL)
		r.SetReadDeadline(time.Now())
	})
	defer timer.Stop()
	out := readSome(r, h.withDefaults().MaxOutput)
	status, err := waitFor(p.Pid())
	if err != nil {
		return probeFailed, out, err
	}
	if status.Signaled() {
		return probeFailed, out, errors.New("health check exceeded its timeout")
	}
	return status.ExitStatus(), out, nil
}

// readSome keeps the beginning of what comes and reads the rest away.
func readSome(r *os.File, most int) string {
	var kept []byte
	buf := make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		kept = append(kept, buf[:min(n, most-len(kept))]...)
		if err != nil {
			return string(kept)
		}
	}
}

// command is the argv of the check.
func (h Health) command() []string {
	switch {
	case len(h.Test) > 1 && h.Test[0] == "CMD-SHELL":
		return []string{"/bin/sh", "-c", h.Test[1]}
	case len(h.Test) > 1 && h.Test[0] == "CMD":
		return h.Test[1:]
	}
	return h.Test
}

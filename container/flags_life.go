package container

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/container/monitor"
)

type lifeFlags struct {
	Timeout       uint   `help:"Seconds until the container is killed." placeholder:"SECONDS"`
	Sdnotify      string `default:"container" help:"Who tells systemd that it is ready: container, conmon, healthy or ignore." placeholder:"WHO"`
	ConmonPidfile string `name:"conmon-pidfile" help:"Write the monitor's number to a file." placeholder:"FILE"`
	Rm            bool   `help:"Remove the container after its exit."`
	Restart       string `default:"no" help:"no, always, unless-stopped or on-failure[:N]." placeholder:"POLICY"`
	StopSignal    string `help:"Signal that stops it (SIGTERM)." placeholder:"SIGNAL"`
	StopTimeout   *int   `help:"Seconds from the stop signal to SIGKILL (10)." placeholder:"SECONDS"`
	healthFlags   `embed:""`
	LogDriver     string   `help:"Where its output is kept: json-file, local, journald, syslog or none." placeholder:"DRIVER"`
	LogOpt        []string `sep:"none" help:"Option of the log driver: max-size=10m, max-file=3." placeholder:"KEY=VALUE"`
}

type healthFlags struct {
	HealthCmd             string        `help:"Command that checks its health." placeholder:"COMMAND"`
	HealthInterval        time.Duration `help:"Time between two checks (30s)."`
	HealthTimeout         time.Duration `help:"Time a check may take (30s)."`
	HealthStartPeriod     time.Duration `help:"Time to get ready, in which failures do not count."`
	HealthStartInterval   time.Duration `help:"Time between two checks in the start period (5s)."`
	HealthRetries         int           `help:"Failures in a row that make it unhealthy (3)."`
	HealthOnFailure       string        `help:"What to do once it is unhealthy: none, kill, stop or restart." placeholder:"ACTION"`
	HealthStartupCmd      string        `help:"Command that checks whether it has started; other checks wait for it." placeholder:"COMMAND"`
	HealthStartupInterval time.Duration `help:"Time between two startup checks (30s)."`
	HealthStartupTimeout  time.Duration `help:"Time a startup check may take (30s)."`
	HealthStartupRetries  int           `help:"Failed startup checks after which it is restarted; 0 for never." placeholder:"N"`
	HealthStartupSuccess  int           `help:"Startup checks that must succeed (1)." placeholder:"N"`
	HealthLogDestination  string        `help:"Where results are kept too: local for nowhere else, or a directory." placeholder:"DIR"`
	HealthMaxLogCount     int           `help:"How many results are kept (5)." placeholder:"N"`
	HealthMaxLogSize      int           `help:"How many bytes of a check's output are kept (4096)." placeholder:"N"`
	NoHealthcheck         bool          `name:"no-healthcheck" help:"Do not check its health."`
}

func (f *createFlags) life(c *Config) error {
	c.AutoRemove, c.StopTimeoutSec = f.Rm || f.Rmi, f.StopTimeout
	c.RemoveImage, c.TimeoutSec = f.Rmi, f.Timeout
	var err error
	if c.Notify, err = parseNotify(f.Sdnotify); err != nil {
		return err
	}
	if f.ConmonPidfile != "" {
		if c.MonitorPidFile, err = filepath.Abs(f.ConmonPidfile); err != nil {
			return err
		}
	}
	if f.StopSignal != "" {
		if _, err := parseSignal(f.StopSignal); err != nil {
			return fmt.Errorf("--stop-signal %s: %w", f.StopSignal, err)
		}
		c.StopSignal = f.StopSignal
	}
	if c.Restart, err = parseRestart(f.Restart); err != nil {
		return err
	}
	if c.AutoRemove && c.Restart.Name != "" {
		return errors.New("--rm and --restart contradict each other")
	}
	c.Log = monitor.LogConfig{Driver: f.LogDriver, Options: pairs(f.LogOpt)}
	if err := c.checkLog(); err != nil {
		return err
	}
	if err := f.health(c); err != nil {
		return err
	}
	return c.checkStartup()
}

// checkStartup refuses times of a startup check that has no command, which update
// may have of an earlier one.
func (c *Config) checkStartup() error {
	if c.Health != nil && c.Health.Startup != nil && len(c.Health.Startup.Test) == 0 {
		return errors.New("--health-startup-…: needs --health-startup-cmd too")
	}
	return nil
}

func (f *createFlags) health(c *Config) error {
	h := &monitor.Health{Interval: f.HealthInterval, Timeout: f.HealthTimeout, StartPeriod: f.HealthStartPeriod,
		StartInterval: f.HealthStartInterval, Retries: f.HealthRetries,
		OnFailure: f.HealthOnFailure, MaxLog: f.HealthMaxLogCount, MaxOutput: f.HealthMaxLogSize}
	if err := f.startup(h); err != nil {
		return err
	}
	given := f.HealthCmd != "" || h.Interval != 0 || h.Timeout != 0 || h.StartPeriod != 0 || h.StartInterval != 0 || h.Retries != 0 ||
		h.OnFailure != "" || h.MaxLog != 0 || h.MaxOutput != 0 || h.Startup != nil || h.LogDir != ""
	switch {
	case f.NoHealthcheck && given:
		return errors.New("--no-healthcheck and --health-… contradict each other")
	case f.NoHealthcheck:
		c.Health = &monitor.Health{Test: []string{"NONE"}}
	case given:
		if f.HealthCmd != "" {
			h.Test = []string{"CMD-SHELL", f.HealthCmd}
			if f.HealthCmd == "none" {
				h.Test = []string{"NONE"}
			}
		}
		for _, d := range []time.Duration{h.Interval, h.Timeout, h.StartPeriod, h.StartInterval} {
			if d < 0 || d > 0 && d < time.Millisecond {
				return errors.New("--health-…: a duration must be at least 1ms")
			}
		}
		if !slices.Contains([]string{"", "none", "kill", "stop", "restart"}, h.OnFailure) {
			return fmt.Errorf("--health-on-failure %s: want none, kill, stop or restart", h.OnFailure)
		}
		if h.MaxLog < 0 || h.MaxOutput < 0 {
			return errors.New("--health-max-log-count, --health-max-log-size: must not be negative")
		}
		if h.Retries < 0 {
			return errors.New("--health-retries: must not be negative")
		}
		c.Health = h
	}
	return nil
}

// startup reads the flags of the startup check and of the results' directory.
func (f *healthFlags) startup(h *monitor.Health) (err error) {
	s := monitor.Startup{Interval: f.HealthStartupInterval, Timeout: f.HealthStartupTimeout, Retries: f.HealthStartupRetries, Success: f.HealthStartupSuccess}
	switch {
	case f.HealthStartupCmd != "":
		s.Test = []string{"CMD-SHELL", f.HealthStartupCmd}
		h.Startup = &s
	case s.Interval != 0 || s.Timeout != 0 || s.Retries != 0 || s.Success != 0:
		h.Startup = &s
	}
	if s.Interval < 0 || s.Timeout < 0 || s.Retries < 0 || s.Success < 0 {
		return errors.New("--health-startup-…: must not be negative")
	}
	switch f.HealthLogDestination {
	case "", "local":
	case "events_logger":
		return errors.New("--health-log-destination events_logger: kist's events tell of changes only; give a directory")
	default:
		if h.LogDir, err = filepath.Abs(f.HealthLogDestination); err != nil {
			return err
		}
		if st, err := os.Stat(h.LogDir); err != nil || !st.IsDir() {
			return fmt.Errorf("--health-log-destination %s: not a directory", f.HealthLogDestination)
		}
	}
	return nil
}

func parseRestart(s string) (monitor.RestartPolicy, error) {
	name, count, hasCount := strings.Cut(s, ":")
	p := monitor.RestartPolicy{Name: name}
	switch {
	case name == "" || name == "no" && !hasCount:
		p.Name = ""
	case (name == "always" || name == "unless-stopped") && !hasCount:
	case name == "on-failure":
		if hasCount {
			n, err := strconv.Atoi(count)
			if err != nil || n < 0 {
				return p, fmt.Errorf("--restart %s: %q is not a number of tries", s, count)
			}
			p.MaximumRetryCount = n
		}
	default:
		return p, fmt.Errorf("--restart %s: want no, always, unless-stopped or on-failure[:N]", s)
	}
	return p, nil
}

// parseSignal reads TERM, SIGTERM, RTMIN+3 or a number.
func parseSignal(s string) (unix.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil {
		if n < 1 || n > 64 {
			return 0, errors.New("no such signal")
		}
		return unix.Signal(n), nil
	}
	name := "SIG" + strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if sig := unix.SignalNum(name); sig != 0 {
		return sig, nil
	}
	const rtmin, rtmax = 34, 64
	for prefix, base := range map[string]int{"SIGRTMIN": rtmin, "SIGRTMAX": rtmax} {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			n := 0
			if rest != "" {
				var err error
				if n, err = strconv.Atoi(rest); err != nil {
					continue
				}
			}
			if sig := base + n; sig >= rtmin && sig <= rtmax {
				return unix.Signal(sig), nil
			}
		}
	}
	return 0, errors.New("no such signal")
}

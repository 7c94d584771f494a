package container

import (
	"context"
	"fmt"
	"os"
	"slices"

	"github.com/kist-containers/kist/internal/state"
)

// UnitLabel is set to the systemd unit that a container was made in, which tells
// kist run by a variable of that name. Podman's is understood too.
const (
	UnitLabel       = "KIST_SYSTEMD_UNIT"
	PodmanUnitLabel = "PODMAN_SYSTEMD_UNIT"
)

// noteOrigin remembers the command line, for a unit that repeats it, and the unit
// that it ran in.
func (c *Config) noteOrigin(args []string) {
	verb := func(a string) bool { return a == "run" || a == "create" }
	if i := slices.IndexFunc(args, verb); i >= 0 {
		c.CreateCommand = args[i+1:]
	}
	for _, name := range []string{UnitLabel, PodmanUnitLabel} {
		if unit := os.Getenv(name); unit != "" {
			if c.Labels == nil {
				c.Labels = map[string]string{}
			}
			c.Labels[name] = unit
		}
	}
}

// MonitorFile makes the container's monitor write its number into a file, from
// the next start on, and returns which. That of one that runs is written now.
func (e *Engine) MonitorFile(ctx context.Context, id string) (string, error) {
	lock, err := e.lock(ctx, id)
	if err != nil {
		return "", err
	}
	defer lock.Unlock()
	c, err := e.read(id)
	if err != nil || c.MonitorPidFile != "" {
		return c.MonitorPidFile, err
	}
	c.MonitorPidFile = e.runDir(id, "monitor.pid")
	if f := e.facts(id); f.MonitorAlive {
		if err := state.WriteFile(c.MonitorPidFile, fmt.Appendf(nil, "%d", f.State.Monitor), 0o644); err != nil {
			return "", err
		}
	}
	return c.MonitorPidFile, e.write(c)
}

// All lists the containers, the newest first.
func (e *Engine) All() ([]*Config, error) { return e.all() }

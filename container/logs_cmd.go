package container

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/kist-containers/kist/container/monitor"
	"github.com/kist-containers/kist/internal/sys"
	"github.com/kist-containers/kist/internal/ui"
)

// LogsCmd is `kist logs`.
type LogsCmd struct {
	Follow     bool   `short:"f" help:"Go on until the container ends."`
	Since      string `help:"Show what came after: a time, or a duration before now." placeholder:"TIME"`
	Until      string `help:"Show what came before: a time, or a duration before now." placeholder:"TIME"`
	Tail       string `short:"n" default:"all" help:"Show so many of the last lines." placeholder:"N"`
	Timestamps bool   `short:"t" help:"Show the time of each line."`
	Details    bool   `help:"Show the attributes of each line."`
	Container  string `arg:"" help:"Container."`
}

// Run shows the log.
func (c *LogsCmd) Run(ctx context.Context, e *Engine, out *ui.Output) error {
	ct, err := e.Lookup(c.Container)
	if err != nil {
		return fmt.Errorf("logs %s: %w", c.Container, err)
	}
	o, err := c.options(time.Now())
	if err != nil {
		return fmt.Errorf("logs: %w", err)
	}
	o.Alive = func() bool { return e.loggedBy(ct.ID) }
	var stderr io.Writer = out.Err
	if ct.Tty {
		stderr = out.Out
	}
	if err := monitor.ReadLogs(ctx, ct.logConfig(e), o, out.Out, stderr); err != nil && ctx.Err() == nil {
		return fmt.Errorf("logs %s: %w", c.Container, err)
	}
	return nil
}

// loggedBy reports whether a monitor may still write the log: it outlives the
// container's last process by what is left in the pipes.
func (e *Engine) loggedBy(id string) bool {
	f := e.facts(id)
	return f.State != nil && sys.Process{Pid: f.State.Monitor, Start: f.State.MonStart}.Alive()
}

func (c *LogsCmd) options(now time.Time) (o monitor.ReadOptions, err error) {
	o = monitor.ReadOptions{Follow: c.Follow, Timestamps: c.Timestamps, Details: c.Details, Tail: -1}
	if c.Since != "" {
		if o.Since, err = ui.ParseTime(c.Since, now); err != nil {
			return o, fmt.Errorf("--since: %w", err)
		}
	}
	if c.Until != "" {
		if o.Until, err = ui.ParseTime(c.Until, now); err != nil {
			return o, fmt.Errorf("--until: %w", err)
		}
	}
	if c.Tail != "all" && c.Tail != "" {
		n, err := strconv.Atoi(c.Tail)
		if err != nil {
			return o, fmt.Errorf("--tail %s: want a number or all", c.Tail)
		}
		o.Tail = max(n, -1)
	}
	return o, nil
}

package container

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

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
	Names      bool   `help:"Begin each line with the container's name."`
	Color      bool   `help:"Begin each line with the container's name, in a color of its own."`
	latestFlag `embed:""`
	Containers []string `arg:"" optional:"" name:"container" help:"Containers."`
}

// Run shows the log. Of several containers it shows one after the other, or with
// -f all at once, each line with its container's name.
func (c *LogsCmd) Run(ctx context.Context, e *Engine, out *ui.Output) error {
	names, err := e.choose(c.Containers, false, c.Latest, choice{}, nil)
	if err != nil {
		return fmt.Errorf("logs: %w", err)
	}
	o, err := c.options(time.Now())
	if err != nil {
		return fmt.Errorf("logs: %w", err)
	}
	list := make([]*Config, len(names))
	for i, name := range names {
		if list[i], err = e.Lookup(name); err != nil {
			return fmt.Errorf("logs %s: %w", name, err)
		}
	}
	var group errgroup.Group
	if !c.Follow {
		group.SetLimit(1)
	}
	var turn sync.Mutex
	for i, ct := range list {
		var stdout, stderr io.Writer = out.Out, out.Err
		if ct.Tty {
			stderr = stdout
		}
		end := func() {}
		if c.Names || c.Color || len(list) > 1 {
			a := &prefixed{w: stdout, turn: &turn, prefix: c.prefix(ct.Name, i)}
			b := &prefixed{w: stderr, turn: &turn, prefix: a.prefix}
			stdout, stderr, end = a, b, func() { a.end(); b.end() }
		}
		group.Go(func() error {
			defer end()
			o := o
			o.Alive = func() bool { return e.loggedBy(ct.ID) }
			if err := monitor.ReadLogs(ctx, ct.logConfig(e), o, stdout, stderr); err != nil && ctx.Err() == nil {
				return fmt.Errorf("logs %s: %w", ct.Name, err)
			}
			return nil
		})
	}
	return group.Wait()
}

// prefix is what the lines of the i-th container begin with.
func (c *LogsCmd) prefix(name string, i int) string {
	if !c.Color {
		return name + " "
	}
	const colors = 6 // from red on; see console_codes(4)
	return fmt.Sprintf("\x1b[%dm%s\x1b[0m ", 31+i%colors, name)
}

// prefixed writes whole lines, each with a prefix, in turn with others.
type prefixed struct {
	w      io.Writer
	turn   *sync.Mutex
	prefix string
	part   []byte // of a line that has no end yet
}

func (p *prefixed) Write(data []byte) (int, error) {
	p.part = append(p.part, data...)
	for {
		i := bytes.IndexByte(p.part, '\n')
		if i < 0 {
			return len(data), nil
		}
		line := p.part[:i+1]
		p.part = p.part[i+1:]
		p.turn.Lock()
		_, err := p.w.Write(append([]byte(p.prefix), line...))
		p.turn.Unlock()
		if err != nil {
			return 0, err
		}
	}
}

// end completes a last line that has no end.
func (p *prefixed) end() {
	if len(p.part) > 0 {
		p.Write([]byte("\n"))
	}
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

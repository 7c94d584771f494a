package container

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kist-containers/kist/internal/ui"
)

// StatsCmd is `kist stats`.
type StatsCmd struct {
	All        bool    `short:"a" help:"Show stopped containers too."`
	Format     string  `help:"Format by a template, table or json." placeholder:"TEMPLATE"`
	Interval   float64 `short:"i" default:"1" help:"Seconds between two results." placeholder:"SECONDS"`
	latestFlag `embed:""`
	NoReset    bool     `help:"Show each result below the one before."`
	NoStream   bool     `help:"Show the first result and end."`
	NoTrunc    bool     `help:"Do not shorten."`
	Containers []string `arg:"" optional:"" name:"container" help:"Containers; all running ones by default."`

	// typed are the words that named the containers, by their IDs.
	typed map[string]string
}

// statsRow is a row as docker's templates know it.
type statsRow struct {
	Container, Name, ID, CPUPerc, MemUsage, MemPerc, NetIO, BlockIO, PIDs string
	History                                                               string `json:"-"`
}

var statsTable = ui.Table{
	Headers: map[string]string{
		"Container": "CONTAINER", "Name": "NAME", "ID": "CONTAINER ID", "CPUPerc": "CPU %", "MemUsage": "MEM USAGE / LIMIT",
		"MemPerc": "MEM %", "NetIO": "NET I/O", "BlockIO": "BLOCK I/O", "PIDs": "PIDS", "History": "CPU HISTORY",
	},
	Default: "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}",
	Quiet:   "{{.ID}}",
}

// Run shows what containers use, again and again. A result is what was used in
// the interval before it.
func (c *StatsCmd) Run(ctx context.Context, e *Engine, out *ui.Output) error {
	if c.Interval <= 0 {
		return fmt.Errorf("stats: --interval %v: want more than 0 seconds", c.Interval)
	}
	pause := time.Duration(c.Interval * float64(time.Second))
	v := view{long: c.NoTrunc}
	if ui.IsTerminal(out.Out) && !c.NoStream && !c.NoReset && c.Format == "" {
		v.history = map[string][]float64{}
	}
	for first := true; ; first = false {
		list, err := c.list(e)
		if err != nil {
			return fmt.Errorf("stats: %w", err)
		}
		now := e.samples(list)
		v.typed = c.typed
		if !first {
			if err := v.show(out.Out, c.Format, list, now); err != nil {
				return err
			}
			if c.NoStream {
				return nil
			}
		}
		v.before = now
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

func (c *StatsCmd) list(e *Engine) ([]listed, error) {
	if len(c.Containers) == 0 && !c.Latest {
		return e.list(nil, c.All)
	}
	names, err := e.choose(c.Containers, false, c.Latest, choice{}, nil)
	if err != nil {
		return nil, err
	}
	var list []listed
	c.typed = map[string]string{}
	for _, name := range names {
		ct, err := e.Lookup(name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		list = append(list, listed{ct, e.Status(ct.ID)})
		c.typed[ct.ID] = name
	}
	return list, nil
}

// view is what is shown, and what it takes from the results before.
type view struct {
	before map[string]sample
	// history are the last CPU percentages of each container, for a table that is
	// redrawn in place; nil for others.
	history map[string][]float64
	// typed are what docker calls the containers: the user's words, else IDs.
	typed map[string]string
	long  bool
}

func (v *view) show(w io.Writer, format string, list []listed, now map[string]sample) error {
	rows := make([]statsRow, len(list))
	for i, l := range list {
		a, b := v.before[l.ID], now[l.ID]
		rows[i] = newStatsRow(l, a, b, v.long)
		rows[i].Container = cmp.Or(v.typed[l.ID], rows[i].Container)
		if v.history != nil {
			past := append(v.history[l.ID], cpuPercent(a, b))
			v.history[l.ID] = past[max(0, len(past)-historyLength):]
		}
	}
	table := statsTable
	if v.history != nil {
		table.Default += "\t{{.History}}"
		top := 100.0 // one CPU, unless somebody uses more
		for _, l := range list {
			top = max(top, slices.Max(v.history[l.ID]))
		}
		for i, l := range list {
			rows[i].History = sparkline(v.history[l.ID], top)
		}
	}
	var b bytes.Buffer
	if err := table.Write(&b, format, false, anys(rows)); err != nil {
		return err
	}
	text := b.String()
	if v.history != nil {
		// From the top, each line to its end, and nothing of what was below: redrawn
		// with no flicker. See console_codes(4).
		text = "\x1b[H" + strings.ReplaceAll(text, "\n", "\x1b[K\n") + "\x1b[J"
	}
	_, err := io.WriteString(w, text)
	return err
}

// historyLength is how many results a sparkline shows.
const historyLength = 20

// sparkline draws values between 0 and top, the last one at the right.
func sparkline(values []float64, top float64) string {
	const bars = "▁▂▃▄▅▆▇█"
	all := []rune(bars)
	var b strings.Builder
	for _, v := range values {
		b.WriteRune(all[min(int(v/top*float64(len(all))), len(all)-1)])
	}
	return b.String()
}

func anys[T any](list []T) []any {
	all := make([]any, len(list))
	for i, x := range list {
		all[i] = x
	}
	return all
}

func newStatsRow(l listed, a, b sample, long bool) statsRow {
	r := statsRow{Container: l.ID, Name: l.Name, ID: l.ID, CPUPerc: "--", MemUsage: "-- / --", MemPerc: "--", NetIO: "--", BlockIO: "--", PIDs: "--"}
	if !long {
		r.ID, r.Container = shortID(l.ID), shortID(l.ID)
	}
	if !b.haveData {
		return r
	}
	usage, limit := memoryUse(b.stats)
	r.CPUPerc = fmt.Sprintf("%.2f%%", cpuPercent(a, b))
	r.MemUsage = ui.Binary(int64(usage)) + " / " + ui.Binary(int64(limit))
	r.MemPerc = "0.00%"
	if limit > 0 {
		r.MemPerc = fmt.Sprintf("%.2f%%", float64(usage)/float64(limit)*100)
	}
	r.NetIO = ui.Size(int64(b.rx)) + " / " + ui.Size(int64(b.tx))
	read, written := blockIO(b.stats)
	r.BlockIO = ui.Size(int64(read)) + " / " + ui.Size(int64(written))
	r.PIDs = strconv.FormatUint(b.stats.PidsStats.Current, 10)
	return r
}

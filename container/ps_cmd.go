package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/kist-containers/kist/internal/ui"
)

// PsCmd is `kist ps`.
type PsCmd struct {
	All     bool     `short:"a" help:"Show all containers, not only running ones."`
	Filter  []string `short:"f" sep:"none" help:"Show those that match: name, id, status, label, ancestor, exited, health, network, volume, before, since." placeholder:"KEY=VALUE"`
	Format  string   `help:"Format by a template, table or json." placeholder:"TEMPLATE"`
	Last    int      `short:"n" default:"-1" help:"Show the last N containers." placeholder:"N"`
	Latest  bool     `short:"l" help:"Show the last container."`
	NoTrunc bool     `help:"Do not shorten."`
	Quiet   bool     `short:"q" help:"Show IDs only."`
	Size    bool     `short:"s" help:"Show sizes."`
	// What follows is podman's.
	Sort      string `enum:",command,created,id,image,names,runningfor,size,status" default:"" help:"Order by: command, created, id, image, names, runningfor, size or status." placeholder:"KEY"`
	NoHeading bool   `name:"noheading" help:"Leave out the heading."`
	Ns        bool   `name:"ns" aliases:"namespace" help:"Show the namespaces of the first process."`
	Watch     uint   `short:"w" help:"Show it again every N seconds." placeholder:"N"`
	Pod       bool   `short:"p" hidden:""`
	External  bool   `hidden:"" help:"No other program keeps containers in kist's root."`
	Sync      bool   `hidden:"" help:"What is shown is always the kernel's and the records' own state."`
}

// listed is a container with its status.
type listed struct {
	*Config
	Status
}

// statusWords are docker's, some of which no container of kist's ever has.
var statusWords = [...]string{StatusCreated, StatusRestarting, StatusRunning, "removing", StatusPaused, StatusExited, "dead", StatusInitialized}

// Validate refuses what cannot be shown.
func (c *PsCmd) Validate() error {
	switch {
	case c.Pod:
		return errors.New("--pod: kist has no pods")
	case c.Ns && (c.Size || c.Format != ""):
		return errors.New("--ns and --size or --format contradict each other")
	}
	return nil
}

// Run lists containers, with --watch again and again.
func (c *PsCmd) Run(ctx context.Context, e *Engine, out *ui.Output) error {
	if c.Watch == 0 {
		return c.show(e, out.Out)
	}
	for {
		// Home, and clear to the end: see console_codes(4).
		out.Printf("\x1b[H\x1b[J")
		if err := c.show(e, out.Out); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Duration(c.Watch) * time.Second):
		}
	}
}

func (c *PsCmd) show(e *Engine, w io.Writer) error {
	filters, err := ui.ParseFilters(c.Filter, filterKeys[:]...)
	if err != nil {
		return fmt.Errorf("ps: %w", err)
	}
	list, err := e.list(filters, c.All || c.Latest || c.Last >= 0 || len(filters["status"]) > 0 || len(filters["exited"]) > 0)
	if err != nil {
		return fmt.Errorf("ps: %w", err)
	}
	if c.Latest {
		c.Last = 1
	}
	if c.Last >= 0 && c.Last < len(list) {
		list = list[:c.Last]
	}
	if c.Ns {
		return namespaceTable(c.NoHeading).Write(w, "", c.Quiet, namespaceRows(list, c.NoTrunc))
	}
	table := psTable
	table.NoHeading = c.NoHeading
	if c.Size {
		table.Default += "\t{{.Size}}"
	}
	needSize := c.Size || c.Sort == "size" || c.Format == "json" || strings.Contains(c.Format, ".Size") || strings.Contains(c.Format, "json .")
	rows := make([]psRow, len(list))
	now := time.Now()
	onAllCPUs(len(list), func(i int) { rows[i] = e.row(list[i], now, c.NoTrunc, needSize) })
	if c.Sort != "" {
		slices.SortStableFunc(rows, func(a, b psRow) int { return a.compare(b, c.Sort) })
	}
	return table.Write(w, c.Format, c.Quiet, anys(rows))
}

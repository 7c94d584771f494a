package container

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/kist-containers/kist/internal/ui"
)

// EventsCmd is `kist events`.
type EventsCmd struct {
	Filter []string `short:"f" sep:"none" help:"Show those that match: type, event, container, image, label." placeholder:"KEY=VALUE"`
	Format string   `help:"Format by a template, or json." placeholder:"TEMPLATE"`
	Since  string   `help:"Show what happened after: a time, or a duration before now." placeholder:"TIME"`
	Until  string   `help:"Show what happened before, and end then." placeholder:"TIME"`
}

// Run shows what happens, out of a plain file to which every command appends.
func (c *EventsCmd) Run(ctx context.Context, e *Engine, out *ui.Output) error {
	f, err := ui.ParseFilters(c.Filter, "type", "event", "container", "image", "label", "scope")
	if err != nil {
		return fmt.Errorf("events: %w", err)
	}
	now := time.Now()
	since, until := now, time.Time{}
	if c.Since != "" {
		if since, err = ui.ParseTime(c.Since, now); err != nil {
			return fmt.Errorf("events: --since: %w", err)
		}
	}
	if c.Until != "" {
		if until, err = ui.ParseTime(c.Until, now); err != nil {
			return fmt.Errorf("events: --until: %w", err)
		}
	}
	show := func(ev *Event) error {
		t := time.Unix(0, ev.TimeNano)
		if t.Before(since) || !until.IsZero() && t.After(until) || !ev.matches(f) {
			return nil
		}
		return c.print(out, ev)
	}
	if err := readEvents(e.eventsFile()+".1", show); err != nil {
		return err
	}
	return e.follow(ctx, until, show)
}

// follow reads the events file to its end, then what is appended, until the end
// time has come.
func (e *Engine) follow(ctx context.Context, until time.Time, show func(*Event) error) error {
	var file *os.File
	var lines *bufio.Reader
	var rest string
	for {
		if file == nil {
			if f, err := os.Open(e.eventsFile()); err == nil {
				file, lines = f, bufio.NewReader(f)
			}
		}
		for file != nil {
			line, err := lines.ReadString('\n')
			rest += line
			if err != nil {
				break
			}
			if err := showLine(rest, show); err != nil {
				return err
			}
			rest = ""
		}
		if !until.IsZero() && !time.Now().Before(until) {
			return nil
		}
		if file != nil && replaced(file, e.eventsFile()) {
			file.Close()
			file = nil
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func replaced(f *os.File, path string) bool {
	a, errA := f.Stat()
	b, errB := os.Stat(path)
	return errA == nil && errB == nil && !os.SameFile(a, b)
}

func readEvents(path string, show func(*Event) error) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	r := bufio.NewReader(f)
	for {
		line, err := r.ReadString('\n')
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := showLine(line, show); err != nil {
			return err
		}
	}
}

func showLine(line string, show func(*Event) error) error {
	ev := new(Event)
	if json.Unmarshal([]byte(line), ev) != nil {
		return nil // a line that a full disk cut
	}
	return show(ev)
}

func (ev *Event) matches(f ui.Filters) bool {
	a := ev.Actor
	return f.Match("type", func(v string) bool { return ev.Type == v }) &&
		f.Match("event", func(v string) bool { return ev.Action == v || strings.HasPrefix(ev.Action, v+":") }) &&
		f.Match("container", func(v string) bool { return strings.HasPrefix(a.ID, v) || a.Attributes["name"] == v }) &&
		f.Match("image", func(v string) bool { return a.Attributes["image"] == v }) &&
		f.MatchLabels("label", a.Attributes)
}

func (c *EventsCmd) print(out *ui.Output, ev *Event) error {
	if c.Format != "" {
		format := c.Format
		if format == "json" {
			format = "{{json .}}"
		}
		return ui.Table{}.Write(out.Out, format, false, []any{ev})
	}
	keys := make([]string, 0, len(ev.Actor.Attributes))
	for k, v := range ev.Actor.Attributes {
		keys = append(keys, k+"="+v)
	}
	sort.Strings(keys)
	keys = slices.Compact(keys)
	out.Printf("%s %s %s %s (%s)\n", time.Unix(0, ev.TimeNano).Format("2006-01-02T15:04:05.000000000Z07:00"), ev.Type, ui.Escape(ev.Action), ev.Actor.ID, ui.Escape(strings.Join(keys, ", ")))
	return nil
}

package container

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kist-containers/kist/internal/ui"
)

// EventsCmd is `kist events`.
type EventsCmd struct {
	Filter  []string `short:"f" sep:"none" help:"Show those that match: type, event, container, image, network, volume, label, scope." placeholder:"KEY=VALUE"`
	Format  string   `help:"Format by a template, or json." placeholder:"TEMPLATE"`
	Since   string   `help:"Show what happened after: a time, or a duration before now." placeholder:"TIME"`
	Until   string   `help:"Show what happened before, and end then." placeholder:"TIME"`
	Stream  bool     `negatable:"" default:"true" help:"Go on with what happens; else end with what has happened."`
	NoTrunc bool     `hidden:""`
}

// eventTypes are docker's; of those after the first four nothing happens here.
var eventTypes = [...]string{eventContainer, eventImage, eventNetwork, eventVolume, "daemon", "plugin", "builder", "config", "secret", "service", "node"}

// eventFilters are the keys of --filter.
func eventFilters() []string {
	return append([]string{"type", "event", "label", "scope"}, eventTypes[:]...)
}

// Run shows what happens, out of a plain file to which every command appends.
func (c *EventsCmd) Run(ctx context.Context, e *Engine, out *ui.Output) error {
	f, err := ui.ParseFilters(c.Filter, eventFilters()...)
	if err != nil {
		return fmt.Errorf("events: %w", err)
	}
	for _, v := range f["type"] {
		if !slices.Contains(eventTypes[:], v) {
			return fmt.Errorf("events: --filter type=%s: want one of %s", v, strings.Join(eventTypes[:], ", "))
		}
	}
	since, until, err := c.bounds(time.Now())
	if err != nil {
		return fmt.Errorf("events: %w", err)
	}
	log := &eventLog{path: e.eventsFile(), show: func(ev *Event) error {
		t := time.Unix(0, ev.TimeNano)
		if t.Before(since) || !until.IsZero() && t.After(until) || !ev.matches(f) {
			return nil
		}
		return c.print(out, ev)
	}}
	defer log.close()
	if err := log.read(); err != nil || !c.Stream {
		return err
	}
	return log.follow(ctx, until)
}

// bounds are the times of --since and --until: from now on, and without end.
func (c *EventsCmd) bounds(now time.Time) (since, until time.Time, err error) {
	since = now
	if !c.Stream {
		since = time.Time{}
	}
	if c.Since != "" {
		if since, err = ui.ParseTime(c.Since, now); err != nil {
			return since, until, fmt.Errorf("--since: %w", err)
		}
	}
	if c.Until != "" {
		if until, err = ui.ParseTime(c.Until, now); err != nil {
			return since, until, fmt.Errorf("--until: %w", err)
		}
	}
	return since, until, nil
}

// matches is docker's rule: objects by the beginning of their name or ID.
func (ev *Event) matches(f ui.Filters) bool {
	for _, kind := range eventTypes {
		if kind != eventImage && !f.Match(kind, func(v string) bool { return ev.about(kind, v) }) {
			return false
		}
	}
	return f.Match("type", func(v string) bool { return ev.Type == v }) &&
		f.Match("event", func(v string) bool { return ev.Action == v || strings.HasPrefix(ev.Action, v+":") }) &&
		f.Match("scope", func(v string) bool { return ev.Scope == v }) &&
		f.Match(eventImage, ev.ofImage) &&
		f.MatchLabels("label", ev.Actor.Attributes)
}

func (ev *Event) about(kind, v string) bool {
	return ev.Type == kind && (strings.HasPrefix(ev.Actor.ID, v) || strings.HasPrefix(ev.Actor.Attributes["name"], v))
}

// ofImage reports whether the event is of the image v, or of a container of it.
func (ev *Event) ofImage(v string) bool {
	name := ev.Actor.Attributes["image"]
	if ev.Type == eventImage {
		name = ev.Actor.Attributes["name"]
	}
	for _, s := range []string{ev.Actor.ID, name} {
		if s == v || withoutTag(s) == v {
			return true
		}
	}
	return false
}

// withoutTag is the repository of a familiar name.
func withoutTag(name string) string {
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		return name[:i]
	}
	return name
}

func (c *EventsCmd) print(out *ui.Output, ev *Event) error {
	if c.Format != "" {
		return ui.Table{}.Write(out.Out, c.Format, false, []any{ev})
	}
	var keys []string
	for k, v := range ev.Actor.Attributes {
		keys = append(keys, k+"="+v)
	}
	slices.Sort(keys)
	attributes := ""
	if len(keys) > 0 {
		attributes = " (" + ui.Escape(strings.Join(keys, ", ")) + ")"
	}
	out.Printf("%s %s %s %s%s\n", time.Unix(0, ev.TimeNano).Format("2006-01-02T15:04:05.000000000Z07:00"), ev.Type, ui.Escape(ev.Action), ui.Escape(ev.Actor.ID), attributes)
	return nil
}

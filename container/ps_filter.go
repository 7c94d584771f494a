package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kist-containers/kist/internal/ui"
)

// list returns the containers that pass, newest first.
func (e *Engine) list(f ui.Filters, all bool) ([]listed, error) {
	configs, err := e.candidates(all)
	if err != nil {
		return nil, err
	}
	bounds, err := e.bounds(f)
	if err != nil {
		return nil, err
	}
	var list []listed
	for _, c := range configs {
		l := listed{c, e.settledStatus(c)}
		if (all || l.Busy()) && l.matches(f) && bounds(c) {
			list = append(list, l)
		}
	}
	return list, nil
}

// settledStatus is Status, after what a killed monitor left was cleaned up.
func (e *Engine) settledStatus(c *Config) Status {
	st := e.Status(c.ID)
	if st.Word == StatusExited && st.FinishedAt.IsZero() {
		if e.reconcile(context.Background(), c) == nil {
			st = e.Status(c.ID)
		}
	}
	return st
}

// candidates are all containers, or those with a run directory: only they can run.
func (e *Engine) candidates(all bool) ([]*Config, error) {
	if all {
		return e.all()
	}
	entries, err := os.ReadDir(e.runDir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []*Config
	for _, entry := range entries {
		if c, err := e.read(entry.Name()); err == nil {
			list = append(list, c)
		}
	}
	slices.SortFunc(list, func(a, b *Config) int { return b.Created.Compare(a.Created) })
	return list, nil
}

// bounds are the filters before=CONTAINER and since=CONTAINER.
func (e *Engine) bounds(f ui.Filters) (func(*Config) bool, error) {
	var before, since *Config
	for key, dst := range map[string]**Config{"before": &before, "since": &since} {
		for _, name := range f[key] {
			c, err := e.Lookup(name)
			if err != nil {
				return nil, fmt.Errorf("--filter %s=%s: %w", key, name, err)
			}
			*dst = c
		}
	}
	var until time.Time
	for _, v := range f["until"] {
		var err error
		if until, err = ui.ParseTime(v, time.Now()); err != nil {
			return nil, fmt.Errorf("--filter until=%s: %w", v, err)
		}
	}
	return func(c *Config) bool {
		return (until.IsZero() || c.Created.Before(until)) && (before == nil || c.Created.Before(before.Created)) && (since == nil || c.Created.After(since.Created))
	}, nil
}

func (l listed) matches(f ui.Filters) bool {
	return f.Match("name", func(v string) bool { return nameMatches(v, l.Name) }) &&
		f.Match("id", func(v string) bool { return strings.HasPrefix(l.ID, v) }) &&
		f.Match("status", func(v string) bool { return l.Word == v }) &&
		f.MatchLabels("label", l.Labels) && f.ExcludeLabels("label!", l.Labels) &&
		f.Match("ancestor", func(v string) bool {
			return l.Image == v || strings.TrimSuffix(l.Image, ":latest") == v || strings.HasPrefix(strings.TrimPrefix(l.ImageID, "sha256:"), v)
		}) &&
		f.Match("exited", func(v string) bool { return l.Word == StatusExited && strconv.Itoa(l.ExitCode) == v }) &&
		f.Match("health", func(v string) bool { return l.Status.Health == v || v == "none" && l.Status.Health == "" }) &&
		f.Match("network", func(v string) bool {
			return l.Network.Mode == v || slices.ContainsFunc(l.Network.Networks, func(n Endpoint) bool { return n.Network == v })
		}) &&
		f.Match("volume", func(v string) bool {
			for _, m := range l.Mounts {
				if m.Source == v || m.Target == v {
					return true
				}
			}
			return false
		}) &&
		f.Match("publish", func(v string) bool { return l.publishes(v) }) &&
		f.Match("restart-policy", func(v string) bool { return l.Restart.Name == v || v == "no" && l.Restart.Name == "" }) &&
		f.Match("command", func(v string) bool { return strings.Contains(strings.Join(l.Args(), " "), v) }) &&
		f.Match("is-task", func(v string) bool { return v == "false" || v == "0" }) &&
		f.Match("expose", func(v string) bool { return slices.Contains(l.Exposed, v) || slices.Contains(l.Exposed, v+"/tcp") })
}

// nameMatches is docker's rule: a regular expression, tried on the name with and
// without its slash. What is none is looked for as it is.
func nameMatches(pattern, name string) bool {
	if !strings.ContainsAny(pattern, "^$.*+?()[]{}|\\/") {
		return strings.Contains(name, pattern)
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return strings.Contains(name, pattern)
	}
	return re.MatchString(name) || re.MatchString("/"+name)
}

func (l listed) publishes(v string) bool {
	bindings, err := l.ports()
	if err != nil {
		return false
	}
	for _, b := range bindings {
		if v == strconv.Itoa(int(b.ContainerPort)) || v == fmt.Sprintf("%d/%s", b.ContainerPort, b.Proto) {
			return true
		}
	}
	return false
}

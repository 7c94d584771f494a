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
	if err := checkFilters(f); err != nil {
		return nil, err
	}
	configs, err := e.candidates(all)
	if err != nil {
		return nil, err
	}
	bounds, err := e.bounds(f)
	if err != nil {
		return nil, err
	}
	states := make([]Status, len(configs))
	onAllCPUs(len(configs), func(i int) { states[i] = e.Status(configs[i].ID) })
	var list []listed
	for i, c := range configs {
		l := listed{c, e.settle(c, states[i])}
		if (all || l.Busy()) && e.matches(l, f) && bounds(c) {
			list = append(list, l)
		}
	}
	return list, nil
}

// checkFilters refuses values that match nothing ever.
func checkFilters(f ui.Filters) error {
	words := map[string][]string{"status": statusWords[:], "health": healthWords[:]}
	for key, known := range words {
		for _, v := range f[key] {
			if !slices.Contains(known, v) {
				return fmt.Errorf("--filter %s=%s: want one of %s", key, v, strings.Join(known, ", "))
			}
		}
	}
	for _, v := range f["exited"] {
		if _, err := strconv.Atoi(v); err != nil {
			return fmt.Errorf("--filter exited=%s: want an exit status", v)
		}
	}
	for _, key := range []string{"publish", "expose"} {
		for _, v := range f[key] {
			if _, err := exposePorts([]string{v}); err != nil {
				return fmt.Errorf("--filter %s=%s: want PORT[-PORT][/PROTO]", key, v)
			}
		}
	}
	return nil
}

// healthWords are the values of the filter health.
var healthWords = [...]string{"starting", "healthy", "unhealthy", "none"}

// settledStatus is Status, after what a killed monitor left was cleaned up.
func (e *Engine) settledStatus(c *Config) Status { return e.settle(c, e.Status(c.ID)) }

func (e *Engine) settle(c *Config, st Status) Status {
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
		c, err := e.read(entry.Name())
		if err != nil {
			e.warnDamaged(err)
			continue
		}
		list = append(list, c)
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

// matches reports whether a container passes the filters.
func (e *Engine) matches(l listed, f ui.Filters) bool {
	return l.matches(f) &&
		f.Match("ancestor", func(v string) bool { return e.descends(l, v) }) &&
		f.Match("network", func(v string) bool { return e.inNetwork(l, v) }) &&
		f.Match("publish", func(v string) bool { return e.publishes(l, v) })
}

// matches is the part of it that only looks at the container.
func (l listed) matches(f ui.Filters) bool {
	return f.Match("name", func(v string) bool { return nameMatches(v, l.Name) }) &&
		f.Match("id", func(v string) bool { return strings.HasPrefix(l.ID, v) }) &&
		f.Match("status", func(v string) bool { return l.Word == v }) &&
		f.MatchLabels("label", l.Labels) && f.ExcludeLabels("label!", l.Labels) &&
		f.Match("exited", func(v string) bool { return l.Word == StatusExited && strconv.Itoa(l.ExitCode) == v }) &&
		f.Match("health", func(v string) bool { return l.Status.Health == v || v == "none" && l.Status.Health == "" }) &&
		f.Match("volume", func(v string) bool {
			for _, m := range l.Mounts {
				if m.Source == v || m.Target == v {
					return true
				}
			}
			return false
		}) &&
		f.Match("restart-policy", func(v string) bool { return l.Restart.Name == v || v == "no" && l.Restart.Name == "" }) &&
		f.Match("command", func(v string) bool { return strings.Contains(strings.Join(l.Args(), " "), v) }) &&
		f.Match("should-start-on-boot", func(v string) bool {
			return v == strconv.FormatBool(l.Restart.Name == "always" || l.Restart.Name == "unless-stopped")
		}) &&
		f.Match("is-task", func(v string) bool { return v == "false" || v == "0" }) &&
		f.Match("expose", func(v string) bool { return l.exposes(v) })
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

// exposes reports whether the container has the port of a filter inside.
func (l listed) exposes(v string) bool {
	return slices.ContainsFunc(l.exposedPorts(), func(p string) bool {
		number, proto, _ := strings.Cut(p, "/")
		n, err := strconv.ParseUint(number, 10, 16)
		return err == nil && portIn(v, uint16(n), proto)
	})
}

// publishes reports whether the port of a filter, one of the host, leads to the
// container now.
func (e *Engine) publishes(l listed, v string) bool {
	return l.Busy() && slices.ContainsFunc(e.shownPorts(l.Config), func(p shownPort) bool {
		return p.hostIP != "" && portIn(v, p.host, p.proto)
	})
}

// descends reports whether a container's image is, or was made from, the one of a
// filter: it begins with all its layers.
func (e *Engine) descends(l listed, v string) bool {
	if l.Image == v || strings.TrimSuffix(l.Image, ":latest") == v || strings.HasPrefix(strings.TrimPrefix(l.ImageID, "sha256:"), v) {
		return true
	}
	img, err := e.Images.Resolve(v)
	if err != nil {
		return false
	}
	lowers := img.LowerDirs()
	below := len(l.Lowers) - len(lowers)
	return img.ID == l.ImageID || len(lowers) > 0 && below >= 0 && slices.Equal(l.Lowers[below:], lowers)
}

// inNetwork compares by the network's name and by the beginning of its ID.
func (e *Engine) inNetwork(l listed, v string) bool {
	if l.Network.Mode == v {
		return true
	}
	if n, err := e.Networks.Network(v); err == nil {
		v = n.Name
	}
	return slices.ContainsFunc(l.Network.Networks, func(n Endpoint) bool { return n.Network == v })
}

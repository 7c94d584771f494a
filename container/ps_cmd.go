package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strconv"
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
}

// psRow is a row as docker's templates know it.
type psRow struct {
	Command, CreatedAt, ID, Image, Labels, LocalVolumes, Mounts, Names, Networks string
	Ports, RunningFor, Size, State, Status                                       string
	labels                                                                       map[string]string
}

// Label is the value of one label, for {{.Label "key"}}.
func (r psRow) Label(key string) string { return r.labels[key] }

var psTable = ui.Table{
	Headers: map[string]string{
		"ID": "CONTAINER ID", "Image": "IMAGE", "Command": "COMMAND", "RunningFor": "CREATED", "CreatedAt": "CREATED AT",
		"Status": "STATUS", "State": "STATE", "Ports": "PORTS", "Names": "NAMES", "Size": "SIZE", "Labels": "LABELS",
		"Mounts": "MOUNTS", "Networks": "NETWORKS", "LocalVolumes": "LOCAL VOLUMES",
	},
	Default: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}",
	Quiet:   "{{.ID}}",
}

// listed is a container with its status.
type listed struct {
	*Config
	Status
}

// statusWords are docker's, some of which no container of kist's ever has.
var statusWords = [...]string{StatusCreated, StatusRestarting, StatusRunning, "removing", StatusPaused, StatusExited, "dead"}

// Run lists containers.
func (c *PsCmd) Run(e *Engine, out *ui.Output) error {
	filters, err := ui.ParseFilters(c.Filter, filterKeys[:]...)
	if err != nil {
		return fmt.Errorf("ps: %w", err)
	}
	for _, v := range filters["status"] {
		if !slices.Contains(statusWords[:], v) {
			return fmt.Errorf("ps: --filter status=%s: want one of %s", v, strings.Join(statusWords[:], ", "))
		}
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
	table := psTable
	if c.Size {
		table.Default += "\t{{.Size}}"
	}
	needSize := c.Size || c.Format == "json" || strings.Contains(c.Format, ".Size") || strings.Contains(c.Format, "json .")
	rows := make([]any, len(list))
	now := time.Now()
	for i, l := range list {
		rows[i] = e.row(l, now, c.NoTrunc, needSize)
	}
	return table.Write(out.Out, c.Format, c.Quiet, rows)
}

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

func (e *Engine) row(l listed, now time.Time, long, size bool) psRow {
	r := psRow{
		ID: l.ID, Image: l.Image, Command: strconv.Quote(commandText(l.Args())),
		CreatedAt: l.Created.Local().Format("2006-01-02 15:04:05 -0700 MST"), RunningFor: ui.Duration(now.Sub(l.Created)) + " ago",
		Names: l.Name, State: l.Word, Status: l.Status.Text(now), labels: l.Labels, Networks: networkNames(l.Config),
	}
	if !long {
		r.ID = shortID(l.ID)
		r.Command = strconv.Quote(ui.Ellipsis(commandText(l.Args()), 18))
	}
	var pairs []string
	for k, v := range l.Labels {
		pairs = append(pairs, k+"="+v)
	}
	sort.Strings(pairs)
	r.Labels = strings.Join(pairs, ",")
	var mounts []string
	local := 0
	for _, m := range l.Mounts {
		name := m.Source
		if m.Type == "volume" {
			local++
		}
		if !long {
			name = ui.Ellipsis(name, 15)
		}
		mounts = append(mounts, name)
	}
	r.Mounts, r.LocalVolumes = strings.Join(mounts, ","), strconv.Itoa(local)
	if l.Busy() {
		r.Ports = e.portsText(l.Config)
	}
	if size {
		r.Size = e.sizeText(l.Config)
	}
	return r
}

// commandText is docker's way to show a command: an argument with a blank in it
// stands in quotes.
func commandText(args []string) string {
	shown := make([]string, len(args))
	for i, a := range args {
		shown[i] = a
		if i > 0 && strings.Contains(a, " ") {
			shown[i] = "'" + a + "'"
		}
	}
	return strings.Join(shown, " ")
}

func networkNames(c *Config) string {
	if len(c.Network.Networks) == 0 {
		return c.Network.Mode
	}
	var names []string
	for _, n := range c.Network.Networks {
		names = append(names, n.Network)
	}
	return strings.Join(names, ",")
}

// portsText is docker's PORTS column: exposed ports first, then the published.
func (e *Engine) portsText(c *Config) string {
	published := map[string]bool{}
	var list []string
	if s, err := e.Networks.Sandbox(c.ID); err == nil {
		for _, p := range s.Ports {
			inside := fmt.Sprintf("%d/%s", p.ContainerPort, p.Proto)
			published[inside] = true
			for _, host := range p.Hosts() {
				list = append(list, host+"->"+inside)
			}
		}
	}
	var exposed []string
	for _, p := range c.Exposed {
		if !strings.Contains(p, "/") {
			p += "/tcp"
		}
		if !published[p] {
			exposed = append(exposed, p)
		}
	}
	return strings.Join(append(exposed, list...), ", ")
}

// sizeText is docker's SIZE: what the container wrote, and with its image.
func (e *Engine) sizeText(c *Config) string {
	written := treeSize(e.dataDir(c.ID, upperDir))
	total := written
	if img, err := e.Images.Resolve(c.ImageID); err == nil {
		total += img.Size
	}
	return fmt.Sprintf("%s (virtual %s)", ui.Size(written), ui.Size(total))
}

// treeSize adds up the sizes of the files below dir.
func treeSize(dir string) (size int64) {
	filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				size += info.Size()
			}
		}
		return nil
	})
	return size
}

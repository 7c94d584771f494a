package build

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/kist-containers/kist/internal/ui"
)

// PruneCmd is `kist builder prune`.
type PruneCmd struct {
	All         bool     `short:"a" help:"All of the cache, not only what no image uses."`
	Force       bool     `short:"f" help:"Do not ask."`
	Verbose     bool     `hidden:""`
	Filter      []string `sep:"none" help:"until=DURATION, id=, type=, parent=, description=." placeholder:"KEY=VALUE"`
	KeepStorage string   `aliases:"max-used-space,reserved-space" help:"Keep this much." placeholder:"SIZE"`
}

// Run prunes.
func (c *PruneCmd) Run(ctx context.Context, b *Builder, out *ui.Output) error {
	p, err := c.prune()
	if err != nil {
		return err
	}
	if !c.Force && !confirm(out, c.question()) {
		return nil
	}
	removed, err := b.Prune(ctx, p)
	if errors.Is(err, ErrInUse) {
		return ui.Hint(err, "wait for it to end")
	}
	if err != nil {
		return err
	}
	var total int64
	if len(removed) > 0 {
		out.Print("ID\t\tSIZE")
	}
	for _, rec := range removed {
		total += rec.Size
		out.Printf("%.12s\t%s\n", rec.Key, ui.Size(rec.Size))
	}
	out.Printf("Total reclaimed space: %s\n", ui.Size(total))
	return nil
}

func (c *PruneCmd) question() string {
	if c.All {
		return "This removes the whole build cache. Continue? [y/N] "
	}
	return "This removes the build cache that no image uses. Continue? [y/N] "
}

func (c *PruneCmd) prune() (p Prune, err error) {
	if p.Keep, err = size("--keep-storage", c.KeepStorage); err != nil {
		return p, err
	}
	f, err := ui.ParseFilters(c.Filter, "until", "unused-for", "id", "type", "parent", "description", "inuse", "shared", "private")
	if err != nil {
		return p, err
	}
	for _, key := range []string{"until", "unused-for"} {
		for _, v := range f[key] {
			if p.UnusedFor, err = time.ParseDuration(v); err != nil {
				return p, fmt.Errorf("--filter %s=%s: want a duration such as 24h", key, v)
			}
		}
	}
	p.Private, p.Shared = !c.All, false
	for _, key := range []string{"private", "shared", "inuse"} {
		for _, v := range f[key] {
			yes, err := strconv.ParseBool(v)
			if err != nil {
				return p, fmt.Errorf("--filter %s=%s: want true or false", key, v)
			}
			switch {
			case key == "inuse" && yes:
				return p, errors.New("--filter inuse=true: what a build uses is not pruned")
			case key != "inuse":
				p.Shared = yes == (key == "shared")
				p.Private = !p.Shared
			}
		}
	}
	p.Match = func(rec Record) bool {
		return f.Match("id", func(v string) bool { return strings.HasPrefix(rec.Key, v) }) &&
			f.Match("type", func(v string) bool { return rec.kind() == v }) &&
			f.Match("parent", func(v string) bool { return rec.Parent == v }) &&
			f.Match("description", func(v string) bool { return strings.Contains(rec.Text, v) })
	}
	return p, nil
}

// kind is BuildKit's word for the record.
func (r *Record) kind() string {
	if r.Kind == "mount" {
		return "exec.cachemount"
	}
	return "regular"
}

func confirm(out *ui.Output, question string) bool {
	if out.In == nil {
		return false
	}
	out.Printf("%s", question)
	line, _ := bufio.NewReader(out.In).ReadString('\n')
	line = strings.ToLower(strings.TrimSpace(line))
	return line == "y" || line == "yes"
}

// ListCmd is `kist builder ls` and `kist builder du`.
type ListCmd struct {
	Format  string `help:"Table, json or a template." placeholder:"FORMAT"`
	Quiet   bool   `short:"q" help:"Print IDs only."`
	Verbose bool   `hidden:""`
}

type listRow struct{ ID, Type, Size, CreatedSince, LastUsedSince, Description string }

// Run lists the cache.
func (c *ListCmd) Run(b *Builder, out *ui.Output) error {
	all, err := b.Records()
	if err != nil {
		return err
	}
	var rows []any
	for _, rec := range all {
		if rec.Alias != "" {
			continue
		}
		rows = append(rows, listRow{rec.Key[:12], rec.kind(), ui.Size(rec.Size), ui.Ago(rec.Created), ui.Ago(rec.LastUsed), ui.Ellipsis(rec.Text, 60)})
	}
	return ui.Table{
		Headers: map[string]string{"ID": "ID", "Type": "TYPE", "Size": "SIZE", "CreatedSince": "CREATED", "LastUsedSince": "LAST USED", "Description": "DESCRIPTION"},
		Default: "{{.ID}}\t{{.Type}}\t{{.Size}}\t{{.LastUsedSince}}\t{{.Description}}", Quiet: "{{.ID}}",
	}.Write(out.Out, c.Format, c.Quiet, rows)
}

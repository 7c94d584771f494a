package image

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/kist-containers/kist/image/registry"
	"github.com/kist-containers/kist/internal/ui"
)

// SearchCmd is `kist search`.
type SearchCmd struct {
	RegistryFlags
	Filter   []string `short:"f" sep:"none" help:"stars=N, is-official=BOOL, is-automated=BOOL." placeholder:"KEY=VALUE"`
	Format   string   `help:"table, json or a template." placeholder:"FORMAT"`
	Limit    int      `default:"25" help:"At most so many results; 0 is 25."`
	NoTrunc  bool     `help:"Show descriptions in full."`
	ListTags bool     `help:"List the tags of a repository instead."`
	Term     string   `arg:"" help:"What to look for; HOST/TERM asks another registry than Docker Hub."`
}

type searchRow struct{ Name, Description, StarCount, IsOfficial, IsAutomated string }

// Run prints what the registry found.
func (c *SearchCmd) Run(ctx context.Context, out *ui.Output) error {
	c.Limit = cmp.Or(c.Limit, 25)
	if c.ListTags {
		return c.tags(ctx, out)
	}
	f, err := ui.ParseFilters(c.Filter, "stars", "is-official", "is-automated")
	if err != nil {
		return err
	}
	host, term := DefaultHost, c.Term
	if first, rest, ok := strings.Cut(c.Term, "/"); ok && strings.ContainsAny(first, ".:") {
		host, term = first, rest
	}
	found, err := registry.Search(ctx, c.Config(), host, term, c.Limit)
	if err != nil {
		return fmt.Errorf("search %s: %w", c.Term, err)
	}
	var rows []any
	for _, r := range found {
		if len(rows) < c.Limit && searchMatch(f, r) {
			rows = append(rows, c.row(r))
		}
	}
	return ui.Table{
		Headers: map[string]string{"Name": "NAME", "Description": "DESCRIPTION", "StarCount": "STARS", "IsOfficial": "OFFICIAL", "IsAutomated": "AUTOMATED"},
		Default: "{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}",
		Quiet:   "{{.Name}}",
	}.Write(out.Out, c.Format, false, rows)
}

func (c *SearchCmd) row(r registry.Found) searchRow {
	row := searchRow{Name: ui.Escape(r.Name), Description: ui.Escape(strings.ReplaceAll(r.Description, "\n", " ")), StarCount: strconv.Itoa(r.Stars)}
	if !c.NoTrunc {
		row.Description = ui.Ellipsis(row.Description, 45)
	}
	if r.Official {
		row.IsOfficial = "[OK]"
	}
	if r.Automated {
		row.IsAutomated = "[OK]"
	}
	return row
}

func searchMatch(f ui.Filters, r registry.Found) bool {
	is := func(key string, have bool) bool {
		return f.Match(key, func(v string) bool { want, err := strconv.ParseBool(v); return err == nil && want == have })
	}
	stars := f.Match("stars", func(v string) bool { n, err := strconv.Atoi(v); return err == nil && r.Stars >= n })
	return stars && is("is-official", r.Official) && is("is-automated", r.Automated)
}

func (c *SearchCmd) tags(ctx context.Context, out *ui.Output) error {
	r, err := ParseReference(c.Term)
	if err != nil {
		return err
	}
	repo, err := registry.Open(c.Config(), r.Host, r.Path)
	if err != nil {
		return err
	}
	tags, err := repo.Tags(ctx)
	if err != nil {
		return fmt.Errorf("search %s: %w", c.Term, err)
	}
	var rows []any
	for _, t := range tags[:min(len(tags), c.Limit)] {
		rows = append(rows, struct{ Name, Tag string }{r.Name(), ui.Escape(t)})
	}
	return ui.Table{Headers: map[string]string{"Name": "NAME", "Tag": "TAG"}, Default: "{{.Name}}\t{{.Tag}}"}.Write(out.Out, c.Format, false, rows)
}

package image

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/kist-containers/kist/internal/ui"
)

// ListCmd is `kist images`.
type ListCmd struct {
	All     bool     `short:"a" help:"Also intermediate images (kist has none)."`
	Digests bool     `help:"Show digests."`
	Filter  []string `short:"f" sep:"none" help:"Only images that match: dangling, label, before, since, until, reference, id." placeholder:"KEY=VALUE"`
	Format  string   `help:"table, json or a template." placeholder:"FORMAT"`
	NoTrunc bool     `help:"Show full IDs."`
	// NoHeading and Sort are podman's.
	NoHeading bool   `name:"noheading" short:"n" help:"Leave out the heading."`
	Sort      string `enum:"created,id,repository,size,tag" default:"created" help:"Order: created, id, repository, size or tag."`
	Quiet     bool   `short:"q" help:"Print only IDs."`
	Tree      bool   `help:"Show the layers that images share."`
	Name      string `arg:"" optional:"" help:"REPOSITORY[:TAG]."`
}

// A listRow is a line of the listing; the fields are docker's.
type listRow struct {
	Containers   string
	CreatedAt    string
	CreatedSince string
	Digest       string
	ID           string
	Repository   string
	SharedSize   string
	Size         string
	Tag          string
	UniqueSize   string
	VirtualSize  string
}

// Run prints the listing.
func (c *ListCmd) Run(s *Store, out *ui.Output) error {
	if c.Tree {
		return (&TreeCmd{Image: c.Name}).Run(s, out)
	}
	list, err := c.selected(s)
	if err != nil {
		return fmt.Errorf("images: %w", err)
	}
	t := ui.Table{
		NoHeading: c.NoHeading,
		Headers: map[string]string{
			"Repository": "REPOSITORY", "Tag": "TAG", "Digest": "DIGEST", "ID": "IMAGE ID",
			"CreatedSince": "CREATED", "CreatedAt": "CREATED AT", "Size": "SIZE", "Containers": "CONTAINERS",
			"SharedSize": "SHARED SIZE", "UniqueSize": "UNIQUE SIZE", "VirtualSize": "SIZE",
		},
		Default: "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}",
		Quiet:   "{{.ID}}",
	}
	if c.Digests {
		t.Default = "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
	}
	return t.Write(out.Out, c.Format, c.Quiet, c.allRows(list))
}

// allRows are the lines of the listing, with -q one for each ID.
func (c *ListCmd) allRows(list []Summary) []any {
	var lines []listRow
	if c.Sort == "size" {
		slices.SortStableFunc(list, func(a, b Summary) int { return cmp.Compare(b.Size, a.Size) })
	}
	for _, img := range list {
		lines = append(lines, c.rows(img)...)
	}
	key := map[string]func(listRow) string{
		"id":         func(r listRow) string { return r.ID },
		"repository": func(r listRow) string { return r.Repository },
		"tag":        func(r listRow) string { return r.Tag },
	}[c.Sort]
	if key != nil {
		slices.SortStableFunc(lines, func(a, b listRow) int { return cmp.Compare(key(a), key(b)) })
	}
	var rows []any
	seen := map[string]bool{}
	for _, l := range lines {
		if !c.Quiet || !seen[l.ID] {
			rows = append(rows, l)
		}
		seen[l.ID] = true
	}
	return rows
}

// rows are one line for each name of img.
func (c *ListCmd) rows(img Summary) []listRow {
	base := listRow{
		ID: short(img.ID), Repository: "<none>", Tag: "<none>", Digest: "<none>",
		Size: ui.Size(img.Size), VirtualSize: ui.Size(img.Size),
		Containers: "N/A", SharedSize: "N/A", UniqueSize: "N/A",
		CreatedSince: ui.Ago(img.Created), CreatedAt: "N/A",
	}
	if !img.Created.IsZero() {
		base.CreatedAt = img.Created.Local().Format("2006-01-02 15:04:05 -0700 MST")
	}
	if c.NoTrunc {
		base.ID = img.ID
	}
	var rows []listRow
	for _, r := range img.Names {
		row := base
		row.Repository, row.Tag = r.FamiliarName(), r.Tag
		for _, d := range img.RepoDigests {
			if d.Name() == r.Name() {
				row.Digest = d.Digest
			}
		}
		rows = append(rows, row)
	}
	if len(rows) > 0 {
		return rows
	}
	for _, d := range img.RepoDigests {
		row := base
		row.Repository, row.Digest = d.FamiliarName(), d.Digest
		rows = append(rows, row)
	}
	if len(rows) == 0 {
		rows = []listRow{base}
	}
	return rows
}

// selected are the images that the filters and the argument leave.
func (c *ListCmd) selected(s *Store) ([]Summary, error) {
	f, err := ui.ParseFilters(c.Filter, "dangling", "label", "label!", "before", "since", "until", "reference", "id")
	if err != nil {
		return nil, err
	}
	if c.Name != "" {
		f["reference"] = append(f["reference"], c.Name)
	}
	return s.Filter(f, time.Now())
}

// Filter returns the images of List that f leaves, and of each the names.
func (s *Store) Filter(f ui.Filters, now time.Time) ([]Summary, error) {
	list, err := s.List()
	if err != nil {
		return nil, err
	}
	m, err := s.matcher(f, list, now)
	if err != nil {
		return nil, err
	}
	var out []Summary
	for _, img := range list {
		if img, ok := m.match(img); ok {
			out = append(out, img)
		}
	}
	return out, nil
}

type matcher struct {
	s     *Store
	f     ui.Filters
	after []time.Time // since
	until []time.Time // before and until
}

func (s *Store) matcher(f ui.Filters, list []Summary, now time.Time) (*matcher, error) {
	m := &matcher{s: s, f: f}
	for _, key := range []string{"before", "since"} {
		for _, name := range f[key] {
			img, err := s.Resolve(name)
			if err != nil {
				return nil, err
			}
			if key == "since" {
				m.after = append(m.after, img.Created)
			} else {
				m.until = append(m.until, img.Created)
			}
		}
	}
	for _, text := range f["until"] {
		t, err := ui.ParseTime(text, now)
		if err != nil {
			return nil, err
		}
		m.until = append(m.until, t)
	}
	return m, nil
}

// match reports whether img passes, with only the names that do.
func (m *matcher) match(img Summary) (Summary, bool) {
	for _, t := range m.after {
		if !img.Created.After(t) {
			return img, false
		}
	}
	for _, t := range m.until {
		if !img.Created.Before(t) {
			return img, false
		}
	}
	dangling := func(v string) bool { return (v == "true" || v == "1") == (len(img.Names) == 0) }
	id := func(v string) bool {
		return strings.HasPrefix(img.ID, v) || strings.HasPrefix(hexOf(img.ID), v)
	}
	if !m.f.Match("dangling", dangling) || !m.f.Match("id", id) {
		return img, false
	}
	if len(m.f["label"]) > 0 || len(m.f["label!"]) > 0 {
		full, err := m.s.Resolve(img.ID)
		if err != nil || !m.f.MatchLabels("label", full.Config.Config.Labels) || !m.f.ExcludeLabels("label!", full.Config.Config.Labels) {
			return img, false
		}
	}
	if len(m.f["reference"]) == 0 {
		return img, true
	}
	img.Names = matching(img.Names, m.f["reference"])
	img.RepoDigests = matching(img.RepoDigests, m.f["reference"])
	return img, len(img.Names)+len(img.RepoDigests) > 0
}

func matching(refs []Reference, patterns []string) []Reference {
	var out []Reference
	for _, r := range refs {
		for _, p := range patterns {
			if matchesPattern(r, p) {
				out = append(out, r)
				break
			}
		}
	}
	return out
}

// matchesPattern is docker's rule: the pattern matches the familiar name with
// its tag, or without, or the full name.
func matchesPattern(r Reference, pattern string) bool {
	for _, name := range []string{r.Familiar(), r.FamiliarName(), r.String(), r.Name()} {
		if ok, err := path.Match(pattern, name); ok && err == nil {
			return true
		}
	}
	return false
}

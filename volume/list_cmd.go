package volume

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kist-containers/kist/internal/ui"
)

// A row is a volume in docker's listing.
type row struct {
	Driver, Labels, Mountpoint, Name, Scope, Size, Links, Availability, Group, Status string

	labels map[string]string
}

// Label is docker's {{.Label "key"}}.
func (r row) Label(key string) string { return r.labels[key] }

// ListCmd is `kist volume ls`.
type ListCmd struct {
	Quiet     bool     `short:"q" help:"Names only."`
	Filter    []string `short:"f" sep:"none" help:"name, driver, label, label!, dangling, anonymous, opt, since or until." placeholder:"KEY=VALUE"`
	Format    string   `help:"table, table TEMPLATE, json, or a Go template." placeholder:"FORMAT"`
	NoHeading bool     `name:"noheading" short:"n" help:"Leave out the heading."`
	NoTrunc   bool     `hidden:"" help:"Accepted: names are whole anyway."`
}

// Run prints the table.
func (c *ListCmd) Run(_ context.Context, s *Store, out *ui.Output) error {
	f, err := ui.ParseFilters(c.Filter, filterKeys[:]...)
	if err != nil {
		return fmt.Errorf("volume ls: %w", err)
	}
	list, err := s.Filter(f)
	if err != nil {
		return fmt.Errorf("volume ls: %w", err)
	}
	rows := make([]any, 0, len(list))
	// docker measures only in system df; a template that asks gets both.
	measure := strings.Contains(c.Format, ".Size") || strings.Contains(c.Format, ".Links")
	for _, e := range list {
		rows = append(rows, s.row(e, measure))
	}
	t := ui.Table{
		Headers: map[string]string{"Driver": "DRIVER", "Name": "VOLUME NAME", "Scope": "SCOPE", "Mountpoint": "MOUNTPOINT",
			"Labels": "LABELS", "Size": "SIZE", "Links": "LINKS", "Availability": "AVAILABILITY", "Group": "GROUP", "Status": "STATUS"},
		Default: "{{.Driver}}\t{{.Name}}", Quiet: "{{.Name}}",
	}
	format := c.Format
	if c.NoHeading && format == "" && !c.Quiet {
		format = t.Default
	}
	return t.Write(out.Out, format, c.Quiet, rows)
}

func (s *Store) row(e Entry, measure bool) row {
	r := row{Driver: e.Driver, Labels: labelText(e.Labels), Mountpoint: e.Path, Name: e.Name, Scope: "local",
		Size: "N/A", Links: "N/A", Availability: "N/A", Group: "N/A", Status: "N/A", labels: e.Labels}
	if !measure {
		return r
	}
	r.Links = fmt.Sprint(len(e.Holders))
	if n, err := s.Usage(e.Volume); err == nil {
		r.Size = ui.Size(n)
	}
	return r
}

// Usage is how many bytes the files of a volume have. It is 0 for one that its
// driver has not mounted.
func (s *Store) Usage(v *Volume) (int64, error) {
	if dir := s.MountPoint(v); dir != "" {
		return usage(dir)
	}
	return 0, nil
}

func labelText(labels map[string]string) string {
	list := make([]string, 0, len(labels))
	for k, v := range labels {
		list = append(list, k+"="+v)
	}
	slices.Sort(list)
	return strings.Join(list, ",")
}

// Inspect is docker's JSON of a volume, with podman's Anonymous.
type Inspect struct {
	CreatedAt  string
	Driver     string
	Labels     map[string]string
	Mountpoint string
	Name       string
	Options    map[string]string
	Scope      string
	Anonymous  bool     `json:",omitempty"`
	UsedBy     []string `json:",omitempty"`
}

// InspectCmd is `kist volume inspect`.
type InspectCmd struct {
	All    bool     `short:"a" help:"Describe all volumes."`
	Format string   `short:"f" help:"json or a Go template." placeholder:"FORMAT"`
	Volume []string `arg:"" optional:"" help:"Names of volumes."`
}

// Run prints what is found and goes on after an error, as docker does.
func (c *InspectCmd) Run(_ context.Context, s *Store, out *ui.Output) error {
	list, errs, err := c.pick(s)
	if err != nil {
		return err
	}
	uses, err := s.uses()
	if err != nil {
		return err
	}
	var objects []any
	for _, v := range list {
		objects = append(objects, v.inspect(uses))
	}
	return errors.Join(append([]error{ui.Inspect(out.Out, c.Format, objects)}, errs...)...)
}

// Inspect is docker's description of a volume.
func (s *Store) Inspect(name string) (any, error) {
	v, err := s.Get(name)
	if err != nil {
		return nil, err
	}
	uses, err := s.uses()
	if err != nil {
		return nil, err
	}
	return v.inspect(uses), nil
}

func (v *Volume) inspect(uses map[string][]string) Inspect {
	return Inspect{
		CreatedAt: v.Created.Format(time.RFC3339), Driver: v.Driver, Labels: v.Labels, Mountpoint: v.Path,
		Name: v.Name, Options: v.Options, Scope: "local", Anonymous: v.Anonymous, UsedBy: uses[v.Name],
	}
}

func (c *InspectCmd) pick(s *Store) (list []*Volume, errs []error, err error) {
	if c.All {
		list, err = s.List()
		return list, nil, err
	}
	if len(c.Volume) == 0 {
		return nil, nil, ui.WithCode(125, errors.New("volume inspect: no volume named"))
	}
	for _, name := range c.Volume {
		v, err := s.Get(name)
		if err != nil {
			errs = append(errs, fmt.Errorf("volume inspect %w", err))
			continue
		}
		list = append(list, v)
	}
	return list, errs, nil
}

// ExistsCmd is `kist volume exists`.
type ExistsCmd struct {
	Volume string `arg:"" help:"Name of a volume."`
}

// Run ends with 1 when there is no such volume.
func (c *ExistsCmd) Run(_ context.Context, s *Store) error {
	_, err := s.Get(c.Volume)
	if errors.Is(err, ErrNotFound) {
		return ui.Exit(1)
	}
	return err
}

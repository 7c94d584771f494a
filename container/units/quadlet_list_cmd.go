package units

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kist-containers/kist/container"
	"github.com/kist-containers/kist/internal/ui"
)

// QuadletListCmd is `kist quadlet list`.
type QuadletListCmd struct {
	Filter    []string `short:"f" sep:"none" help:"name=PATTERN or status=WORD." placeholder:"KEY=VALUE"`
	Format    string   `help:"table, table TEMPLATE, json, or a Go template." placeholder:"FORMAT"`
	NoHeading bool     `name:"noheading" short:"n" help:"Leave out the heading."`
}

// quadletRow is a row as podman's templates know it.
type quadletRow struct{ Name, UnitName, Path, Status string }

// Run prints the files and what systemd says of their services.
func (c *QuadletListCmd) Run(ctx context.Context, e *container.Engine, out *ui.Output) error {
	f, err := ui.ParseFilters(c.Filter, "name", "status")
	if err != nil {
		return fmt.Errorf("quadlet list: %w", err)
	}
	p := placeOf(e)
	all, errs := p.load()
	for _, err := range errs {
		out.Warn("%v", err)
	}
	rows := []any{}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		u := all[name]
		r := quadletRow{name, u.service + ".service", u.Path, p.status(ctx, u)}
		if f.Match("name", func(v string) bool { ok, _ := filepath.Match(v, name); return ok }) &&
			f.Match("status", func(v string) bool { return strings.HasPrefix(r.Status, v) }) {
			rows = append(rows, r)
		}
	}
	t := ui.Table{
		Headers:   map[string]string{"Name": "NAME", "UnitName": "UNIT NAME", "Path": "PATH ON DISK", "Status": "STATUS"},
		Default:   "{{.Name}}\t{{.UnitName}}\t{{.Path}}\t{{.Status}}",
		NoHeading: c.NoHeading,
	}
	return t.Write(out.Out, c.Format, false, rows)
}

// status is podman's word for what systemd says.
func (p place) status(ctx context.Context, u *unit) string {
	m := manager{p.User}
	if !m.runs() {
		return "systemd does not run"
	}
	text, _ := m.do(ctx, "show", "--property=LoadState,ActiveState,SubState", "--value", u.service+".service")
	list := strings.Fields(text)
	switch {
	case len(list) != 3:
		return "unknown"
	case list[0] != "loaded":
		return "Not loaded"
	}
	return list[1] + "/" + list[2]
}

// hostUID is who the caller is outside of the user namespace.
func hostUID(rootless bool) int {
	if !rootless {
		return 0
	}
	data, err := os.ReadFile("/proc/self/uid_map")
	inside, outside := -1, -1
	if err == nil {
		fmt.Sscan(string(data), &inside, &outside)
	}
	if inside != 0 {
		return os.Getuid()
	}
	return outside
}

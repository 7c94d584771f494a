package image

import (
	"bufio"
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kist-containers/kist/internal/ui"
)

// Pruned is what a prune removed.
type Pruned struct {
	Removed   []Removed
	Reclaimed int64
}

// Prune removes the images that nothing uses: those without a name, or all of
// them. f may hold until, label, label! and dangling.
func (s *Store) Prune(ctx context.Context, all bool, f ui.Filters) (Pruned, error) {
	var p Pruned
	if v := f["dangling"]; len(v) > 0 {
		all = v[0] == "false" || v[0] == "0"
		delete(f, "dangling")
	}
	before, err := s.Usage()
	if err != nil {
		return p, err
	}
	list, err := s.Filter(f, time.Now())
	if err != nil {
		return p, err
	}
	uses, err := s.uses()
	if err != nil {
		return p, err
	}
	victims := map[string]bool{}
	for _, img := range list {
		if (all || len(img.Names) == 0) && !used(uses, img.ID) {
			victims[img.ID] = true
		}
	}
	var gone []entry
	err = s.update(ctx, func(entries []entry) ([]entry, error) {
		return slices.DeleteFunc(entries, func(e entry) bool {
			if !victims[e.id()] && !victims[e.Digest.String()] {
				return false
			}
			gone = append(gone, e)
			return true
		}), nil
	})
	if err != nil {
		return p, err
	}
	p.Removed = untaggedAll(gone, nil)
	for id := range victims {
		p.Removed = append(p.Removed, Removed{Deleted: id})
		s.event(id, "delete", id)
	}
	layers, err := s.collect(ctx)
	for _, l := range layers {
		p.Removed = append(p.Removed, Removed{Deleted: l})
	}
	after, uerr := s.Usage()
	p.Reclaimed = max(0, before.Disk-after.Disk)
	if s.o.Event != nil {
		s.o.Event("", "prune", map[string]string{"reclaimed": strconv.FormatInt(p.Reclaimed, 10)})
	}
	return p, errors.Join(err, uerr)
}

// PruneCmd is `kist image prune`.
type PruneCmd struct {
	All    bool     `short:"a" help:"All images without a container, not only those without a name."`
	Filter []string `sep:"none" help:"until=TIME, label=KEY[=VALUE], label!=KEY[=VALUE], dangling=BOOL." placeholder:"KEY=VALUE"`
	Force  bool     `short:"f" help:"Do not ask."`
}

// Run asks, prunes, and says what it gained.
func (c *PruneCmd) Run(ctx context.Context, s *Store, out *ui.Output) error {
	f, err := ui.ParseFilters(c.Filter, "until", "label", "label!", "dangling")
	if err != nil {
		return err
	}
	what := "all dangling images"
	if c.All {
		what = "all images without at least one container associated to them"
	}
	if !c.Force && !confirm(out, "WARNING! This will remove "+what+".") {
		return nil
	}
	p, err := s.Prune(ctx, c.All, f)
	if len(p.Removed) > 0 {
		out.Print("Deleted Images:")
	}
	for _, r := range p.Removed {
		if r.Untagged != "" {
			out.Printf("untagged: %s\n", r.Untagged)
		} else {
			out.Printf("deleted: %s\n", r.Deleted)
		}
	}
	if len(p.Removed) > 0 {
		out.Print()
	}
	out.Printf("Total reclaimed space: %s\n", ui.Size(p.Reclaimed))
	return err
}

// confirm asks on the terminal; anything but y is no.
func confirm(out *ui.Output, warning string) bool {
	out.Printf("%s\nAre you sure you want to continue? [y/N] ", warning)
	line, _ := bufio.NewReader(out.In).ReadString('\n')
	answer := strings.ToLower(strings.TrimSpace(line))
	return answer == "y" || answer == "yes"
}

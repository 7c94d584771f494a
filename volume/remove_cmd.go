package volume

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/kist-containers/kist/internal/ui"
)

// RmCmd is `kist volume rm`.
type RmCmd struct {
	All    bool     `short:"a" help:"Remove all volumes that nobody uses."`
	Force  bool     `short:"f" help:"Do not mind a volume that is not there."`
	Volume []string `arg:"" optional:"" help:"Names of volumes."`
}

// Run removes one volume after another and goes on after an error.
func (c *RmCmd) Run(ctx context.Context, s *Store, out *ui.Output) error {
	names := c.Volume
	if c.All {
		list, err := s.Filter(ui.Filters{"dangling": {"true"}})
		if err != nil {
			return err
		}
		for _, e := range list {
			names = append(names, e.Name)
		}
	}
	if len(names) == 0 && !c.All {
		return ui.WithCode(125, errors.New("volume rm: no volume named"))
	}
	var errs []error
	for _, name := range names {
		err := s.Remove(ctx, name)
		switch {
		case errors.Is(err, ErrNotFound) && c.Force:
		case err != nil:
			errs = append(errs, fmt.Errorf("volume rm %w", err))
			continue
		}
		out.Print(name)
	}
	return errors.Join(errs...)
}

// PruneCmd is `kist volume prune`.
type PruneCmd struct {
	All    bool     `short:"a" help:"Also volumes with a name."`
	Force  bool     `short:"f" help:"Do not ask."`
	DryRun bool     `help:"Only say what would go."`
	Filter []string `sep:"none" help:"label, label!, until, name or all." placeholder:"KEY=VALUE"`
}

// Run asks, removes, and prints docker's list.
func (c *PruneCmd) Run(ctx context.Context, s *Store, out *ui.Output) error {
	f, err := ui.ParseFilters(c.Filter, filterKeys[:]...)
	if err != nil {
		return fmt.Errorf("volume prune: %w", err)
	}
	all := c.All
	for _, v := range f["all"] {
		b, err := strconv.ParseBool(v)
		if err != nil {
			return fmt.Errorf("volume prune: --filter all=%s: want true or false", v)
		}
		all = all || b
	}
	if !c.Force && !c.DryRun && !c.confirmed(out, all) {
		return nil
	}
	p, err := s.Prune(ctx, all, c.DryRun, f)
	if len(p.Names) > 0 {
		out.Print("Deleted Volumes:")
		for _, n := range p.Names {
			out.Print(n)
		}
		out.Print()
	}
	out.Printf("Total reclaimed space: %s\n", ui.Size(p.Reclaimed))
	return err
}

func (c *PruneCmd) confirmed(out *ui.Output, all bool) bool {
	what := "anonymous volumes not used by at least one container"
	if all {
		what = "all volumes not used by at least one container"
	}
	out.Printf("WARNING! This will remove %s.\nAre you sure you want to continue? [y/N] ", what)
	line, _ := bufio.NewReader(out.In).ReadString('\n')
	answer := strings.ToLower(strings.TrimSpace(line))
	return answer == "y" || answer == "yes"
}

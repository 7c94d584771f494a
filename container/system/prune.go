package system

import (
	"context"
	"errors"
	"fmt"

	"github.com/kist-containers/kist/build"
	"github.com/kist-containers/kist/container"
	"github.com/kist-containers/kist/image"
	"github.com/kist-containers/kist/internal/ui"
	"github.com/kist-containers/kist/network"
	"github.com/kist-containers/kist/volume"
)

// PruneCmd is `kist system prune`.
type PruneCmd struct {
	All     bool     `short:"a" help:"All images without a container, not only those without a name."`
	Filter  []string `sep:"none" help:"until=TIME, label=KEY[=VALUE], label!=KEY[=VALUE]." placeholder:"KEY=VALUE"`
	Force   bool     `short:"f" help:"Do not ask."`
	Volumes bool     `help:"Anonymous volumes too."`
	// External is podman's; no other program keeps containers in kist's root.
	External bool `hidden:""`
}

func (c *PruneCmd) warning() string {
	w := "WARNING! This will remove:\n  - all stopped containers\n  - all networks not used by at least one container\n"
	if c.Volumes {
		w += "  - all anonymous volumes not used by at least one container\n"
	}
	if c.All {
		return w + "  - all images without at least one container associated to them\n  - all build cache\n"
	}
	return w + "  - all dangling images\n  - unused build cache\n"
}

// Run removes what nothing uses: containers first, as they hold the rest.
func (c *PruneCmd) Run(ctx context.Context, e *container.Engine, s *image.Store, n *network.Manager, v *volume.Store, b *build.Builder, out *ui.Output) error {
	parse := func() (ui.Filters, error) { return ui.ParseFilters(c.Filter, "until", "label", "label!") }
	f, err := parse()
	if err != nil {
		return fmt.Errorf("system prune: %w", err)
	}
	if c.Volumes && len(f["until"]) > 0 {
		return errors.New("system prune: --volumes and --filter until=… contradict each other")
	}
	if !c.Force && !out.Confirm(c.warning()) {
		return nil
	}
	var total int64
	var errs []error
	containers, err := e.Prune(ctx, f)
	total, errs = containers.Reclaimed, append(errs, err)
	list(out, "Deleted Containers:", containers.IDs)
	networks, err := n.Prune(ctx, f)
	errs = append(errs, err)
	list(out, "Deleted Networks:", networks)
	if c.Volumes {
		volumes, err := v.Prune(ctx, false, false, f)
		total, errs = total+volumes.Reclaimed, append(errs, err)
		list(out, "Deleted Volumes:", volumes.Names)
	}
	f, _ = parse()
	images, err := s.Prune(ctx, c.All, f)
	total, errs = total+images.Reclaimed, append(errs, err)
	var lines []string
	for _, r := range images.Removed {
		if r.Untagged != "" {
			lines = append(lines, "untagged: "+r.Untagged)
		} else {
			lines = append(lines, "deleted: "+r.Deleted)
		}
	}
	list(out, "Deleted Images:", lines)
	if len(c.Filter) == 0 {
		records, err := b.Prune(ctx, build.Prune{Private: !c.All})
		errs = append(errs, err)
		lines = nil
		for _, r := range records {
			total += r.Size
			lines = append(lines, short(r.Key))
		}
		list(out, "Deleted build cache objects:", lines)
	}
	out.Printf("Total reclaimed space: %s\n", ui.Size(total))
	return errors.Join(errs...)
}

func list(out *ui.Output, title string, lines []string) {
	if len(lines) == 0 {
		return
	}
	out.Print(title)
	for _, l := range lines {
		out.Print(l)
	}
	out.Print()
}

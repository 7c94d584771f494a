package system

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/kist-containers/kist/container"
	"github.com/kist-containers/kist/image"
	"github.com/kist-containers/kist/internal/state"
	"github.com/kist-containers/kist/internal/sys"
	"github.com/kist-containers/kist/internal/ui"
	"github.com/kist-containers/kist/network"
	"github.com/kist-containers/kist/volume"
)

// ResetCmd is `kist system reset`.
type ResetCmd struct {
	Force bool `short:"f" help:"Do not ask."`
}

const resetWarning = `WARNING! This will remove:
  - all containers, also those that run
  - all images and the build cache
  - all networks
  - all volumes and what is in them
  - all secrets
below %s and %s.`

// Run removes everything, what holds the rest first. Where something stays in
// use, nothing further goes.
func (c *ResetCmd) Run(ctx context.Context, e *container.Engine, s *image.Store, n *network.Manager, v *volume.Store, out *ui.Output) error {
	if !c.Force && !out.Confirm(fmt.Sprintf(resetWarning, e.Roots.Data, e.Roots.Run)) {
		return nil
	}
	for _, step := range []func() error{
		func() error { return e.RemoveAll(ctx) },
		func() error { _, err := n.Prune(ctx, nil); return err },
		func() error { return removeVolumes(ctx, v) },
		func() error { return unmountImages(ctx, s) },
		func() error { return removeRoots(e.Roots) },
	} {
		if err := step(); err != nil {
			return fmt.Errorf("system reset: %w", err)
		}
	}
	return nil
}

func removeVolumes(ctx context.Context, v *volume.Store) error {
	list, err := v.List()
	errs := []error{err}
	for _, x := range list {
		errs = append(errs, v.Remove(ctx, x.Name))
	}
	return errors.Join(errs...)
}

func unmountImages(ctx context.Context, s *image.Store) error {
	var errs []error
	for id := range s.Mounts() {
		errs = append(errs, s.Unmount(ctx, id))
	}
	return errors.Join(errs...)
}

// What kist keeps in its two trees. Whatever else is there is not kist's.
var (
	dataNames = [...]string{"container", "image", "layer", "build", "network", "volume", "secret", "lock"}
	runNames  = [...]string{"container", "container-mount", "image-mount", "build", "network", "netns", "port", "runtime", "volume",
		"events.jsonl", "events.jsonl.1", "iptables.known", "ip6tables.known", "lock"}
)

func removeRoots(r state.Roots) error {
	var errs []error
	for root, names := range map[string][]string{r.Data: dataNames[:], r.Run: runNames[:]} {
		for _, name := range names {
			path := filepath.Join(root, name)
			below, err := sys.MountsBelow(path)
			switch {
			case err != nil:
				return err
			case len(below) > 0:
				errs = append(errs, ui.Hint(fmt.Errorf("something is mounted on %s", below[0]), "umount %s", below[0]))
			default:
				errs = append(errs, state.Remove(path))
			}
		}
		os.Remove(root) // where it is empty now
	}
	return errors.Join(errs...)
}

package container

import (
	"context"
	"errors"
	"fmt"

	"github.com/kist-containers/kist/internal/ui"
)

// MountCmd is `kist mount`.
type MountCmd struct {
	latestFlag `embed:""`
	All        bool     `short:"a" help:"Mount all containers."`
	Format     string   `help:"json." enum:",json" default:"" placeholder:"FORMAT"`
	NoTrunc    bool     `help:"Show whole IDs."`
	Containers []string `arg:"" optional:"" name:"container" help:"Containers; without any, list the mounts."`
}

func (*MountCmd) Help() string {
	return `  kist mount web                      print where its files are
  ls $(kist mount web)/etc            look at them
  kist mount                          list what is mounted
  kist unmount web                    and take it away`
}

// mountRow is podman's JSON of a mount.
type mountRow struct {
	ID         string `json:"id"`
	Names      []string
	Mountpoint string `json:"mountpoint"`
}

// Run mounts containers and prints where, or lists the mounts.
func (c *MountCmd) Run(ctx context.Context, e *Engine, out *ui.Output) error {
	if !c.All && !c.Latest && len(c.Containers) == 0 {
		return c.list(e, out)
	}
	names, err := e.choose(c.Containers, c.All, c.Latest, choice{}, nil)
	if err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	var rows []any
	var errs []error
	for _, name := range names {
		ct, err := e.Lookup(name)
		var dir string
		if err == nil {
			dir, err = e.MountRoot(ctx, ct)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("mount %s: %w", name, err))
			continue
		}
		rows = append(rows, mountRow{ct.ID, []string{ct.Name}, dir})
	}
	return errors.Join(c.print(out, rows, len(names) == 1), together(out, errs))
}

func (c *MountCmd) list(e *Engine, out *ui.Output) error {
	list, err := e.mountedRoots()
	if err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	rows := []any{}
	for _, ct := range list {
		rows = append(rows, mountRow{ct.ID, []string{ct.Name}, e.mountDir(ct.ID)})
	}
	return c.print(out, rows, false)
}

// print writes podman's rows: the place alone of the one that was asked for.
func (c *MountCmd) print(out *ui.Output, rows []any, one bool) error {
	if c.Format == "json" {
		return ui.Inspect(out.Out, "", rows)
	}
	for _, r := range rows {
		row := r.(mountRow)
		switch {
		case one:
			out.Print(row.Mountpoint)
		case c.NoTrunc:
			out.Printf("%s %s\n", row.ID, row.Mountpoint)
		default:
			out.Printf("%s %s\n", shortID(row.ID), row.Mountpoint)
		}
	}
	return nil
}

// UnmountCmd is `kist unmount`.
type UnmountCmd struct {
	latestFlag `embed:""`
	All        bool     `short:"a" help:"Unmount all containers."`
	Force      bool     `short:"f" help:"Accepted; a mount in use goes when its users do."`
	Containers []string `arg:"" optional:"" name:"container" help:"Containers to unmount."`
}

// Run unmounts containers and prints which.
func (c *UnmountCmd) Run(ctx context.Context, e *Engine, out *ui.Output) error {
	if c.All && len(c.Containers) == 0 {
		list, err := e.mountedRoots()
		if err != nil {
			return fmt.Errorf("unmount: %w", err)
		}
		for _, ct := range list {
			c.Containers = append(c.Containers, shortID(ct.ID))
		}
		if len(list) == 0 {
			return nil
		}
		c.All = false
	}
	names, err := e.choose(c.Containers, c.All, c.Latest, choice{}, nil)
	if err != nil {
		return fmt.Errorf("unmount: %w", err)
	}
	return each(e, out, "unmount", names, func(ct *Config) error { return e.UnmountRoot(ctx, ct) })
}

package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kist-containers/kist/image"
	"github.com/kist-containers/kist/internal/state"
	"github.com/kist-containers/kist/internal/ui"
	"github.com/kist-containers/kist/volume"
)

// DiffCmd is `kist diff`.
type DiffCmd struct {
	latestFlag `embed:""`
	Format     string `help:"Format by a template, or json." placeholder:"TEMPLATE"`
	Container  string `arg:"" optional:"" help:"Container."`
}

// diffRow is a row as podman's templates know it.
type diffRow struct{ Path, Kind string }

// Run lists what the container changed in its root file system.
func (c *DiffCmd) Run(e *Engine, out *ui.Output) error {
	ct, err := e.one(c.Container, c.Latest)
	if err != nil {
		return fmt.Errorf("%s: %w", strings.TrimSpace("diff "+c.Container), err)
	}
	if len(ct.Lowers) == 0 {
		return fmt.Errorf("diff %s: its root file system is a plain directory", c.Container)
	}
	changes, err := e.Images.Changes(e.dataDir(ct.ID, upperDir), ct.Lowers)
	if err != nil {
		return fmt.Errorf("diff %s: %w", c.Container, err)
	}
	var rows []any
	for _, ch := range withoutMountPoints(changes) {
		rows = append(rows, diffRow{ui.Escape(ch.Path), string(ch.Kind)})
	}
	format := c.Format
	if format == "" {
		format = "{{.Kind}} {{.Path}}"
	}
	return ui.Table{}.Write(out.Out, format, false, rows)
}

// ExportCmd is `kist export`.
type ExportCmd struct {
	Output    string `short:"o" help:"Write to a file instead of standard output." placeholder:"FILE"`
	Container string `arg:"" help:"Container."`
}

// Run writes the root file system as a tar archive.
func (c *ExportCmd) Run(ctx context.Context, e *Engine, out *ui.Output) (err error) {
	ct, err := e.Lookup(c.Container)
	if err != nil {
		return fmt.Errorf("export %s: %w", c.Container, err)
	}
	w := io.Writer(out.Out)
	if c.Output != "" {
		f, err := os.OpenFile(c.Output, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return fmt.Errorf("export: %w", err)
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		w = f
	} else if ui.IsTerminal(out.Out) {
		return ui.Hint(errors.New("export: refusing to write an archive to a terminal"), "kist export -o FILE %s", c.Container)
	}
	root, err := e.openOwnFiles(ct)
	if err != nil {
		return fmt.Errorf("export %s: %w", c.Container, err)
	}
	defer root.Close()
	// The dot makes the last step a directory, where no link is followed.
	if err := image.WriteTreeAs(ctx, w, fmt.Sprintf("/proc/self/fd/%d/.", root.Fd()), e.ownersOf(ct).inside); err != nil {
		return fmt.Errorf("export %s: %w", c.Container, err)
	}
	e.event(ct, "export", nil)
	return nil
}

// CommitCmd is `kist commit`.
type CommitCmd struct {
	Author  string   `short:"a" help:"Author of the image." placeholder:"NAME"`
	Change  []string `short:"c" sep:"none" help:"Apply a Dockerfile instruction." placeholder:"INSTRUCTION"`
	Message string   `short:"m" help:"Message in the image's history." placeholder:"TEXT"`
	Pause   bool     `short:"p" negatable:"" default:"true" help:"Pause the container meanwhile."`
	Quiet   bool     `short:"q" help:"Say nothing but the ID; so it does anyway." hidden:""`
	Iidfile string   `help:"Write the image's ID to a file." placeholder:"FILE"`
	Config  string   `help:"Read the image's configuration from a JSON file, as inspect shows it." placeholder:"FILE"`
	Format  string   `short:"f" enum:"oci,docker" default:"oci" help:"Media types of the image: oci or docker."`
	// IncludeVolumes is podman's.
	IncludeVolumes bool   `help:"Make volumes of the image out of what is mounted with -v and --mount."`
	Squash         bool   `short:"s" help:"Make one layer of what is new; so it does anyway." hidden:""`
	Container      string `arg:"" help:"Container."`
	Image          string `arg:"" optional:"" help:"Name of the image."`
}

// Run makes an image of what the container changed.
func (c *CommitCmd) Run(ctx context.Context, e *Engine, out *ui.Output) error {
	ct, err := e.Lookup(c.Container)
	if err == nil && ct.ImageID == "" {
		err = errors.New("it was not made from an image")
	}
	var img *image.Image
	if err == nil {
		img, err = c.commit(ctx, e, ct)
	}
	if err != nil {
		return fmt.Errorf("commit %s: %w", c.Container, err)
	}
	e.event(ct, "commit", map[string]string{"imageID": img.ID, "imageRef": c.Image})
	if c.Iidfile != "" {
		if err := os.WriteFile(c.Iidfile, []byte(img.ID), 0o644); err != nil {
			return fmt.Errorf("commit: %w", err)
		}
	}
	out.Print(img.ID)
	return nil
}

func (c *CommitCmd) commit(ctx context.Context, e *Engine, ct *Config) (*image.Image, error) {
	base, err := e.Images.Resolve(ct.ImageID)
	if err != nil {
		return nil, err
	}
	pin, err := e.Images.Pin(ctx)
	if err != nil {
		return nil, err
	}
	defer pin.Unlock()
	if c.Pause && e.Status(ct.ID).Word == StatusRunning && e.pause(ct) == nil {
		defer e.unpause(ct)
	}
	descriptors, err := e.Images.LayerDescriptors(base)
	if err != nil {
		return nil, err
	}
	whole, diff := io.Pipe()
	go func() {
		diff.CloseWithError(e.Images.WriteDiff(ctx, diff, e.dataDir(ct.ID, upperDir), ct.Lowers, e.diskOwners(ct)))
	}()
	r, w := io.Pipe()
	go func() {
		err := copyWithoutMountPoints(w, whole)
		whole.CloseWithError(err)
		w.CloseWithError(err)
	}()
	parent := ""
	if chain := base.ChainIDs(); len(chain) > 0 {
		parent = chain[len(chain)-1]
	}
	layer, d, err := e.Images.AddLayer(ctx, parent, r, image.LayerOptions{})
	r.CloseWithError(err)
	if err != nil {
		return nil, err
	}
	cfg, err := c.config(ct, base, layer)
	if err != nil {
		return nil, err
	}
	var names []string
	if c.Image != "" {
		names = []string{c.Image}
	}
	if c.Format == "docker" {
		return e.Images.AddDockerImage(ctx, cfg, append(descriptors, d), names)
	}
	return e.Images.AddImage(ctx, cfg, append(descriptors, d), names)
}

// config is the base's configuration with the container's own settings.
func (c *CommitCmd) config(ct *Config, base *image.Image, layer image.Layer) (*v1.ConfigFile, error) {
	cfg := base.Config.DeepCopy()
	now := v1.Time{Time: time.Now().UTC()}
	diffID, err := v1.NewHash(layer.DiffID)
	if err != nil {
		return nil, err
	}
	cfg.Created, cfg.Author = now, c.Author
	cfg.RootFS.DiffIDs = append(cfg.RootFS.DiffIDs, diffID)
	cfg.History = append(cfg.History, v1.History{Created: now, Author: c.Author, Comment: c.Message, CreatedBy: strings.Join(ct.Args(), " ")})
	cfg.Config.Entrypoint, cfg.Config.Cmd, cfg.Config.Env = ct.Entrypoint, ct.Cmd, ct.Env
	cfg.Config.WorkingDir, cfg.Config.User, cfg.Config.Labels, cfg.Config.StopSignal = ct.WorkingDir, ct.User, ct.Labels, ct.StopSignal
	for _, p := range ct.exposedPorts() {
		if cfg.Config.ExposedPorts == nil {
			cfg.Config.ExposedPorts = map[string]struct{}{}
		}
		cfg.Config.ExposedPorts[p] = struct{}{}
	}
	if c.IncludeVolumes {
		cfg.Config.Volumes = withVolumes(cfg.Config.Volumes, ct.Mounts)
	}
	if c.Config != "" {
		cfg.Config = v1.Config{}
		if err := state.ReadJSON(c.Config, &cfg.Config); err != nil {
			return nil, fmt.Errorf("--config: %w", err)
		}
	}
	return cfg, image.ApplyChanges(&cfg.Config, c.Change)
}

// withVolumes adds the places of what the user mounted.
func withVolumes(volumes map[string]struct{}, mounts []volume.Mount) map[string]struct{} {
	all := maps.Clone(volumes)
	if all == nil {
		all = map[string]struct{}{}
	}
	for _, m := range mounts {
		if m.Type == volume.TypeVolume || m.Type == volume.TypeBind {
			all[m.Target] = struct{}{}
		}
	}
	return all
}

// RenameCmd is `kist rename`.
type RenameCmd struct {
	Container string `arg:"" help:"Container."`
	Name      string `arg:"" help:"New name."`
}

// Run renames a container.
func (c *RenameCmd) Run(ctx context.Context, e *Engine) error {
	if err := c.rename(ctx, e); err != nil {
		return fmt.Errorf("rename %s: %w", c.Container, err)
	}
	return nil
}

func (c *RenameCmd) rename(ctx context.Context, e *Engine) error {
	if c.Name == "" {
		return errors.New("a new name is needed")
	}
	if !validName(c.Name) {
		return fmt.Errorf("new name %s: %s", c.Name, wantName)
	}
	ct, err := e.Lookup(c.Container)
	if err != nil {
		return err
	}
	lock, err := e.lock(ctx, ct.ID)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	if ct, err = e.read(ct.ID); err != nil {
		return err
	}
	if ct.Name == c.Name {
		return errors.New("it has that name already")
	}
	if err := e.claim(ctx, c.Name, ct.ID); err != nil {
		return err
	}
	old := ct.Name
	ct.Name = c.Name
	if err := e.write(ct); err != nil {
		e.unclaim(c.Name, ct.ID)
		return err
	}
	e.unclaim(old, ct.ID)
	e.event(ct, "rename", map[string]string{"oldName": "/" + old})
	return e.Networks.Rename(ctx, ct.ID, c.Name)
}

package container

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/kist-containers/kist/internal/ui"
)

// CloneCmd is `kist container clone`.
type CloneCmd struct {
	limitFlags `embed:""`
	Name       string `help:"Name of the new container (NAME-clone)." placeholder:"NAME"`
	Destroy    bool   `help:"Remove the container that is cloned."`
	Force      bool   `short:"f" help:"With --destroy, also if it runs."`
	Start      bool   `name:"run" help:"Start the new container."`
	Pod        string `hidden:""`
	Container  string `arg:"" help:"Container to clone."`
	NewName    string `arg:"" optional:"" help:"Name of the new container."`
	Image      string `arg:"" optional:"" help:"Another image for it."`
}

func (*CloneCmd) Help() string {
	return `  kist container clone web                            like web, as web-clone
  kist container clone --run web web2 nginx:1.29      another image, and started
  kist container clone --destroy -f --memory 1g web   one that takes its place`
}

// Validate refuses flags that contradict each other.
func (c *CloneCmd) Validate() error {
	switch {
	case c.Name != "" && c.NewName != "":
		return errors.New("--name and a second name contradict each other")
	case c.Force && !c.Destroy:
		return errors.New("-f needs --destroy too")
	case c.Pod != "":
		return errors.New("--pod: kist has no pods")
	}
	return nil
}

// Run makes the new container and prints its ID.
func (c *CloneCmd) Run(ctx context.Context, e *Engine, out *ui.Output) error {
	if err := c.clone(ctx, e, out); err != nil {
		return ui.WithCode(failedCode, fmt.Errorf("container clone %s: %w", c.Container, err))
	}
	return nil
}

func (c *CloneCmd) clone(ctx context.Context, e *Engine, out *ui.Output) error {
	old, err := e.Lookup(c.Container)
	if err != nil {
		return err
	}
	if c.Destroy && !c.Force && e.Status(old.ID).Busy() {
		return ui.Hint(ErrRunning, "kist container clone --destroy -f %s", c.Container)
	}
	wish, src, err := c.wish(e, old)
	if err != nil {
		return err
	}
	progress := out.Progress()
	src.Pull.Progress = progress
	ct, err := e.Create(ctx, wish, src)
	progress.Close()
	if err != nil {
		return err
	}
	defer ct.Release()
	if c.Destroy {
		if err := (&RmCmd{Force: c.Force}).remove(ctx, e, old.ID); err != nil {
			return errors.Join(err, e.remove(context.WithoutCancel(ctx), ct.Config, true))
		}
	}
	if c.Start {
		if err := e.Start(ctx, ct.Config, nil, nil); err != nil {
			return err
		}
	}
	out.Print(ct.ID)
	return nil
}

// wish is the new container as it would have to be asked for.
func (c *CloneCmd) wish(e *Engine, old *Config) (*Config, source, error) {
	n, src := e.again(old)
	if c.Image != "" {
		src.Image, src.Rootfs, n.RootfsOverlay = c.Image, false, false
	}
	f := createFlags{resourceFlags: c.all(), identityFlags: identityFlags{Name: cmp.Or(c.Name, c.NewName, old.Name+"-clone")}}
	var limits, named Config
	if err := errors.Join(f.limits(&limits), f.identity(&named)); err != nil {
		return nil, src, err
	}
	n.Name = named.Name
	n.Limits.merge(&limits.Limits)
	return n, src, n.Limits.check()
}

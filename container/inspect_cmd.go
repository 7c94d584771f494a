package container

import (
	"errors"
	"fmt"

	"github.com/kist-containers/kist/image"
	"github.com/kist-containers/kist/internal/ui"
	"github.com/kist-containers/kist/network"
	"github.com/kist-containers/kist/volume"
)

// InspectCmd is `kist inspect` for containers.
type InspectCmd struct {
	Format     string `short:"f" help:"Format by a template, or json." placeholder:"TEMPLATE"`
	Size       bool   `short:"s" help:"Show sizes."`
	Type       string `help:"Kind of object: container, image, network or volume." placeholder:"TYPE"`
	latestFlag `embed:""`
	Names      []string `arg:"" optional:"" name:"name" help:"Containers, images, networks or volumes."`
}

// Run prints all that is known, as JSON.
func (c *InspectCmd) Run(e *Engine, out *ui.Output) error {
	names, err := e.choose(c.Names, false, c.Latest, choice{}, nil)
	if err != nil {
		return fmt.Errorf("inspect: %w", err)
	}
	var objects []any
	var errs []error
	for _, name := range names {
		o, err := c.inspect(e, name)
		if err != nil {
			errs = append(errs, fmt.Errorf("inspect %s: %w", name, err))
			continue
		}
		objects = append(objects, o)
	}
	if err := ui.Inspect(out.Out, c.Format, objects); err != nil {
		return fmt.Errorf("inspect: %w", err)
	}
	return together(out, errs)
}

// inspect describes the first kind of object that has the name, in docker's order.
func (c *InspectCmd) inspect(e *Engine, name string) (any, error) {
	known := false
	none := ui.Hint(errors.New("no such object"), "kist ps -a; kist images; kist network ls; kist volume ls")
	for _, kind := range []struct {
		name     string
		inspect  func() (any, error)
		notFound error
	}{
		{"container", func() (any, error) { return e.inspectNamed(name, c.Size) }, ErrNotFound},
		{"image", func() (any, error) { return e.inspectImage(name) }, image.ErrNotFound},
		{"network", func() (any, error) { return e.Networks.Inspect(name) }, network.ErrNotFound},
		{"volume", func() (any, error) { return e.Volumes.Inspect(name) }, volume.ErrNotFound},
	} {
		if c.Type != "" && c.Type != kind.name {
			continue
		}
		known = true
		o, err := kind.inspect()
		switch {
		case err == nil || c.Type != "":
			return o, err
		case !errors.Is(err, kind.notFound):
			none = err // a name that no image can have, say
		}
	}
	if !known {
		return nil, fmt.Errorf("--type %s: want container, image, network or volume", c.Type)
	}
	return nil, none
}

func (e *Engine) inspectNamed(name string, size bool) (any, error) {
	c, err := e.Lookup(name)
	if err != nil {
		return nil, err
	}
	return e.Inspect(c, size), nil
}

func (e *Engine) inspectImage(name string) (any, error) {
	img, err := e.Images.Resolve(name)
	if err != nil {
		return nil, err
	}
	return img.Inspect(), nil
}

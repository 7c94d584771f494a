package container

import (
	"errors"
	"fmt"

	"github.com/kist-containers/kist/internal/ui"
)

// InspectCmd is `kist inspect` for containers.
type InspectCmd struct {
	Format     string   `short:"f" help:"Format by a template, or json." placeholder:"TEMPLATE"`
	Size       bool     `short:"s" help:"Show sizes."`
	Type       string   `help:"Kind of object: container, image." placeholder:"TYPE"`
	Containers []string `arg:"" name:"name" help:"Containers or images."`
}

// Run prints all that is known, as JSON.
func (c *InspectCmd) Run(e *Engine, out *ui.Output) error {
	var objects []any
	var errs []error
	for _, name := range c.Containers {
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

func (c *InspectCmd) inspect(e *Engine, name string) (any, error) {
	if c.Type == "" || c.Type == "container" {
		ct, err := e.Lookup(name)
		if err == nil {
			return e.Inspect(ct, c.Size), nil
		}
		if c.Type == "container" || !errors.Is(err, ErrNotFound) {
			return nil, err
		}
	}
	if c.Type == "" || c.Type == "image" {
		if img, err := e.Images.Resolve(name); err == nil {
			return img.Inspect(), nil
		} else if c.Type == "image" {
			return nil, err
		}
	}
	if c.Type != "" {
		return nil, fmt.Errorf("--type %s: no such kind of object", c.Type)
	}
	return nil, ui.Hint(errors.New("no such container or image"), "kist ps -a; kist images")
}

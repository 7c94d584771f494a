package volume

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/kist-containers/kist/internal/ui"
)

// CreateCmd is `kist volume create`.
type CreateCmd struct {
	Driver string   `short:"d" default:"local" help:"local, or the name of a volume plugin." placeholder:"NAME"`
	Label  []string `short:"l" sep:"none" help:"Label of the volume." placeholder:"KEY=VALUE"`
	Opt    []string `short:"o" sep:"none" help:"Driver's option: type, device, o, size." placeholder:"KEY=VALUE"`
	Ignore bool     `help:"Do not mind that the volume is there, whatever it is."`
	UID    *int     `name:"uid" help:"Owner of the volume's directory." placeholder:"UID"`
	GID    *int     `name:"gid" help:"Group of the volume's directory." placeholder:"GID"`
	Flag   string   `name:"name" hidden:"" help:"The volume's name, as an argument is."`
	Name   string   `arg:"" name:"volume" optional:"" help:"Name; made up when there is none."`
}

// Run makes the volume and prints its name.
func (c *CreateCmd) Run(ctx context.Context, s *Store, out *ui.Output) error {
	v, err := c.volume()
	if err == nil && c.Ignore {
		if have, errGet := s.Get(v.Name); errGet == nil {
			out.Print(have.Name)
			return nil
		}
	}
	if err == nil {
		_, err = s.Ensure(ctx, v)
	}
	if err != nil {
		return fmt.Errorf("volume create: %w", err)
	}
	out.Print(v.Name)
	return nil
}

func (c *CreateCmd) volume() (Volume, error) {
	v := Volume{Name: c.Name, Driver: c.Driver, UID: c.UID, GID: c.GID}
	switch {
	case c.Flag != "" && c.Name != "":
		return v, errors.New("--name and a name are both given")
	case c.Flag != "":
		v.Name = c.Flag
	case c.Name == "":
		v.Name, v.Anonymous = NewName(), true
	}
	if c.UID != nil && *c.UID < 0 || c.GID != nil && *c.GID < 0 {
		return v, errors.New("--uid and --gid want a number from 0 on")
	}
	var err error
	if v.Options, err = pairs("--opt", c.Opt); err != nil {
		return v, err
	}
	v.Labels, err = pairs("--label", c.Label)
	return v, err
}

func pairs(flag string, list []string) (map[string]string, error) {
	if len(list) == 0 {
		return nil, nil
	}
	m := map[string]string{}
	for _, p := range list {
		k, v, _ := strings.Cut(p, "=")
		if k == "" {
			return nil, fmt.Errorf("%s %s: want KEY=VALUE", flag, p)
		}
		m[k] = v
	}
	return m, nil
}

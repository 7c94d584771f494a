package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/kist-containers/kist/internal/ui"
)

// SecretCmds is `kist secret`.
type SecretCmds struct {
	Create  SecretCreateCmd  `cmd:"" help:"Keep a file, or standard input, as a secret."`
	Ls      SecretLsCmd      `cmd:"" aliases:"list" help:"List secrets."`
	Inspect SecretInspectCmd `cmd:"" help:"Describe secrets as JSON."`
	Rm      SecretRmCmd      `cmd:"" aliases:"remove" help:"Remove secrets."`
	Exists  SecretExistsCmd  `cmd:"" help:"Tell by the exit status whether a secret is there."`
}

// SecretCreateCmd is `kist secret create`.
type SecretCreateCmd struct {
	Driver     string   `short:"d" enum:"file" default:"file" help:"file: below kist's root, for its owner alone."`
	Env        bool     `help:"FILE is the name of a variable that holds it."`
	Label      []string `short:"l" sep:"none" help:"Set a label." placeholder:"KEY=VALUE"`
	DriverOpts []string `hidden:"" sep:"none"`
	Ignore     bool     `help:"Leave a secret of the same name as it is."`
	Replace    bool     `help:"Take the place of a secret of the same name."`
	Name       string   `arg:"" help:"Name of the secret."`
	File       string   `arg:"" optional:"" default:"-" help:"File to read; - for standard input."`
}

// Run stores it and prints its ID.
func (c *SecretCreateCmd) Run(ctx context.Context, e *Engine, out *ui.Output) error {
	switch {
	case len(c.DriverOpts) > 0:
		return errors.New("secret create --driver-opts: the driver file has no options")
	case c.Ignore && c.Replace:
		return errors.New("secret create: --ignore and --replace contradict each other")
	}
	data, err := c.read(out)
	if err != nil {
		return fmt.Errorf("secret create %s: %w", c.Name, err)
	}
	s, err := e.CreateSecret(ctx, Secret{Name: c.Name, Labels: pairs(c.Label)}, data, c.Replace)
	if c.Ignore && errors.Is(err, ErrSecretExists) {
		s, err = e.Secret(c.Name)
	}
	if err != nil {
		return fmt.Errorf("secret create %s: %w", c.Name, err)
	}
	out.Print(s.ID)
	return nil
}

func (c *SecretCreateCmd) read(out *ui.Output) ([]byte, error) {
	if c.Env {
		value, set := os.LookupEnv(c.File)
		if !set {
			return nil, fmt.Errorf("--env %s: no such variable", c.File)
		}
		return []byte(value), nil
	}
	in := out.In
	if c.File != "-" {
		f, err := os.Open(c.File)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.File, errors.Unwrap(err))
		}
		defer f.Close()
		in = f
	}
	return io.ReadAll(io.LimitReader(in, MostSecret+1))
}

// SecretLsCmd is `kist secret ls`.
type SecretLsCmd struct {
	Quiet     bool     `short:"q" help:"IDs only."`
	Filter    []string `short:"f" sep:"none" help:"name or id." placeholder:"KEY=VALUE"`
	Format    string   `help:"table, table TEMPLATE, json, or a Go template." placeholder:"FORMAT"`
	NoHeading bool     `name:"noheading" short:"n" help:"Leave out the heading."`
}

// Run prints the table.
func (c *SecretLsCmd) Run(e *Engine, out *ui.Output) error {
	f, err := ui.ParseFilters(c.Filter, "name", "id")
	if err != nil {
		return fmt.Errorf("secret ls: %w", err)
	}
	all, err := e.Secrets()
	if err != nil {
		return fmt.Errorf("secret ls: %w", err)
	}
	type row struct{ ID, Name, Driver, CreatedAt, UpdatedAt, Labels string }
	rows := []any{}
	for _, s := range all {
		if !matches(f["name"], s.Name) || !matches(f["id"], s.ID) {
			continue
		}
		var labels []string
		for k, v := range s.Labels {
			labels = append(labels, k+"="+v)
		}
		slices.Sort(labels)
		rows = append(rows, row{s.ID, s.Name, "file", ui.Ago(s.Created), ui.Ago(s.Updated), strings.Join(labels, ",")})
	}
	t := ui.Table{
		Headers: map[string]string{"ID": "ID", "Name": "NAME", "Driver": "DRIVER", "CreatedAt": "CREATED", "UpdatedAt": "UPDATED", "Labels": "LABELS"},
		Default: "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.CreatedAt}}\t{{.UpdatedAt}}", Quiet: "{{.ID}}",
	}
	format := c.Format
	if c.NoHeading && format == "" && !c.Quiet {
		format = t.Default
	}
	return t.Write(out.Out, format, c.Quiet, rows)
}

func matches(wanted []string, text string) bool {
	return len(wanted) == 0 || slices.ContainsFunc(wanted, func(w string) bool { return strings.HasPrefix(text, w) })
}

// secretJSON is podman's JSON of a secret.
type secretJSON struct {
	ID         string
	CreatedAt  time.Time
	UpdatedAt  time.Time
	Spec       secretSpec
	SecretData string `json:",omitempty"`
}

type secretSpec struct {
	Name   string
	Driver struct {
		Name    string
		Options map[string]string
	}
	Labels map[string]string
}

// SecretInspectCmd is `kist secret inspect`.
type SecretInspectCmd struct {
	Format     string   `short:"f" help:"json or a Go template." placeholder:"FORMAT"`
	Pretty     bool     `help:"Print for people."`
	ShowSecret bool     `name:"showsecret" help:"Print what it holds, too."`
	Secret     []string `arg:"" help:"Names or IDs."`
}

// Run prints an array, or what the template says, one a line.
func (c *SecretInspectCmd) Run(e *Engine, out *ui.Output) error {
	list := []any{}
	for _, name := range c.Secret {
		j, err := c.describe(e, name)
		if err != nil {
			return fmt.Errorf("secret inspect: %w", err)
		}
		list = append(list, j)
	}
	switch {
	case c.Pretty:
		for _, x := range list {
			j := x.(secretJSON)
			out.Printf("ID:              %s\nName:            %s\nDriver:          %s\nCreated at:      %s\nUpdated at:      %s\n",
				j.ID, j.Spec.Name, j.Spec.Driver.Name, j.CreatedAt.Format(time.RFC3339), j.UpdatedAt.Format(time.RFC3339))
		}
		return nil
	case c.Format == "" || c.Format == "json":
		data, err := json.MarshalIndent(list, "", "    ")
		if err == nil {
			out.Print(string(data))
		}
		return err
	}
	return ui.Table{}.Write(out.Out, c.Format, false, list)
}

func (c *SecretInspectCmd) describe(e *Engine, name string) (secretJSON, error) {
	s, err := e.Secret(name)
	if err != nil {
		return secretJSON{}, err
	}
	j := secretJSON{ID: s.ID, CreatedAt: s.Created, UpdatedAt: s.Updated}
	j.Spec.Name, j.Spec.Labels, j.Spec.Driver.Name = s.Name, s.Labels, "file"
	if c.ShowSecret {
		data, err := e.SecretData(s)
		if err != nil {
			return j, err
		}
		j.SecretData = string(data)
	}
	return j, nil
}

// SecretRmCmd is `kist secret rm`.
type SecretRmCmd struct {
	All    bool     `short:"a" help:"Remove all secrets."`
	Ignore bool     `short:"i" help:"A secret that is not there is no error."`
	Secret []string `arg:"" optional:"" help:"Names or IDs."`
}

// Run removes them and prints their IDs.
func (c *SecretRmCmd) Run(ctx context.Context, e *Engine, out *ui.Output) error {
	names := c.Secret
	if c.All {
		all, err := e.Secrets()
		if err != nil {
			return fmt.Errorf("secret rm: %w", err)
		}
		for _, s := range all {
			names = append(names, s.Name)
		}
	}
	if len(names) == 0 && !c.All {
		return errors.New("secret rm: which secrets?")
	}
	var errs []error
	for _, name := range names {
		s, err := e.RemoveSecret(ctx, name)
		switch {
		case c.Ignore && errors.Is(err, ErrNoSecret):
		case err != nil:
			errs = append(errs, fmt.Errorf("secret rm: %w", err))
		default:
			out.Print(s.ID)
		}
	}
	return errors.Join(errs...)
}

// SecretExistsCmd is `kist secret exists`.
type SecretExistsCmd struct {
	Secret string `arg:"" help:"Name or ID."`
}

// Run ends with 1 when there is none.
func (c *SecretExistsCmd) Run(e *Engine) error {
	_, err := e.Secret(c.Secret)
	if errors.Is(err, ErrNoSecret) {
		return ui.Exit(1)
	}
	return err
}

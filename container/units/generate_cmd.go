package units

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/container"
	"github.com/kist-containers/kist/internal/state"
	"github.com/kist-containers/kist/internal/ui"
)

// GenerateCmds is `kist generate`.
type GenerateCmds struct {
	Systemd GenerateCmd `cmd:"" help:"Write a systemd unit for a container."`
}

// GenerateCmd is `kist generate systemd`.
type GenerateCmd struct {
	New             bool     `help:"The unit makes the container anew at each start, and removes it."`
	Name            bool     `short:"n" help:"Name the unit and the container by the container's name, not its ID."`
	Files           bool     `short:"f" help:"Write a file here instead of printing."`
	Format          string   `enum:",json" default:"" help:"json." placeholder:"FORMAT"`
	Template        bool     `help:"Make a template, of which systemd starts instances; needs --new."`
	RestartPolicy   string   `default:"on-failure" enum:"no,on-success,on-failure,on-abnormal,on-watchdog,on-abort,always" help:"When systemd restarts it: no, always, on-success, on-failure, on-abnormal, on-watchdog, on-abort." placeholder:"POLICY"`
	RestartSec      uint     `help:"Seconds before a restart." placeholder:"SECONDS"`
	StartTimeout    uint     `help:"Seconds a start may take." placeholder:"SECONDS"`
	StopTimeout     uint     `short:"t" aliases:"time" default:"10" help:"Seconds from the stop signal to SIGKILL." placeholder:"SECONDS"`
	Wants           []string `sep:"none" help:"Unit that is to run too." placeholder:"UNIT"`
	After           []string `sep:"none" help:"Unit to start after." placeholder:"UNIT"`
	Requires        []string `sep:"none" help:"Unit that must run." placeholder:"UNIT"`
	Env             []string `short:"e" sep:"none" help:"Variable of the unit." placeholder:"KEY=VALUE"`
	ContainerPrefix string   `default:"container" help:"How the unit's name begins." placeholder:"PREFIX"`
	PodPrefix       string   `hidden:""`
	Separator       string   `default:"-" help:"What stands between the prefix and the name." placeholder:"TEXT"`
	NoHeader        bool     `help:"Leave out who made it, and when."`
	Container       string   `arg:"" help:"Container."`
}

func (*GenerateCmd) Help() string {
	return `  kist generate systemd --new --files --name web      container-web.service, here
  mv container-web.service /etc/systemd/system
  systemctl enable --now container-web`
}

// Validate refuses flags that contradict each other.
func (c *GenerateCmd) Validate() error {
	switch {
	case c.Template && !c.New:
		return errors.New("--template needs --new too")
	case c.Files && c.Format != "":
		return errors.New("--files and --format contradict each other")
	case strings.ContainsAny(c.ContainerPrefix+c.Separator, "/@ \n"):
		return errors.New("--container-prefix, --separator: no part of a unit's name")
	}
	for _, e := range c.Env {
		if !strings.Contains(e, "=") {
			return fmt.Errorf("-e %s: want KEY=VALUE", e)
		}
	}
	return nil
}

// Run prints or writes the unit.
func (c *GenerateCmd) Run(ctx context.Context, e *container.Engine, out *ui.Output) error {
	if err := c.generate(ctx, e, out); err != nil {
		return fmt.Errorf("generate systemd %s: %w", c.Container, err)
	}
	return nil
}

func (c *GenerateCmd) generate(ctx context.Context, e *container.Engine, out *ui.Output) error {
	ct, err := e.Lookup(c.Container)
	if err != nil {
		return err
	}
	if ct.Restart.Name != "" && !c.New {
		out.Warn("%s restarts by itself too (--restart %s): kist update --restart no %s", ct.Name, ct.Restart.Name, ct.Name)
	}
	pidFile := ""
	if !c.New {
		if ct.AutoRemove {
			return ui.Hint(errors.New("it goes with its exit (--rm), so there is nothing to start again"), "kist generate systemd --new %s", c.Container)
		}
		if pidFile, err = e.MonitorFile(ctx, ct.ID); err != nil {
			return err
		}
	}
	name := c.unitName(ct)
	globals, err := kistArgs(e.Roots, e.Rootless)
	if err != nil {
		return err
	}
	text, err := c.unitText(ct, name, append(globals, e.Roots.Data), pidFile)
	switch {
	case err != nil:
		return err
	case c.Files:
		return c.writeFile(name, text, out)
	case c.Format == "json":
		data, err := json.MarshalIndent(map[string]string{name: text}, "", " ")
		out.Print(string(data))
		return err
	}
	out.Printf("%s", text)
	return nil
}

func (c *GenerateCmd) unitName(ct *container.Config) string {
	name := ct.ID
	if c.Name {
		name = ct.Name
	}
	if c.ContainerPrefix == "" {
		return name
	}
	return c.ContainerPrefix + c.Separator + name
}

func (c *GenerateCmd) writeFile(name, text string, out *ui.Output) error {
	if c.Template {
		name += "@"
	}
	path, err := filepath.Abs(name + ".service")
	if err != nil {
		return err
	}
	unix.Umask(0o022) // units are for all to read
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return err
	}
	out.Print(path)
	return nil
}

// kistArgs are the program and the roots, where those are not the usual ones.
func kistArgs(r state.Roots, rootless bool) ([]string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := []string{self}
	uid := 0
	if rootless {
		uid = 1 // any user's
	}
	usual := state.DefaultRoots(uid, func(name string) string {
		if strings.HasPrefix(name, "KIST_") {
			return ""
		}
		return os.Getenv(name)
	})
	if r != usual {
		args = append(args, "--root", r.Data, "--runroot", r.Run)
	}
	return args, nil
}

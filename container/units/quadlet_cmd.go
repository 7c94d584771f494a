package units

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/container"
	"github.com/kist-containers/kist/internal/state"
	"github.com/kist-containers/kist/internal/ui"
)

func placeOf(e *container.Engine) place {
	return place{User: e.Rootless, UID: hostUID(e.Rootless), Getenv: os.Getenv}
}

// QuadletInstallCmd is `kist quadlet install`.
type QuadletInstallCmd struct {
	ReloadSystemd bool     `negatable:"" default:"true" help:"Let systemd know."`
	Replace       bool     `short:"r" help:"Take the place of files of the same names."`
	Files         []string `arg:"" name:"file" help:"Quadlet files, files beside them, or directories of such."`
}

func (*QuadletInstallCmd) Help() string {
	return `  kist quadlet install web.container data.volume      copied, and systemd told of
  systemctl start web                                 the service that they make`
}

// Run checks the files, copies them and prints where they are.
func (c *QuadletInstallCmd) Run(ctx context.Context, e *container.Engine, out *ui.Output) error {
	p := placeOf(e)
	files, err := c.files()
	if err == nil {
		err = c.install(p.installDir(), files, out)
	}
	if err == nil && c.ReloadSystemd {
		p.warnGenerator(out)
		err = manager{p.User}.reload(ctx)
	}
	if err != nil {
		return fmt.Errorf("quadlet install: %w", err)
	}
	return nil
}

// files are those named and those in directories named.
func (c *QuadletInstallCmd) files() ([]string, error) {
	var files []string
	for _, f := range c.Files {
		if isURL(f) {
			return nil, ui.Hint(fmt.Errorf("%s: kist does not fetch units", f), "curl -LO %s, and look at it", f)
		}
		info, err := os.Stat(f)
		switch {
		case err != nil:
			return nil, fmt.Errorf("%s: %w", f, errors.Unwrap(err))
		case info.IsDir():
			entries, err := os.ReadDir(f)
			if err != nil {
				return nil, err
			}
			for _, e := range entries {
				if e.Type().IsRegular() {
					files = append(files, filepath.Join(f, e.Name()))
				}
			}
		default:
			files = append(files, f)
		}
	}
	if !slices.ContainsFunc(files, isQuadlet) {
		return nil, errors.New("none is a quadlet file: .container, .volume, .network, .image or .build")
	}
	return files, nil
}

// install copies all files or none: what would be refused is not copied.
func (c *QuadletInstallCmd) install(dir string, files []string, out *ui.Output) error {
	texts := map[string][]byte{}
	for _, f := range files {
		name := filepath.Base(f)
		if !c.Replace && exists(filepath.Join(dir, name)) {
			return ui.Hint(fmt.Errorf("%s is there already", filepath.Join(dir, name)), "kist quadlet install --replace %s", f)
		}
		data, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		if isQuadlet(f) {
			unit, err := ParseUnit(f, data)
			if err != nil {
				return err
			}
			if _, err := newUnit(unit); err != nil {
				return err
			}
		}
		texts[name] = data
	}
	unix.Umask(0o022) // units are for all to read
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		path := filepath.Join(dir, name)
		if err := state.WriteFile(path, texts[name], 0o644); err != nil {
			return err
		}
		out.Print(path)
	}
	return nil
}

// warnGenerator tells of a systemd that would not find the files.
func (p place) warnGenerator(out *ui.Output) {
	name, dir := SystemGenerator, "system-generators"
	if p.User {
		name, dir = UserGenerator, "user-generators"
	}
	for _, base := range []string{"/etc/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd", "/run/systemd"} {
		if exists(filepath.Join(base, dir, name)) {
			return
		}
	}
	out.Warn("systemd makes no services of them yet: kist system install, as root, once")
}

// QuadletPrintCmd is `kist quadlet print`.
type QuadletPrintCmd struct {
	Service bool   `help:"Print the service that systemd gets."`
	Name    string `arg:"" help:"Name of a quadlet file."`
}

// Run prints the file.
func (c *QuadletPrintCmd) Run(e *container.Engine, out *ui.Output) error {
	p := placeOf(e)
	u, all, err := p.find(c.Name)
	if err != nil {
		return fmt.Errorf("quadlet print: %w", err)
	}
	if !c.Service {
		data, err := os.ReadFile(u.Path)
		out.Printf("%s", data)
		return err
	}
	f, warnings, err := p.service(u, all)
	if err != nil {
		return fmt.Errorf("quadlet print: %w", err)
	}
	for _, w := range warnings {
		out.Warn("%s: %s", u.Path, w)
	}
	out.Printf("%s", f.Text())
	return nil
}

// find finds a quadlet file by its name or by its service's.
func (p place) find(name string) (*unit, map[string]*unit, error) {
	all, errs := p.load()
	if u := all[name]; u != nil {
		return u, all, nil
	}
	for _, u := range all {
		if u.service+".service" == name {
			return u, all, nil
		}
	}
	for _, err := range errs {
		if strings.Contains(err.Error(), "/"+name+":") {
			return nil, nil, err
		}
	}
	return nil, nil, ui.Hint(fmt.Errorf("%s: no such quadlet file", name), "kist quadlet list")
}

// QuadletRmCmd is `kist quadlet rm`.
type QuadletRmCmd struct {
	All           bool     `short:"a" help:"All that kist quadlet install can have put there."`
	Force         bool     `short:"f" help:"Stop the service if it runs."`
	Ignore        bool     `short:"i" help:"A file that is not there is no error."`
	ReloadSystemd bool     `negatable:"" default:"true" help:"Let systemd know."`
	Names         []string `arg:"" optional:"" name:"name" help:"Names of quadlet files."`
}

// Run removes files, of services that do not run.
func (c *QuadletRmCmd) Run(ctx context.Context, e *container.Engine, out *ui.Output) error {
	p := placeOf(e)
	names, err := c.names(p)
	if err != nil {
		return fmt.Errorf("quadlet rm: %w", err)
	}
	var errs []error
	for _, name := range names {
		if err := c.remove(ctx, p, name); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		} else {
			out.Print(name)
		}
	}
	if c.ReloadSystemd {
		errs = append(errs, manager{p.User}.reload(ctx))
	}
	return report(out, "quadlet rm", errs)
}

func (c *QuadletRmCmd) names(p place) ([]string, error) {
	switch {
	case c.All && len(c.Names) > 0:
		return nil, errors.New("--all and names contradict each other")
	case !c.All && len(c.Names) == 0:
		return nil, errors.New("no quadlet file is given")
	case !c.All:
		return c.Names, nil
	}
	entries, err := os.ReadDir(p.installDir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if isQuadlet(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

func (c *QuadletRmCmd) remove(ctx context.Context, p place, name string) error {
	path := filepath.Join(p.installDir(), filepath.Base(name))
	if !exists(path) {
		if c.Ignore {
			return nil
		}
		return ui.Hint(fmt.Errorf("no such file in %s", p.installDir()), "kist quadlet list")
	}
	m := manager{p.User}
	// One that no service can be made of is not running either.
	if u, err := p.read(path); err == nil && m.runs() {
		if state, _ := m.do(ctx, "is-active", u.service+".service"); strings.TrimSpace(state) == "active" {
			if !c.Force {
				return ui.Hint(fmt.Errorf("%s.service runs", u.service), "kist quadlet rm -f %s", name)
			}
			if _, err := m.do(ctx, "stop", u.service+".service"); err != nil {
				return err
			}
		}
	}
	return os.Remove(path)
}

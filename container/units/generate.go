package units

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kist-containers/kist/container"
	"github.com/kist-containers/kist/internal/cli"
)

// managed are the flags of kist run that a unit decides itself.
var managed = [...]string{"cidfile", "rm", "detach", "replace", "restart", "cgroups", "conmon-pidfile"}

// stopSlack is what systemd waits beyond the container's own time to stop: podman's.
const stopSlack = 60 // seconds

// wrap is how a long command line goes on.
const wrap = " \\\n\t"

// unitText is the unit of a container that is there, or with --new of one that
// each start makes anew.
func (c *GenerateCmd) unitText(ct *container.Config, name string, globals []string, pidFile string) (string, error) {
	f := &File{}
	description := "Kist " + name + ".service"
	if c.Template {
		description += " for %I"
	}
	f.section("Unit").Entries = []Entry{
		{"Description", description}, {"Wants", "network-online.target"}, {"After", "network-online.target"}, {"RequiresMountsFor", globals[len(globals)-1]},
	}
	for _, x := range []struct {
		key  string
		list []string
	}{{"Wants", c.Wants}, {"After", c.After}, {"Requires", c.Requires}} {
		for _, v := range x.list {
			f.add("Unit", x.key, v)
		}
	}
	unit := "%n"
	if c.Template {
		unit = "%n-%i"
	}
	f.add("Service", "Environment", container.UnitLabel+"="+unit)
	for _, v := range c.Env {
		f.add("Service", "Environment", quote(strings.ReplaceAll(v, "%", "%%")))
	}
	f.add("Service", "Restart", c.RestartPolicy)
	if c.RestartSec > 0 {
		f.add("Service", "RestartSec", fmt.Sprint(c.RestartSec))
	}
	if c.StartTimeout > 0 {
		f.add("Service", "TimeoutStartSec", fmt.Sprint(c.StartTimeout))
	}
	f.add("Service", "TimeoutStopSec", fmt.Sprint(c.StopTimeout+stopSlack))
	if err := c.commands(f, ct, globals[:len(globals)-1], pidFile); err != nil {
		return "", err
	}
	f.add("Install", "WantedBy", "default.target")
	return c.header(name) + f.Text(), nil
}

func (c *GenerateCmd) header(name string) string {
	at := ""
	if c.Template {
		at = "@"
	}
	text := "# " + name + at + ".service\n"
	if !c.NoHeader {
		text += fmt.Sprintf("# made by kist generate systemd, version %s\n# %s\n", cli.Version, time.Now().UTC().Format(time.UnixDate))
	}
	return text + "\n"
}

// commands adds how the container is started and stopped.
func (c *GenerateCmd) commands(f *File, ct *container.Config, kist []string, pidFile string) error {
	line := func(key string, parts ...[]string) {
		for i := range parts {
			parts[i] = slices.Clone(parts[i])
			for j := range parts[i] {
				parts[i][j] = quote(parts[i][j])
			}
		}
		var text []string
		for _, p := range parts {
			text = append(text, strings.Join(p, " "))
		}
		f.add("Service", key, strings.Join(text, wrap))
	}
	verb := func(words ...string) []string { return append(slices.Clone(kist), words...) }
	timeout := fmt.Sprint(c.StopTimeout)
	if !c.New {
		name := ct.ID
		if c.Name {
			name = ct.Name
		}
		line("ExecStart", verb("start", name))
		line("ExecStop", verb("stop", "-t", timeout, name))
		line("ExecStopPost", verb("stop", "-t", timeout, name))
		f.add("Service", "PIDFile", pidFile)
		f.add("Service", "Type", "forking")
		return nil
	}
	run, err := c.runArgs(ct)
	if err != nil {
		return err
	}
	const cidfile = "--cidfile=%t/%n.ctr-id"
	line("ExecStartPre", []string{"/bin/rm", "-f", "%t/%n.ctr-id"})
	line("ExecStart", append([][]string{verb("run"), {cidfile}, {"--rm"}}, run...)...)
	line("ExecStop", verb("stop"), []string{"--ignore", "-t", timeout}, []string{cidfile})
	line("ExecStopPost", verb("rm"), []string{"-f", "-v", "--ignore", "-t", timeout}, []string{cidfile})
	f.add("Service", "Type", "notify")
	f.add("Service", "NotifyAccess", "all")
	return nil
}

// runArgs are the arguments that made the container, without what the unit
// decides, one flag a line.
func (c *GenerateCmd) runArgs(ct *container.Config) ([][]string, error) {
	if len(ct.CreateCommand) == 0 {
		return nil, fmt.Errorf("--new %s: it was not made by kist run or create, so there is nothing to repeat", ct.Name)
	}
	flags, rest, err := splitFlags(ct.CreateCommand)
	if err != nil {
		return nil, fmt.Errorf("--new %s: %w", ct.Name, err)
	}
	has := func(name string) bool { return slices.ContainsFunc(flags, func(f flag) bool { return f.name == name }) }
	lines := [][]string{}
	if !has("sdnotify") {
		lines = append(lines, []string{"--sdnotify=conmon"})
	}
	lines = append(lines, []string{"-d"}, []string{"--replace"})
	if !has("name") {
		lines = append(lines, []string{"--name", c.instance(ct.Name)})
	}
	for _, f := range flags {
		if slices.Contains(managed[:], f.name) {
			continue
		}
		for i := range f.words {
			f.words[i] = literal(f.words[i])
		}
		if f.name == "name" {
			f.words = []string{"--name", c.instance(ct.Name)}
		}
		lines = append(lines, f.words)
	}
	tail := []string{}
	for _, w := range rest {
		tail = append(tail, literal(w))
	}
	return append(lines, tail), nil
}

func (c *GenerateCmd) instance(name string) string {
	if c.Template {
		return name + "-%i"
	}
	return name
}

// Package runc gives kist's runtime the command line of runc, so that
// containerd, CRI-O, podman and docker can use it in runc's place:
//
//	kist runtime [--root DIR] [--log FILE] … create --bundle DIR ID
package runc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/kist-containers/kist/container/runtime"
	"github.com/kist-containers/kist/internal/cli"
	"github.com/kist-containers/kist/internal/ui"
)

// Commands returns the command that holds runc's.
func Commands() []ui.Command {
	return []ui.Command{{
		Name: "runtime", Help: "Run OCI bundles, with runc's command line.", Raw: true,
		New: func() any { return new(command) },
	}}
}

// command is `kist runtime`; its words have a grammar of their own, because
// runc's --root and --debug are not kist's.
type command struct {
	Words []string `arg:"" optional:""`
}

// Run is the command line within the command line.
func (c *command) Run(ctx context.Context, out *ui.Output) (err error) {
	if slices.Contains([]string{"--version", "-v", "version"}, firstOf(c.Words)) {
		out.Printf("kist runtime version %s\nspec: %s\n", cli.VersionLine(), specs.Version)
		return nil
	}
	g := &globals{}
	line := cli.Line{Name: "kist runtime", Help: "Run OCI bundles, with runc's command line.", Globals: g, Commands: verbs(), Out: out}
	kctx, err := line.Parse(c.Words)
	if errors.Is(err, cli.ErrShown) {
		return nil
	}
	if err != nil {
		return ui.WithCode(1, err)
	}
	kctx.BindTo(ctx, (*context.Context)(nil))
	kctx.Bind(out, g, g.runtime(out))
	err = kctx.Run()
	g.report(err)
	return err
}

func firstOf(words []string) string {
	if len(words) == 0 {
		return ""
	}
	return words[0]
}

// globals are runc's and, where podman passes them, crun's.
type globals struct {
	Root          string `help:"Directory of the containers' state." placeholder:"DIR"`
	Log           string `help:"File to append errors and warnings to." placeholder:"FILE"`
	LogFormat     string `name:"log-format" help:"Format of the log." enum:"text,json," default:"text"`
	LogLevel      string `name:"log-level" help:"Least level to log; errors and warnings are all there is." placeholder:"LEVEL"`
	Debug         bool   `help:"Accepted; errors are complete as they are."`
	SystemdCgroup bool   `name:"systemd-cgroup" help:"Let systemd make the cgroups; cgroupsPath is slice:prefix:name."`
	CgroupManager string `name:"cgroup-manager" help:"cgroupfs, systemd or disabled." enum:"cgroupfs,systemd,disabled," default:""`
	Rootless      string `help:"Whether to do without the host's root." enum:"true,false,auto," default:"auto"`
	Criu          string `help:"Accepted; there is no checkpoint." placeholder:"PATH" hidden:""`
}

func (g *globals) runtime(out *ui.Output) *runtime.Runtime {
	r := &runtime.Runtime{
		Root: g.Root, Systemd: g.SystemdCgroup || g.CgroupManager == "systemd",
		NoCgroup: g.CgroupManager == "disabled",
		Rootless: g.Rootless == "true" || g.Rootless != "false" && !initialUserNamespace(),
		Warn: func(format string, a ...any) {
			out.Warn(format, a...)
			g.write("warning", fmt.Sprintf(format, a...))
		},
	}
	if r.Root == "" {
		r.Root = defaultRoot()
	}
	return r
}

func defaultRoot() string {
	if run := os.Getenv("XDG_RUNTIME_DIR"); os.Geteuid() != 0 && run != "" {
		return filepath.Join(run, "kist/runtime")
	}
	return "/run/kist/runtime"
}

// initialUserNamespace reports whether uid 0 here is the host's: it maps all ids
// to themselves. See user_namespaces(7).
func initialUserNamespace() bool {
	data, err := os.ReadFile("/proc/self/uid_map")
	var inside, outside, size uint64
	if err == nil {
		fmt.Sscan(string(data), &inside, &outside, &size)
	}
	return os.Geteuid() == 0 && (err != nil || inside == 0 && outside == 0 && size == 1<<32-1)
}

// report writes err where the caller of a runtime looks for it.
func (g *globals) report(err error) {
	if _, silent := err.(ui.Exit); err != nil && !silent {
		g.write("error", err.Error())
	}
}

func (g *globals) write(level, text string) {
	if g.Log == "" {
		return
	}
	f, err := os.OpenFile(g.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return // the error itself is on standard error
	}
	defer f.Close()
	now := time.Now().Format(time.RFC3339)
	if g.LogFormat == "json" {
		json.NewEncoder(f).Encode(map[string]string{"level": level, "msg": text, "time": now})
		return
	}
	fmt.Fprintf(f, "time=%q level=%s msg=%q\n", now, level, text)
}

// verbs are runc's commands.
func verbs() []ui.Command {
	return []ui.Command{
		{Name: "create", Help: "Make a container; its program waits for start.", New: func() any { return new(createCmd) }},
		{Name: "start", Help: "Start the program of a created container.", New: func() any { return new(startCmd) }},
		{Name: "run", Help: "Make a container and start its program.", New: func() any { return new(runCmd) }},
		{Name: "exec", Help: "Run another program in a container.", New: func() any { return new(execCmd) }},
		{Name: "state", Help: "Print a container's state.", New: func() any { return new(stateCmd) }},
		{Name: "list", Help: "List containers.", New: func() any { return new(listCmd) }},
		{Name: "ps", Help: "List a container's processes.", New: func() any { return new(psCmd) }},
		{Name: "kill", Help: "Send a signal to a container.", New: func() any { return new(killCmd) }},
		{Name: "delete", Help: "Remove a container that has ended.", New: func() any { return new(deleteCmd) }},
		{Name: "pause", Help: "Stop all processes of a container.", New: func() any { return new(pauseCmd) }},
		{Name: "resume", Help: "Let a paused container go on.", New: func() any { return new(resumeCmd) }},
		{Name: "update", Help: "Change a container's limits.", New: func() any { return new(updateCmd) }},
		{Name: "events", Help: "Print a container's counters and out-of-memory events.", New: func() any { return new(eventsCmd) }},
		{Name: "features", Help: "Print what this runtime can do.", New: func() any { return new(featuresCmd) }},
		{Name: "spec", Help: "Write a config.json to begin with.", New: func() any { return new(specCmd) }},
		{Name: "checkpoint", Help: "Not supported.", Hidden: true, New: func() any { return new(checkpointCmd) }},
		{Name: "restore", Help: "Not supported.", Hidden: true, New: func() any { return new(checkpointCmd) }},
	}
}

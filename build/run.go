package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"github.com/kist-containers/kist/internal/rootless"
	"github.com/kist-containers/kist/internal/ui"
)

// A runStep is a RUN with its words expanded.
type runStep struct {
	argv     []string
	env      []string // the image's
	args     []variable
	hidden   []string // what neither key nor history know: proxies, secrets
	cwd      string
	hostname string
	account  string // USER
	user     identity
	network  string
	insecure bool
	mounts   []*runMount
	// files are what kist shows in /etc.
	files []string
}

// runCommand is RUN.
func (r *stageRun) runCommand(ctx context.Context, c *instructions.RunCommand) error {
	s := &runStep{
		env: slices.Clone(r.scope.env), args: r.scope.visibleArgs(), cwd: r.workdir(),
		account: r.config.Config.User, hostname: r.job.plan.args["BUILDKIT_SANDBOX_HOSTNAME"],
	}
	s.files = r.job.req.files()
	if err := r.isolation(s, c); err != nil {
		return err
	}
	for _, d := range instructions.GetDevices(c) {
		if d.Required {
			return fmt.Errorf("RUN --device=%s: kist gives a build no devices, and this one is required", d.Name)
		}
	}
	if err := r.commandLine(s, c); err != nil {
		return err
	}
	s.mounts = append(s.mounts, r.job.req.mounts()...)
	for _, m := range instructions.GetMounts(c) {
		mount, err := r.newMount(ctx, s, m)
		if err != nil {
			return err
		}
		s.mounts = append(s.mounts, mount)
	}
	for _, name := range proxyNames() {
		if v, ok := r.job.plan.args[name]; ok && !r.scope.declared[name] {
			s.hidden = append(s.hidden, name+"="+v)
		}
	}
	st := &step{
		text:    c.String(),
		history: "RUN " + argPrefix(r.scope.stageArgs()) + strings.Join(s.argv, " "),
		what:    func(ctx context.Context) (string, error) { return r.runKey(ctx, s) },
		do:      func(ctx context.Context, w *workspace) error { return r.run(ctx, s, w) },
		points:  s.points,
	}
	return r.step(ctx, st)
}

// isolation reads --network and --security. What weakens the step needs a grant
// on the command line.
func (r *stageRun) isolation(s *runStep, c *instructions.RunCommand) error {
	s.network = string(instructions.GetNetwork(c))
	if s.network == "" || s.network == "default" {
		s.network = r.job.defaultNetwork()
	} else if s.network == "host" && r.job.req.Network != "host" && !slices.Contains(r.job.req.Allow, allowHost) {
		return ui.Hint(errors.New("RUN --network=host: not granted"), "kist build --allow network.host …")
	}
	s.insecure = instructions.GetSecurity(c) == instructions.SecurityInsecure
	if s.insecure && !slices.Contains(r.job.req.Allow, allowInsecure) {
		return ui.Hint(errors.New("RUN --security=insecure: not granted"), "kist build --allow security.insecure …")
	}
	return nil
}

// commandLine puts heredocs in their place. See BuildKit's dispatchRun.
func (r *stageRun) commandLine(s *runStep, c *instructions.RunCommand) error {
	line := c.ShellDependantCmdLine
	if len(c.Files) > 0 {
		if len(line.CmdLine) != 1 || !line.PrependShell {
			return errors.New("RUN: a heredoc goes with the shell form only")
		}
		first := c.Files[0]
		data := first.Data
		if first.Chomp {
			data = parser.ChompHeredocContent(data)
		}
		whole, err := parser.ParseHeredoc(line.CmdLine[0])
		switch {
		case err == nil && whole != nil && strings.HasPrefix(data, "#!"):
			// A script with its own interpreter.
			target := "/dev/pipes/" + path.Base(first.Name)
			s.mounts = append(s.mounts, &runMount{kind: "script", target: target, data: []byte(data), key: digestOf("script", target, data)})
			line.CmdLine = []string{target}
		case err == nil && whole != nil:
			line.CmdLine = []string{data}
		default:
			full := line.CmdLine[0]
			for _, f := range c.Files {
				full += "\n" + f.Data + f.Name
			}
			line.CmdLine = []string{full}
		}
	}
	s.argv = r.argv(line)
	if len(s.argv) == 0 || s.argv[0] == "" {
		return errors.New("RUN: no command")
	}
	return nil
}

// runKey is the identity of the command: all that it sees besides the files of
// its stage. Secrets, proxies and the content of cache mounts are no part of it.
func (r *stageRun) runKey(ctx context.Context, s *runStep) (string, error) {
	req := r.job.req
	facts := struct {
		Argv, Env            []string
		Args                 []variable
		Cwd, User, Host, Net string
		Insecure             bool
		Hosts                []string
		Shm                  int64
		Mounts               []string
		Isolation            Isolation `json:",omitzero"`
	}{s.argv, s.env, s.args, s.cwd, s.account, s.hostname, s.network, s.insecure, req.Hosts, req.ShmSize, nil, req.Isolation}
	for _, m := range s.mounts {
		key, err := m.identity(ctx)
		if err != nil {
			return "", err
		}
		facts.Mounts = append(facts.Mounts, key)
	}
	data, err := json.Marshal(facts)
	return digestOf("run", string(data)), err
}

// environment is what the command finds in its environment.
func (s *runStep) environment() []string {
	env := slices.Clone(s.env)
	for _, a := range s.args {
		env = append(env, a.Name+"="+a.Value)
	}
	env = append(env, s.hidden...)
	has := func(name string) bool {
		return slices.ContainsFunc(env, func(kv string) bool { return strings.HasPrefix(kv, name+"=") })
	}
	if !has("PATH") {
		env = append(env, "PATH="+defaultPath)
	}
	if !has("HOME") {
		env = append(env, "HOME="+cmpOr(s.user.home, "/"))
	}
	return env
}

func (r *stageRun) gids(s *runStep) []uint32 {
	if r.job.b.o.Rootless && rootless.DeniesGroups() {
		return nil
	}
	gids := []uint32{uint32(s.user.gid)}
	for _, g := range s.user.groups {
		if !slices.Contains(gids, uint32(g)) {
			gids = append(gids, uint32(g))
		}
	}
	return gids
}

// points are the mount points that the step needs: directories, or files.
func (s *runStep) points() (dirs, files []string) {
	dirs = []string{"proc", "sys", "dev"}
	files = slices.Clone(s.files)
	for _, m := range s.mounts {
		rel := strings.TrimPrefix(path.Clean(m.target), "/")
		switch {
		case strings.HasPrefix(rel+"/", "dev/"), strings.HasPrefix(rel+"/", "proc/"), strings.HasPrefix(rel+"/", "sys/"):
		case m.isFile:
			files = append(files, rel)
		default:
			dirs = append(dirs, rel)
		}
	}
	return dirs, files
}

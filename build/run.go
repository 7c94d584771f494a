package build

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/opencontainers/cgroups"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/container/runtime"
	"github.com/kist-containers/kist/internal/sys"
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
}

// runCommand is RUN.
func (r *stageRun) runCommand(ctx context.Context, c *instructions.RunCommand) error {
	s := &runStep{
		env: slices.Clone(r.scope.env), args: r.scope.visibleArgs(), cwd: r.workdir(),
		account: r.config.Config.User, hostname: r.job.plan.args["BUILDKIT_SANDBOX_HOSTNAME"],
	}
	if err := r.isolation(s, c); err != nil {
		return err
	}
	if err := r.commandLine(s, c); err != nil {
		return err
	}
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
		history: "RUN " + argPrefix(s.args) + strings.Join(s.argv, " "),
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
		s.network = cmpOr(r.job.req.Network, "default")
	} else if s.network == "host" && r.job.req.Network != "host" && !slices.Contains(r.job.req.Allow, "network.host") {
		return ui.Hint(errors.New("RUN --network=host: not granted"), "kist build --allow network.host …")
	}
	s.insecure = instructions.GetSecurity(c) == instructions.SecurityInsecure
	if s.insecure && !slices.Contains(r.job.req.Allow, "security.insecure") {
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
	}{s.argv, s.env, s.args, s.cwd, s.account, s.hostname, s.network, s.insecure, req.Hosts, req.ShmSize, nil}
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

func (s *runStep) gids() []uint32 {
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
	files = []string{"etc/hosts", "etc/hostname", "etc/resolv.conf"}
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

// skeleton makes mount points in dir, which becomes the lowest layer of the
// step's view: the command finds them, and its own layer has no trace of them.
func skeleton(dir string, dirs, files []string) error {
	for _, d := range dirs {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	for _, f := range files {
		p := filepath.Join(dir, f)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(p, nil, 0o644); err != nil {
			return err
		}
	}
	return filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = os.Chmod(p, 0o755) // not what the umask left
		}
		return err
	})
}

// run runs the command in a container of its own.
func (r *stageRun) run(ctx context.Context, s *runStep, w *workspace) (err error) {
	// docker: a number without an entry in passwd has group 0.
	if s.user, err = lookup(w.view.Root, s.account, func(int) int { return 0 }); err != nil {
		return err
	}
	if err := r.makeCwd(s, w); err != nil {
		return err
	}
	c := &runContainer{stageRun: r, s: s, w: w, id: "b" + strings.ToLower(rand.Text()[:16])}
	if err := c.prepare(ctx); err != nil {
		return errors.Join(err, c.undo(ctx))
	}
	r.job.guard()
	openCgroups()
	err = inOwnMounts(func() error { return c.inside(ctx) })
	return errors.Join(err, c.undo(ctx))
}

// openCgroups makes package cgroups open its handle of /sys/fs/cgroup here: it
// does so once, and one that was opened on a thread with mounts of its own would
// be empty when that thread has died.
func openCgroups() {
	if f, err := cgroups.OpenFile("/sys/fs/cgroup", "cgroup.procs", os.O_RDONLY); err == nil {
		f.Close()
	}
}

// makeCwd makes the working directory when the base image names one that it
// does not have.
func (r *stageRun) makeCwd(s *runStep, w *workspace) error {
	t := &tree{root: w.view.Root, epoch: r.job.req.Epoch}
	defer t.forget()
	if t.isDir(s.cwd) {
		return nil
	}
	return errors.Join(t.mkdirAll(s.cwd, 0, 0), t.close())
}

// A runContainer is the container of one RUN step.
type runContainer struct {
	*stageRun
	s      *runStep
	w      *workspace
	id     string
	spec   *specs.Spec
	undone []func() error
}

// undo takes back what prepare made, last first.
func (c *runContainer) undo(ctx context.Context) (err error) {
	for _, f := range slices.Backward(c.undone) {
		err = errors.Join(err, f())
	}
	c.undone = nil
	return err
}

func (c *runContainer) prepare(ctx context.Context) (err error) {
	for _, d := range []string{"bundle", "bundle/rootfs", "mounts", "etc", "secrets"} {
		if err := os.Mkdir(filepath.Join(c.w.dir, d), 0o700); err != nil {
			return err
		}
	}
	for _, m := range c.s.mounts {
		if err := m.prepare(ctx, c); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	if c.spec, err = c.stageRun.spec(c.s, c.id); err != nil {
		return err
	}
	return c.connect(ctx)
}

// inside runs on a thread with its own mounts: the root file system is mounted
// where nobody else sees it, and is gone with this thread and the container.
func (c *runContainer) inside(ctx context.Context) (err error) {
	rootfs := filepath.Join(c.w.dir, "bundle", "rootfs")
	at, err := os.OpenFile(rootfs, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer at.Close()
	if err := sys.Attach(c.w.view.Root, at); err != nil {
		return err
	}
	// Nothing may keep the layer mounted when it is read afterwards.
	defer func() { err = errors.Join(err, os.NewSyscallError("umount2", unix.Unmount(rootfs, unix.MNT_DETACH))) }()
	for i, m := range c.s.mounts {
		mounts, err := m.mount(c, filepath.Join(c.w.dir, "mounts", fmt.Sprint(i)))
		if err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
		c.spec.Mounts = append(c.spec.Mounts, mounts...)
	}
	return c.execute(ctx)
}

// execute creates the container, starts it and waits for its end.
func (c *runContainer) execute(ctx context.Context) (err error) {
	out, in, err := os.Pipe()
	if err != nil {
		return err
	}
	defer out.Close()
	rt := c.job.runtime()
	p, err := rt.Create(ctx, c.id, runtime.CreateOptions{Bundle: filepath.Join(c.w.dir, "bundle"), Spec: c.spec, Stdout: in, Stderr: in})
	in.Close()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rt.Delete(context.WithoutCancel(ctx), c.id, true)) }()
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		io.Copy(c.w.line, out)
	}()
	if err := p.Start(); err != nil {
		return c.explain(err)
	}
	stop := context.AfterFunc(ctx, func() { unix.Kill(p.Pid(), unix.SIGKILL) })
	status, err := p.Wait()
	stop()
	<-copied
	switch {
	case err != nil:
		return err
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case status.Signaled():
		return &ExitError{Code: 128 + int(status.Signal()), Signal: unix.SignalName(status.Signal())}
	case status.ExitStatus() != 0:
		return &ExitError{Code: status.ExitStatus()}
	}
	return nil
}

// explain words why the command did not start.
func (c *runContainer) explain(err error) error {
	var start *runtime.StartError
	if errors.As(err, &start) && start.NotFound() {
		what := c.s.argv[0]
		if !strings.Contains(what, "/") {
			return fmt.Errorf("%s: not in the image's PATH", what)
		}
		return fmt.Errorf("%s: not in the image (or its interpreter is not)", what)
	}
	if errors.As(err, &start) && errors.Is(err, unix.ENOEXEC) {
		return ui.Hint(fmt.Errorf("%s: not a program for this machine", c.s.argv[0]), "to build for %s, install qemu-user-static (binfmt_misc)", platformName(c.stage.platform))
	}
	return err
}

// ExitError is the end of a RUN command that did not succeed.
type ExitError struct {
	Code   int
	Signal string
}

func (e *ExitError) Error() string {
	if e.Signal != "" {
		return "the command was killed by " + e.Signal
	}
	return fmt.Sprintf("the command ended with exit status %d", e.Code)
}

// runtime keeps its records in the job's own directory, so that the next build
// can tell those of a killed one.
func (j *job) runtime() *runtime.Runtime {
	return &runtime.Runtime{Root: j.runDir, Systemd: j.b.o.Systemd, Rootless: j.b.o.Rootless}
}

// Package runtime makes a process out of an OCI bundle: namespaces, cgroup,
// mounts, capabilities, seccomp. It is what runs inside the new namespaces, so
// it imports no image and no network, and little else.
//
// A container is made in one of two ways. By a builder, a thread of this process,
// where that can do it: see builder. Otherwise its first process starts as a copy
// of this binary (role kist-init) in its new namespaces, builds the environment
// from the inside and becomes the payload by execve:
//
//	parent                              kist-init
//	clone with all namespaces    ──▶    waits
//	cgroup, seccomp program
//	setup{spec, program}         ──▶    mounts, pivot_root, devices, masks
//	                             ◀──    ready{} (with the console) or failure{step, object, errno}
//	start{}                      ──▶    startContainer hooks, capabilities, seccomp, execve
//	end of file: it runs         ◀──    (close-on-exec), or failure{…}
package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/cgroups"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/reexec"
	"github.com/kist-containers/kist/internal/state"
	"github.com/kist-containers/kist/internal/sys"
)

// Runtime creates and controls containers whose state is below Root.
type Runtime struct {
	// Root is the directory of one state file per container.
	Root string
	// Systemd lets systemd make the cgroups; CgroupsPath is then slice:prefix:name.
	Systemd bool
	// Rootless says that this process is root of a user namespace only: cgroups
	// are used where they were delegated.
	Rootless bool
	// NoCgroup leaves containers in the cgroup of this process. Limits are then
	// an error.
	NoCgroup bool
	// Program is another OCI runtime that is to make containers, by runc's command
	// line; "" is this one. What it has made is found in the container's record.
	Program string
	// Warn tells of what this host could not do and what stops nothing; nil
	// leaves it untold.
	Warn func(format string, a ...any)
}

// CreateOptions say where a container's process comes from and goes to.
type CreateOptions struct {
	// Bundle is the directory of config.json; the root file system is relative
	// to it.
	Bundle string
	// Spec stands for config.json when it is not nil.
	Spec *specs.Spec
	// The standard streams; nil is /dev/null. With a terminal they are not used.
	Stdin, Stdout, Stderr *os.File
	// NoPivot uses MS_MOVE and chroot, for a root on a ramdisk.
	NoPivot bool
	// NoNewKeyring keeps the caller's session keyring.
	NoNewKeyring bool
	// ExtraFiles become descriptors 3, 4, … of the program.
	ExtraFiles []*os.File
	// Detached lets another process start the program, with Runtime.Start; the
	// spec is kept for it and for Runtime.Spec.
	Detached bool
	// byInit keeps a builder out: for tests.
	byInit bool
}

// A Process is a container's first process, or one that joined it.
type Process struct {
	pid     int
	console *os.File
	conn    *reexec.Conn
	hooks   []specs.Hook // to run once the program runs
	state   func(status specs.ContainerState) *specs.State
	warn    func(format string, a ...any)
	start   func() error // of another runtime's process
}

// Pid returns the process's number as this process sees it.
func (p *Process) Pid() int { return p.pid }

// Console returns the master of the process's terminal, or nil. The caller
// closes it.
func (p *Process) Console() *os.File { return p.console }

// ErrExists is wrapped when the id is taken.
var ErrExists = errors.New("container exists")

// ErrNotFound is wrapped when there is no container of the id.
var ErrNotFound = errors.New("no such container")

// Create builds the container's environment. The program waits for Start. On
// error nothing is left.
func (r *Runtime) Create(ctx context.Context, id string, o CreateOptions) (_ *Process, err error) {
	spec, err := o.load()
	if err != nil {
		return nil, err
	}
	if !state.ValidName(id) {
		return nil, fmt.Errorf("container id %q: want letters, digits, '_', '.', '-'", id)
	}
	if err := validate(spec); err != nil {
		return nil, err
	}
	rec := &record{
		Version: 1, ID: id, Bundle: o.Bundle, Rootfs: absolute(o.Bundle, spec.Root.Path),
		Annotations: spec.Annotations, Rootless: r.Rootless, Program: r.Program,
	}
	if rec.Program == "" { // another runtime runs them itself
		rec.Hooks = laterHooks(spec.Hooks)
	}
	if err := r.reserve(rec); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Delete(context.WithoutCancel(ctx), id, true))
		}
	}()
	if rec.Program != "" {
		return r.foreignCreate(ctx, rec, spec, o)
	}
	return r.create(ctx, rec, spec, o)
}

func (r *Runtime) create(ctx context.Context, rec *record, spec *specs.Spec, o CreateOptions) (*Process, error) {
	build := r.byInit
	if r.byThread(spec, o) {
		build = r.byBuilder
	}
	g := new(group)
	p, err := build(ctx, rec, spec, o, g)
	if err != nil {
		return nil, err
	}
	return p, g.finish()
}

// byInit makes the process and its cgroup. On v1 the two overlap; on v2 the
// process is cloned into its cgroup.
func (r *Runtime) byInit(ctx context.Context, rec *record, spec *specs.Spec, o CreateOptions, g *group) (_ *Process, err error) {
	listener, err := r.prepareStart(rec.ID, spec, o)
	if err != nil {
		return nil, err
	}
	early := unifiedCgroups() && !r.Systemd
	if early {
		if err := r.makeCgroup(rec, spec, g); err != nil {
			return nil, err
		}
	}
	p, err := startInit(rec, spec, o, g, listener)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			p.kill()
		}
	}()
	p.warn = r.warn
	p.state = func(s specs.ContainerState) *specs.State { return rec.state(s, p.pid) }
	if err := rec.started(p.pid); err != nil {
		return nil, p.died(io.EOF)
	}
	if !early {
		if err := r.planCgroup(rec, spec, g); err != nil {
			return nil, err
		}
	}
	if err := r.write(rec); err != nil {
		return nil, err
	}
	if err := r.setup(p, rec, spec, o); err != nil {
		return nil, err
	}
	if !early {
		if err := g.make(rec, p.pid); err != nil {
			return nil, err
		}
		if rec.Systemd || len(rec.CgroupPaths) == 0 { // systemd has made the paths
			if err := r.write(rec); err != nil {
				return nil, err
			}
		}
	}
	if err := r.oomScore(p.pid, spec.Process); err != nil {
		return nil, err
	}
	if err := r.enter(p, rec, spec, g); err != nil {
		return nil, err
	}
	return p, r.await(ctx, p, spec)
}

// makeCgroup is for a cgroup that is there before the process.
func (r *Runtime) makeCgroup(rec *record, spec *specs.Spec, g *group) error {
	if err := r.planCgroup(rec, spec, g); err != nil {
		return err
	}
	// A killed process leaves a record of what it was making.
	if err := r.write(rec); err != nil {
		return err
	}
	return g.make(rec, 0)
}

// WarmUp does what this process will do only once, and may as well do while it
// waits: the mounted cgroups are looked up.
func WarmUp() { cgroups.FindCgroupMountpoint("", "memory") }

func (o *CreateOptions) load() (*specs.Spec, error) {
	if o.Bundle == "" {
		o.Bundle = "."
	}
	var err error
	if o.Bundle, err = filepath.Abs(o.Bundle); err != nil {
		return nil, err
	}
	if o.Spec != nil {
		return o.Spec, nil
	}
	return ReadSpec(filepath.Join(o.Bundle, "config.json"))
}

func absolute(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// setup hands the spec over, with which init makes its namespaces.
func (r *Runtime) setup(p *Process, rec *record, spec *specs.Spec, o CreateOptions) error {
	msg := newSetup(spec, rec, o)
	sources, err := openSources(spec, rec, msg)
	if err != nil {
		return err
	}
	defer closeAll(sources)
	if err := p.conn.Send(msg, sources...); err != nil {
		return p.died(err)
	}
	return nil
}

// enter lets init into its cgroup, and on.
func (r *Runtime) enter(p *Process, rec *record, spec *specs.Spec, g *group) error {
	msg, err := newEntry(spec, rec)
	if err != nil {
		return err
	}
	tasks, err := g.joinFiles(rec)
	if err != nil {
		return err
	}
	defer closeAll(tasks)
	if p.conn.Send(msg, tasks...) != nil {
		_, err := p.expect("") // what it said before it ended
		return err
	}
	return nil
}

// await waits until the environment stands, and runs the hooks that come before.
func (r *Runtime) await(ctx context.Context, p *Process, spec *specs.Spec) error {
	if h := spec.Hooks; h != nil && len(h.Prestart)+len(h.CreateRuntime) > 0 {
		if _, err := p.expect("mounted"); err != nil {
			return err
		}
		if err := runHooks(ctx, slices.Concat(h.Prestart, h.CreateRuntime), p.state(specs.StateCreating)); err != nil {
			return err
		}
		if err := p.conn.Send(order{}); err != nil {
			return p.died(err)
		}
	}
	files, err := p.expect("ready")
	if err != nil {
		return err
	}
	if len(files) > 0 {
		p.console = files[0]
	}
	return nil
}

func (r *Runtime) warn(format string, a ...any) {
	if r.Warn != nil {
		r.Warn(format, a...)
	}
}

// expect reads the init's next answer, which is name or a failure.
func (p *Process) expect(name string) ([]*os.File, error) {
	var a answer
	files, err := p.conn.Receive(&a)
	if err != nil {
		return nil, p.died(err)
	}
	if a.Failure != nil {
		return nil, a.Failure
	}
	for _, w := range a.Warnings {
		p.warn("%s", w)
	}
	if a.Name != name {
		return nil, fmt.Errorf("init answers %q, not %q", a.Name, name)
	}
	return files, nil
}

// died explains a connection that ended before its time.
func (p *Process) died(err error) error {
	if !errors.Is(err, io.EOF) && !errors.Is(err, unix.EPIPE) {
		return err
	}
	status := sys.Reap(p.pid)
	if status.Signaled() {
		return fmt.Errorf("container init was killed by %v (is its memory limit too small?)", status.Signal())
	}
	return fmt.Errorf("container init ended with status %d", status.ExitStatus())
}

// Start lets the program go. It returns when execve has succeeded, or a
// *StartError; then the process has ended.
func (p *Process) Start() error {
	if p.start != nil {
		return p.start()
	}
	err := begin(p.conn)
	var start *StartError
	if errors.As(err, &start) {
		p.reap()
	}
	if errors.Is(err, unix.EPIPE) {
		return p.died(err)
	}
	if err != nil {
		return err
	}
	return runHooks(context.Background(), p.hooks, p.state(specs.StateRunning))
}

// begin says start to an init and reads what comes of it. It closes conn.
func begin(conn *reexec.Conn) error {
	defer conn.Close()
	if err := conn.Send(order{Start: true}); err != nil {
		return err
	}
	var a answer
	_, err := conn.Receive(&a)
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return err
	case a.Failure != nil:
		return a.Failure
	}
	return fmt.Errorf("init answers %q to start", a.Name)
}

// Wait waits for the end of the process, which must be a child of this one.
func (p *Process) Wait() (unix.WaitStatus, error) {
	var status unix.WaitStatus
	for {
		_, err := unix.Wait4(p.pid, &status, 0, nil)
		if !errors.Is(err, unix.EINTR) {
			return status, os.NewSyscallError("wait4", err)
		}
	}
}

func (p *Process) kill() {
	unix.Kill(p.pid, unix.SIGKILL)
	p.reap()
	if p.conn != nil {
		p.conn.Close()
	}
	if p.console != nil {
		p.console.Close()
	}
}

func (p *Process) reap() { sys.Reap(p.pid) }

// Roles are the processes that this package plays.
func Roles() []reexec.Role {
	return []reexec.Role{{Name: Role, Main: InitMain}, {Name: joinRole, Main: joinMain}}
}

package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/sys"
)

// A builder makes a container's environment on a thread of this process, and its
// program of a forked child. It does what kist-init does, where it can, without
// the start of a Go program, which takes as long as all the rest:
//
//	Create                       thread                       child
//	cgroup, seccomp program      namespaces, mounts
//	                             fork                    ──▶  cgroup, /proc, seccomp
//	record                       cgroup mounts, pivot_root,   waits
//	                             masks; ends
//	Start                                                ──▶  ids, capabilities, execve
//
// A filter that might keep the child from waiting is loaded after that, and one of
// a process without new privileges last.
//
// The thread shares the child's namespaces but that of processes, in which nobody
// but the child can be: proc(5) is the only file system that wants it.
type builder struct {
	env     initProcess
	program execution
	group   *group
	mounts  *os.File // the caller's mount namespace
	// cgroup is told that the cgroup is there, or why it is not.
	cgroup chan error
	// forked gets the child's number. It is closed when there is none.
	forked chan int
	done   chan error
	child  *sys.Child
}

// byThread reports whether a builder can make the container. What it cannot are
// user namespaces, which a process with threads never joins, hooks that run in the
// middle, and attributes that a child does not get from its parent's thread.
func (r *Runtime) byThread(spec *specs.Spec, o CreateOptions) bool {
	proc, l := spec.Process, spec.Linux
	switch {
	case o.byInit || o.Detached || o.NoPivot || r.Systemd || proc == nil || len(o.ExtraFiles) > 8:
		return false
	case !isNew(spec, specs.PIDNamespace) || namespace(spec, specs.UserNamespace) != nil || namespace(spec, specs.TimeNamespace) != nil:
		return false
	case proc.Scheduler != nil || proc.IOPriority != nil || proc.ApparmorProfile != "" || proc.SelinuxLabel != "":
		return false
	case proc.OOMScoreAdj != nil && *proc.OOMScoreAdj != ownOOMScore():
		return false // it goes with the memory, which the child shares
	case below(proc.Cwd, "/proc"):
		return false // the thread is not in it
	case l.MemoryPolicy != nil || l.Personality != nil:
		return false
	}
	if h := spec.Hooks; h != nil && len(h.Prestart)+len(h.CreateRuntime)+len(h.CreateContainer)+len(h.StartContainer) > 0 {
		return false
	}
	// The program may be "/proc/self/exe", which is this one.
	return latePossible(spec.Mounts) && sys.IsProtected()
}

// isLate reports whether a mount has to wait for the child: a proc is that of the
// process that mounts it, and its cgroups are seen as those of the child.
func isLate(m *specs.Mount) bool {
	return m.Type == "proc" || m.Type == "cgroup" || m.Type == "cgroup2"
}

// latePossible reports whether no mount depends on a late one before it, and
// whether mount(2) can do what is asked of a proc.
func latePossible(mounts []specs.Mount) bool {
	for i := range mounts {
		m := &mounts[i]
		if !isLate(m) {
			continue
		}
		for _, later := range mounts[i+1:] {
			if below(later.Destination, m.Destination) || below(m.Destination, later.Destination) {
				return false
			}
		}
		plan, err := planOf(m.Options)
		if _, ok := procFlags(plan); m.Type == "proc" && (err != nil || !ok) {
			return false
		}
	}
	return true
}

func below(name, dir string) bool {
	name, dir = path.Clean(name), path.Clean(dir)
	return name == dir || dir == "/" || strings.HasPrefix(name, dir+"/")
}

// procFlags are the options of a proc as flags of mount(2), which are equal to
// the attributes of mount_setattr(2) as far as these go.
func procFlags(p mountPlan) (flags uintptr, ok bool) {
	const same = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	set := p.set | p.recSet
	ok = set&^same == 0 && p.propagation == 0 && !p.remount && !p.copyUp && !p.idmap && !p.ridmap && !p.bind
	return uintptr(set), ok
}

// byBuilder makes the container up to the point where the program can start.
func (r *Runtime) byBuilder(_ context.Context, rec *record, spec *specs.Spec, o CreateOptions, g *group) (_ *Process, err error) {
	b := &builder{
		env:     initProcess{setup: newSetup(spec, rec, o), postpone: true},
		program: execution{joinOrder: joinOrder{Record: rec, Process: spec.Process, Seccomp: spec.Linux.Seccomp}},
		group:   g, cgroup: make(chan error, 1), forked: make(chan int, 1), done: make(chan error, 1),
	}
	if b.mounts, err = os.Open("/proc/thread-self/ns/mnt"); err != nil {
		return nil, err
	}
	defer b.mounts.Close()
	streams := ExecOptions{Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr, ExtraFiles: o.ExtraFiles}
	files, null, err := streams.files(spec.Process.Terminal)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	b.program.files = files
	sources, err := openSources(spec, rec, b.env.setup)
	if err != nil {
		return nil, failure(err)
	}
	defer closeAll(sources)
	b.env.take(sources)
	go b.run()
	b.cgroup <- errors.Join(r.makeCgroup(rec, spec, g), b.program.compile())
	var recorded error
	if pid, ok := <-b.forked; ok {
		recorded = r.forked(rec, pid)
	}
	err = <-b.done
	if err == nil {
		err = recorded
	}
	for _, w := range b.env.warnings {
		r.warn("%s", w)
	}
	if err != nil {
		b.abort()
		return nil, failure(err)
	}
	return b.process(r, spec), nil
}

// forked records the child.
func (r *Runtime) forked(rec *record, pid int) error {
	if err := rec.started(pid); err != nil {
		return err
	}
	return r.write(rec)
}

func (b *builder) process(r *Runtime, spec *specs.Spec) *Process {
	p := &Process{pid: b.child.Pid, console: b.program.master, hooks: laterHooks(spec.Hooks).poststart(), warn: r.warn}
	rec := b.program.Record
	p.state = func(s specs.ContainerState) *specs.State { return rec.state(s, p.pid) }
	p.start = func() error {
		defer b.program.root.Close()
		b.child.Resume()
		if err := b.program.explain(b.child.Wait()); err != nil {
			return err
		}
		return runHooks(context.Background(), p.hooks, p.state(specs.StateRunning))
	}
	return p
}

// abort ends what has been begun.
func (b *builder) abort() {
	if b.child != nil {
		b.child.Kill()
	}
	for _, f := range []*os.File{b.program.master, b.program.root} {
		if f != nil {
			f.Close()
		}
	}
}

// run is the thread.
func (b *builder) run() {
	err := sys.OnThread(b.environment)
	if b.child == nil {
		close(b.forked)
	}
	b.done <- err
}

func (b *builder) environment() error {
	env := &b.env
	for _, step := range []func() error{
		b.unshare, env.enterNamespaces, env.mountAll, b.fork, b.mountCgroups, b.limits,
		env.changeRoot, b.console, env.finishRoot, env.workdir,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// unshare gives the thread new namespaces, the mounts being copies of the caller's.
func (b *builder) unshare() error {
	if err := sys.EnterMounts(b.mounts); err != nil {
		return err
	}
	return os.NewSyscallError("unshare", unix.Unshare(int(newFlags(b.env.Spec)&^unix.CLONE_NEWPID)))
}

// fork begins the child once its cgroup is there.
func (b *builder) fork() error {
	if err := <-b.cgroup; err != nil {
		return err
	}
	b.env.CgroupPaths = b.program.Record.CgroupPaths
	var err error
	if b.program.root, err = sys.OpenInRoot(b.env.root, "/", unix.O_PATH|unix.O_DIRECTORY, 0); err != nil {
		return err
	}
	if err := b.write(); err != nil {
		return err
	}
	dir, err := b.group.directory(b.program.Record)
	if err != nil {
		return err
	}
	if dir != nil {
		defer dir.Close()
	}
	if b.child, err = b.program.script.Begin(unix.CLONE_NEWPID|unix.CLONE_VM, dir); err != nil {
		return fmt.Errorf("make namespaces: %w", err)
	}
	b.forked <- b.child.Pid
	if err = b.child.Paused(); err != nil {
		b.child = nil // it is gone
	}
	if errors.Is(err, io.EOF) {
		return errors.New("the container's first process was killed (is its memory limit too small?)")
	}
	return b.program.explain(err)
}

// write lays out what the child does, in the order in which each is still allowed.
func (b *builder) write() error {
	s, p := &b.program.script, &b.program
	s.Call("rlimit RLIMIT_NOFILE", unix.SYS_PRLIMIT64, 0, unix.RLIMIT_NOFILE, sys.Data(s, new(sys.OpenFiles())), 0)
	if !b.env.NoNewKeyring {
		p.keyring()
	}
	for _, part := range []func() error{b.enterCgroup, b.mountProc, p.streams} {
		if err := part(); err != nil {
			return err
		}
	}
	// The kernel takes a third of a millisecond for it, in which the thread works.
	if seccomp := p.Seccomp; seccomp != nil && !p.Process.NoNewPrivileges && allows(seccomp, "read", "umask", "close_range") {
		p.filter()
	}
	s.Pause()
	p.umask()
	// No descriptor is left by which the working directory, entered once more as
	// the user, could lead out of the container.
	s.CloseFrom(len(p.files))
	if err := p.identity(); err != nil {
		return err
	}
	s.Call("enter working directory as the user", unix.SYS_CHDIR, s.String(p.Process.Cwd))
	p.confine()
	s.Exec(lookup(p.Process), p.Process.Args, p.Process.Env)
	return nil
}

// enterCgroup lets the child join; into one of cgroup v2 it is cloned.
func (b *builder) enterCgroup() error {
	if !unifiedCgroups() {
		if err := b.program.cgroup(); err != nil {
			return err
		}
	}
	if isNew(b.env.Spec, specs.CgroupNamespace) {
		b.program.script.Call("unshare cgroup namespace", unix.SYS_UNSHARE, unix.CLONE_NEWCGROUP)
	}
	return nil
}

// mountProc lets the child mount on directories that are opened here.
func (b *builder) mountProc() error {
	s := &b.program.script
	for i := range b.env.Spec.Mounts {
		m := &b.env.Spec.Mounts[i]
		if m.Type != "proc" {
			continue
		}
		if err := b.env.realDirectory(m.Destination); err != nil {
			return fmt.Errorf("mount proc on %s: %w", m.Destination, err)
		}
		target, err := sys.EnsureInRoot(b.env.root, m.Destination, true, 0o755)
		if err != nil {
			return fmt.Errorf("mount proc on %s: %w", m.Destination, err)
		}
		fd, err := s.Fd(target)
		target.Close()
		if err != nil {
			return err
		}
		plan, err := planOf(m.Options)
		if err != nil {
			return err
		}
		flags, _ := procFlags(plan)
		s.Call("fchdir", unix.SYS_FCHDIR, fd)
		s.Call("mount proc on "+m.Destination, unix.SYS_MOUNT,
			s.String(source(m)), s.String("."), s.String("proc"), flags, s.String(strings.Join(plan.data, ",")))
	}
	return nil
}

// mountCgroups is for the thread, in the child's cgroup namespace.
func (b *builder) mountCgroups() error {
	spec := b.env.Spec
	if isNew(spec, specs.CgroupNamespace) {
		ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/cgroup", b.child.Pid))
		if err != nil {
			return err
		}
		defer ns.Close()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWCGROUP); err != nil {
			return os.NewSyscallError("setns", err)
		}
	}
	for i := range spec.Mounts {
		m := &spec.Mounts[i]
		if m.Type == "proc" || !isLate(m) {
			continue
		}
		if err := b.env.mount(i, m); err != nil {
			return fmt.Errorf("mount %s on %s: %w", describe(m), m.Destination, err)
		}
	}
	return nil
}

// limits sets the child's from here, where each refusal can be told.
func (b *builder) limits() error { return b.env.setRlimits(b.child.Pid, b.program.Process.Rlimits) }

// console shows the program's terminal as /dev/console.
func (b *builder) console() error {
	if b.program.slave == nil {
		return nil
	}
	defer b.program.slave.Close()
	return showConsole(b.program.slave)
}

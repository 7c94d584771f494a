package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/sys"
)

// ExecOptions say where the streams of a joining process come from.
type ExecOptions struct {
	// The standard streams; nil is /dev/null. With a terminal they are not used.
	Stdin, Stdout, Stderr *os.File
	// Seccomp is the container's profile.
	Seccomp *specs.LinuxSeccomp
}

// Exec runs a process in all namespaces and the cgroup of a running container.
// The program runs when it returns; the error is a *StartError when it does not.
//
// No copy of kist runs inside: everything between fork and execve is a script
// of system calls, so there is nothing that a container could look into, and no
// start of a Go program to pay for.
func (r *Runtime) Exec(_ context.Context, id string, proc *specs.Process, o ExecOptions) (*Process, error) {
	rec, err := r.read(id)
	if err != nil {
		return nil, err
	}
	pidfd, err := rec.Init.Open()
	if err != nil {
		return nil, fmt.Errorf("exec in %s: container is not running", id)
	}
	defer pidfd.Close()
	root, err := os.OpenFile(fmt.Sprintf("/proc/%d/root", rec.Init.Pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	e := &execution{rec: rec, proc: proc, root: root, pidfd: pidfd}
	defer e.close()
	if err := e.write(o); err != nil {
		return nil, err
	}
	// Not even the forked child, which still is this program, may be looked into.
	unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	pid, err := e.script.Start()
	if err != nil {
		return nil, e.explain(err)
	}
	p := &Process{pid: pid, console: e.master}
	e.master = nil
	return p, nil
}

// execution is one Exec while its script is written.
type execution struct {
	rec         *record
	proc        *specs.Process
	root, pidfd *os.File
	script      sys.Script
	master      *os.File
	open        []*os.File
}

func (e *execution) close() {
	for _, f := range e.open {
		f.Close()
	}
	if e.master != nil {
		e.master.Close()
	}
}

func (e *execution) explain(err error) error {
	var step *sys.StepError
	if !errors.As(err, &step) {
		return err
	}
	if step.Step == "execve" {
		return execError(e.proc.Args[0], step.Errno)
	}
	return &StartError{Step: step.Step, Errno: int(step.Errno)}
}

// write lays out the calls in the order in which each is still allowed.
func (e *execution) write(o ExecOptions) error {
	for _, part := range []func(ExecOptions) error{
		e.cgroup, e.namespaces, e.directory, e.streams, e.limits, e.identity,
	} {
		if err := part(o); err != nil {
			return err
		}
	}
	e.script.Call("close_range", unix.SYS_CLOSE_RANGE, 3, 1<<32-1, unix.CLOSE_RANGE_CLOEXEC)
	e.script.Exec(lookup(e.proc), e.proc.Args, e.proc.Env)
	return nil
}

// cgroup puts the child into the container's cgroup before it does anything:
// "0" in cgroup.procs is the writer; see cgroups(7).
func (e *execution) cgroup(ExecOptions) error {
	zero := e.script.String("0")
	for _, path := range e.rec.CgroupPaths {
		f, err := os.OpenFile(filepath.Join(path, "cgroup.procs"), os.O_WRONLY, 0)
		if errors.Is(err, os.ErrNotExist) {
			continue // the same hierarchy under another controller's name
		}
		if err != nil {
			return err
		}
		e.open = append(e.open, f)
		fd, err := e.script.Fd(f)
		if err != nil {
			return err
		}
		e.script.Call("join cgroup", unix.SYS_WRITE, fd, zero, 1)
	}
	return nil
}

// namespaces joins those that differ from ours, all with one call: setns(2) of a
// pidfd, Linux 5.8.
func (e *execution) namespaces(ExecOptions) error {
	var flags uintptr
	for _, n := range nsFlags {
		ours, err := os.Stat("/proc/self/ns/" + n.file)
		if err != nil {
			continue // this kernel has no such namespace
		}
		theirs, err := os.Stat(fmt.Sprintf("/proc/%d/ns/%s", e.rec.Init.Pid, n.file))
		if err != nil {
			return err
		}
		if !os.SameFile(ours, theirs) {
			flags |= n.flag
		}
	}
	fd, err := e.script.Fd(e.pidfd)
	if err != nil {
		return err
	}
	e.script.Call("join namespaces", unix.SYS_SETNS, fd, flags)
	if flags&unix.CLONE_NEWPID != 0 {
		e.script.Fork()
	}
	name := e.script.String("_kist." + e.rec.ID)
	e.script.Try("join keyring", unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, name)
	return nil
}

// directory enters the working directory by a descriptor that was looked up
// with the container's root as "/".
func (e *execution) directory(ExecOptions) error {
	dir, err := sys.OpenInRoot(e.root, e.proc.Cwd, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		var path *os.PathError
		if errors.As(err, &path) {
			err = path.Err
		}
		return &StartError{Step: "enter working directory", Object: e.proc.Cwd, Text: err.Error()}
	}
	e.open = append(e.open, dir)
	fd, err := e.script.Fd(dir)
	if err != nil {
		return err
	}
	e.script.Call("fchdir", unix.SYS_FCHDIR, fd)
	return nil
}

func (e *execution) streams(o ExecOptions) error {
	e.script.Call("setsid", unix.SYS_SETSID)
	if e.proc.Terminal {
		return e.terminal()
	}
	files := []*os.File{o.Stdin, o.Stdout, o.Stderr}
	for i, f := range files {
		if f != nil {
			continue
		}
		null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		e.open = append(e.open, null)
		files[i] = null
	}
	return e.script.Stdio(files...)
}

// terminal opens a pseudo-terminal in the container's own devpts.
func (e *execution) terminal() error {
	master, err := sys.OpenInRoot(e.root, "/dev/pts/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("open terminal: %w", err)
	}
	e.master = master
	if err := verifyDevice(master, unix.S_IFCHR, 5, 2); err != nil {
		return err
	}
	slave, err := openPeer(master)
	if err != nil {
		return err
	}
	e.open = append(e.open, slave)
	if size := e.proc.ConsoleSize; size != nil {
		unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(size.Height), Col: uint16(size.Width)})
	}
	if err := e.script.Stdio(slave, slave, slave); err != nil {
		return err
	}
	e.script.Call("fchown", unix.SYS_FCHOWN, 0, uintptr(e.proc.User.UID), ^uintptr(0))
	e.script.Call("take terminal", unix.SYS_IOCTL, 0, unix.TIOCSCTTY, 0)
	return nil
}

func (e *execution) limits(ExecOptions) error {
	for _, l := range e.proc.Rlimits {
		which, ok := rlimits[l.Type]
		if !ok {
			return fmt.Errorf("rlimit %q: no such limit", l.Type)
		}
		limit := sys.Data(&e.script, &unix.Rlimit{Cur: l.Soft, Max: l.Hard})
		e.script.Call("rlimit "+l.Type, unix.SYS_PRLIMIT64, 0, uintptr(which), limit, 0)
	}
	umask := uintptr(0o022)
	if e.proc.User.Umask != nil {
		umask = uintptr(*e.proc.User.Umask)
	}
	e.script.Call("umask", unix.SYS_UMASK, umask)
	return nil
}

// identity is becomeUser and loadFilter as calls.
func (e *execution) identity(o ExecOptions) error {
	caps, err := capabilitySets(e.proc.Capabilities)
	if err != nil {
		return err
	}
	if !e.proc.NoNewPrivileges {
		if err := e.filter(o.Seccomp); err != nil {
			return err
		}
	}
	s, u := &e.script, &e.proc.User
	for n := uintptr(0); n <= lastCapability(); n++ {
		if caps.bounding&(1<<n) == 0 {
			s.Call("drop from bounding set", unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, n)
		}
	}
	s.Call("keep capabilities", unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1)
	groups := append(make([]uint32, 0, len(u.AdditionalGids)+1), u.AdditionalGids...)
	setgroups := s.Call
	if len(groups) == 0 {
		setgroups = s.Try // see setgroups
	}
	array := append(groups, 0)
	setgroups("setgroups", unix.SYS_SETGROUPS, uintptr(len(groups)), sys.Data(s, &array[0]))
	s.Call(fmt.Sprintf("become group %d", u.GID), unix.SYS_SETRESGID, uintptr(u.GID), uintptr(u.GID), uintptr(u.GID))
	s.Call(fmt.Sprintf("become user %d", u.UID), unix.SYS_SETRESUID, uintptr(u.UID), uintptr(u.UID), uintptr(u.UID))
	s.Call("keep capabilities", unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 0)
	data, header := caps.words()
	s.Call("capset", unix.SYS_CAPSET, sys.Data(s, &header), sys.Data(s, &data))
	for n := uintptr(0); n < 64; n++ {
		if caps.ambient&(1<<n) != 0 {
			s.Call("raise ambient capability", unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, n)
		}
	}
	if e.proc.NoNewPrivileges {
		s.Call("set no_new_privs", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1)
		return e.filter(o.Seccomp)
	}
	return nil
}

func (e *execution) filter(profile *specs.LinuxSeccomp) error {
	if profile == nil {
		return nil
	}
	p, err := compileSeccomp(profile)
	if err != nil {
		return err
	}
	sys.Data(&e.script, &p.code[0])
	prog := sys.Data(&e.script, &unix.SockFprog{Len: uint16(len(p.code)), Filter: &p.code[0]})
	e.script.Call("load seccomp filter", unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(p.flags), prog)
	return nil
}

// lastCapability is the highest number that this kernel knows.
func lastCapability() uintptr {
	for n := uintptr(unix.CAP_LAST_CAP); ; n++ {
		if _, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, n, 0, 0, 0); err != nil {
			return n - 1
		}
	}
}

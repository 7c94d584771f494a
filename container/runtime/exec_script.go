package runtime

import (
	"errors"
	"fmt"
	"os"
	"path"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/sys"
)

// execution is one joinOrder while its script is written.
type execution struct {
	joinOrder
	files       []*os.File
	root, pidfd *os.File
	script      sys.Script
	master      *os.File
	slave       *os.File
	program     *program
}

// run starts the program. What it opens ends with this process.
func (e *execution) run() (pid int, err error) {
	defer func() {
		if err != nil && (!e.Record.Init.Alive() || e.dying(err)) {
			// Whatever it was that was not there any more.
			err = fmt.Errorf("exec in %s: container is not running", e.Record.ID)
		}
	}()
	if e.pidfd, err = e.Record.Init.Open(); err != nil {
		return 0, err
	}
	root := fmt.Sprintf("/proc/%d/root", e.Record.Init.Pid)
	e.root, err = os.OpenFile(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	if a := e.Process.OOMScoreAdj; a != nil {
		// This process's own goes on to its child; lowering needs the host's root.
		os.WriteFile("/proc/self/oom_score_adj", []byte(strconv.Itoa(*a)), 0)
	}
	// What the child inherits is this thread's.
	goruntime.LockOSThread()
	if err := labelExec(e.Process); err != nil {
		return 0, err
	}
	if err := e.write(); err != nil {
		return 0, err
	}
	pid, err = e.script.Start()
	return pid, e.explain(err)
}

// dying reports whether an error says that the container's first process has given
// up its root or its namespaces: it may take long until its last child has gone.
func (e *execution) dying(err error) bool {
	var path *os.PathError
	return errors.As(err, &path) && errors.Is(err, os.ErrNotExist) &&
		strings.HasPrefix(path.Path, fmt.Sprintf("/proc/%d/", e.Record.Init.Pid))
}

func (e *execution) explain(err error) error {
	var step *sys.StepError
	if err == nil || !errors.As(err, &step) {
		return err
	}
	if step.Step == "execve" {
		return e.missing(step.Errno)
	}
	return &StartError{Step: step.Step, Errno: int(step.Errno)}
}

// missing tells a program that is not there from one whose interpreter is not.
func (e *execution) missing(errno syscall.Errno) error {
	name := e.Process.Args[0]
	if errno != unix.ENOENT || name == "" {
		return execError(name, errno)
	}
	for _, p := range lookup(e.Process) {
		if !path.IsAbs(p) {
			p = path.Join(e.Process.Cwd, p)
		}
		if f, err := sys.OpenInRoot(e.root, p, unix.O_PATH, 0); err == nil {
			f.Close()
			return interpreterError(name)
		}
	}
	return execError(name, errno)
}

// write lays out the calls in the order in which each is still allowed.
func (e *execution) write() error {
	for _, part := range []func() error{
		e.compile, e.namespaces, e.cgroup, e.affinity, e.directory, e.streams, e.limits, e.identity,
	} {
		if err := part(); err != nil {
			return err
		}
	}
	e.confine()
	e.script.Call("close_range", unix.SYS_CLOSE_RANGE, uintptr(len(e.files)), 1<<32-1, unix.CLOSE_RANGE_CLOEXEC)
	e.script.Exec(lookup(e.Process), e.Process.Args, e.Process.Env)
	return nil
}

// cgroup puts the child into the container's cgroup: "0" is the writer; see
// cgroups(7). The processes that it took to get here do not count there.
func (e *execution) cgroup() error {
	files, err := openTasks(e.Record, e.below)
	if err != nil {
		return err
	}
	zero := e.script.String("0")
	for _, f := range files {
		fd, err := e.script.Fd(f)
		if err != nil {
			return err
		}
		e.script.Call("join cgroup", unix.SYS_WRITE, fd, zero, 1)
	}
	return nil
}

// below is the path under the container's cgroup that was asked for.
func (e *execution) below(controller string) string {
	for _, c := range e.Cgroup {
		name, path, one := strings.Cut(c, ":")
		if !one {
			return c
		}
		if slices.Contains(strings.Split(name, ","), controller) {
			return path
		}
	}
	return ""
}

// affinity keeps the program on the CPUs asked for; the kernel widens them when
// the process joins the container's cpuset, so it comes after that.
func (e *execution) affinity() error {
	a := e.Process.ExecCPUAffinity
	if a == nil {
		return nil
	}
	list := a.Final
	if list == "" {
		list = a.Initial
	}
	set, err := cpuSet(list)
	if err != nil {
		return err
	}
	e.script.Call("sched_setaffinity", unix.SYS_SCHED_SETAFFINITY, 0, unsafe.Sizeof(*set), sys.Data(&e.script, set))
	return nil
}

// namespaces joins those that differ from ours, all with one call: setns(2) of a
// pidfd, Linux 5.8.
func (e *execution) namespaces() error {
	var flags uintptr
	for _, n := range nsFlags {
		ours, err := os.Stat("/proc/self/ns/" + n.file)
		if err != nil {
			continue // this kernel has no such namespace
		}
		theirs, err := os.Stat(fmt.Sprintf("/proc/%d/ns/%s", e.Record.Init.Pid, n.file))
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
	e.keyring()
	return nil
}

func (e *execution) keyring() {
	name := e.script.String(keyring(e.Record.ID))
	e.script.Try("join keyring", unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, name)
}

// directory enters the working directory by a descriptor that was looked up
// with the container's root as "/".
func (e *execution) directory() error {
	dir, err := sys.OpenInRoot(e.root, e.Process.Cwd, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		var path *os.PathError
		if errors.As(err, &path) {
			err = path.Err
		}
		return &StartError{Step: "enter working directory", Object: e.Process.Cwd, Text: err.Error()}
	}
	fd, err := e.script.Fd(dir)
	if err != nil {
		return err
	}
	e.script.Call("fchdir", unix.SYS_FCHDIR, fd)
	return nil
}

func (e *execution) streams() error {
	e.script.Call("setsid", unix.SYS_SETSID)
	if e.Process.Terminal {
		return e.terminal()
	}
	return e.script.Stdio(e.files...)
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
	e.slave = slave
	if size := e.Process.ConsoleSize; size != nil {
		unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(size.Height), Col: uint16(size.Width)})
	}
	if err := e.script.Stdio(append([]*os.File{slave, slave, slave}, e.files[firstExtraFd:]...)...); err != nil {
		return err
	}
	e.script.Call("fchown", unix.SYS_FCHOWN, 0, uintptr(e.Process.User.UID), ^uintptr(0))
	e.script.Call("take terminal", unix.SYS_IOCTL, 0, unix.TIOCSCTTY, 0)
	return nil
}

func (e *execution) limits() error {
	if err := checkRlimits(e.Process.Rlimits); err != nil {
		return err
	}
	for _, l := range e.Process.Rlimits {
		which := uintptr(rlimits[l.Type])
		wanted := sys.Data(&e.script, &unix.Rlimit{Cur: l.Soft, Max: l.Hard})
		// Where this host does not let us raise it, what it lets us give.
		lower, err := grantable(l)
		if err != nil {
			return err
		}
		e.script.Call("rlimit "+l.Type, unix.SYS_PRLIMIT64, 0, which, sys.Data(&e.script, &lower), 0)
		e.script.Try("rlimit "+l.Type, unix.SYS_PRLIMIT64, 0, which, wanted, 0)
	}
	e.umask()
	return nil
}

func (e *execution) umask() {
	umask := uintptr(0o022)
	if e.Process.User.Umask != nil {
		umask = uintptr(*e.Process.User.Umask)
	}
	e.script.Call("umask", unix.SYS_UMASK, umask)
}

// identity is becomeUser as calls. Without no_new_privs the filter wants a
// CAP_SYS_ADMIN, which goes here.
func (e *execution) identity() error {
	caps, err := capabilitySets(e.Process.Capabilities)
	if err != nil {
		return err
	}
	if !e.Process.NoNewPrivileges {
		e.filter()
	}
	s, u := &e.script, &e.Process.User
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
	return nil
}

// confine comes last.
func (e *execution) confine() {
	if e.Process.NoNewPrivileges {
		e.script.Call("set no_new_privs", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1)
		e.filter()
	}
}

func (e *execution) compile() (err error) {
	if e.Seccomp != nil {
		e.program, err = compileSeccomp(e.Seccomp)
	}
	return err
}

// filter loads the program, at the first of several calls.
func (e *execution) filter() {
	p := e.program
	if p == nil {
		return
	}
	e.program = nil
	sys.Data(&e.script, &p.code[0])
	prog := sys.Data(&e.script, &unix.SockFprog{Len: uint16(len(p.code)), Filter: &p.code[0]})
	e.script.Call("load seccomp filter", unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(p.flags), prog)
}

// lastCapability is the highest number that this kernel knows.
func lastCapability() uintptr {
	for n := uintptr(unix.CAP_LAST_CAP); ; n++ {
		if _, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, n, 0, 0, 0); err != nil {
			return n - 1
		}
	}
}

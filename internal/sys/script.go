package sys

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Script is a program of system calls that a forked child makes between fork
// and execve.
//
// Some things a Go process cannot do to itself: setns(2) of a user namespace is
// refused to a process with threads, and a process that has joined a container's
// pid namespace must not be seen there while it still is kist. The child of a
// raw fork has one thread and runs no Go: every call, with its arguments, is
// prepared by the parent. It never appears in the joined namespaces as anything
// but the program it becomes.
type Script struct {
	steps []step
	// keep holds what the arguments point to, which the garbage collector does
	// not see in them.
	keep []any
	// files are descriptors to become 0, 1, 2, … of the child, and those that
	// steps refer to.
	fds []int
}

type step struct {
	name string
	nr   uintptr
	args [6]uintptr
	kind stepKind
}

type stepKind uint8

const (
	plain stepKind = iota
	// ignored goes on after an error.
	ignored
	// forking makes a sibling that goes on with the next step; this process
	// tells the parent the sibling's pid and ends.
	forking
	// candidate is an execve of one of several paths: ENOENT and ENOTDIR pass
	// on to the next, and EACCES does but is what the last one reports.
	candidate
	// pausing tells the parent, and waits for its word; at the parent's end the
	// child ends as well.
	pausing
	// closing closes descriptors from the first argument on, but for the child's
	// end of the connection to its parent.
	closing
)

// StepError is the call of a script that did not succeed.
type StepError struct {
	Step  string
	Errno syscall.Errno
}

func (e *StepError) Error() string { return e.Step + ": " + e.Errno.Error() }
func (e *StepError) Unwrap() error { return e.Errno }

// Call adds a system call. name is what an error calls it. Pointers among args
// come from String, Strings or Bytes.
func (s *Script) Call(name string, nr uintptr, args ...uintptr) { s.add(plain, name, nr, args...) }

// Try adds a call whose failure does not matter.
func (s *Script) Try(name string, nr uintptr, args ...uintptr) { s.add(ignored, name, nr, args...) }

// Fork goes on in a new child of the caller: after setns of a pid namespace
// only children are in it. See CLONE_PARENT in clone(2).
func (s *Script) Fork() {
	s.add(forking, "clone", unix.SYS_CLONE, uintptr(unix.CLONE_PARENT)|uintptr(syscall.SIGCHLD))
}

// Pause lets the child wait for Child.Resume.
func (s *Script) Pause() { s.add(pausing, "wait", 0) }

// CloseFrom closes the descriptors from first on; see close_range(2), Linux 5.9.
func (s *Script) CloseFrom(first int) {
	s.add(closing, "close_range", unix.SYS_CLOSE_RANGE, uintptr(first))
}

func (s *Script) add(kind stepKind, name string, nr uintptr, args ...uintptr) {
	st := step{name: name, nr: nr, kind: kind}
	copy(st.args[:], args)
	s.steps = append(s.steps, st)
}

// String returns the address of text as a C string.
func (s *Script) String(text string) uintptr {
	p, err := syscall.BytePtrFromString(text)
	if err != nil {
		p = new(byte) // a NUL inside: the empty string, which no call accepts
	}
	s.keep = append(s.keep, p)
	return uintptr(unsafe.Pointer(p))
}

// Strings returns the address of a NULL-terminated array of C strings.
func (s *Script) Strings(texts []string) uintptr {
	array := make([]uintptr, len(texts)+1)
	for i, t := range texts {
		array[i] = s.String(t)
	}
	s.keep = append(s.keep, array)
	return uintptr(unsafe.Pointer(&array[0]))
}

// Data returns the address of *p, which the script keeps alive.
func Data[T any](s *Script, p *T) uintptr {
	s.keep = append(s.keep, p)
	return uintptr(unsafe.Pointer(p))
}

// highest is above every descriptor that Stdio assigns to, and below 64: a table
// of descriptors that grows in a process with threads waits for an RCU grace
// period, some 10 ms; see expand_fdtable in the kernel's file.c.
const highest = 32

// Fd duplicates f to a number that no dup of the child overwrites and returns
// it. The duplicate is closed when Start returns.
func (s *Script) Fd(f *os.File) (uintptr, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, highest)
	runtime.KeepAlive(f)
	if err != nil {
		return 0, os.NewSyscallError("fcntl", err)
	}
	s.fds = append(s.fds, fd)
	return uintptr(fd), nil
}

// Stdio makes files the child's descriptors 0, 1, 2, …
func (s *Script) Stdio(files ...*os.File) error {
	if len(files) > highest {
		return fmt.Errorf("%d descriptors are more than %d", len(files), highest)
	}
	for i, f := range files {
		fd, err := s.Fd(f)
		if err != nil {
			return err
		}
		s.Call("dup3", unix.SYS_DUP3, fd, uintptr(i), 0)
	}
	return nil
}

// Exec ends the script: the child becomes the first of paths that is there.
func (s *Script) Exec(paths, argv, env []string) {
	a, e := s.Strings(argv), s.Strings(env)
	for _, p := range paths {
		s.add(candidate, "execve", unix.SYS_EXECVE, s.String(p), a, e)
	}
}

// Start forks and waits until the program runs; the caller reaps the pid. The
// error is a *StepError when a call did not succeed; then nothing is left.
func (s *Script) Start() (pid int, err error) {
	c, err := s.Begin(0, nil)
	if err != nil {
		return 0, err
	}
	err = c.Wait()
	return c.Pid, err
}

// A Child is a process that plays a script.
type Child struct {
	// Pid is its number; the caller reaps it once the program runs.
	Pid   int
	steps []step
	// conn is this end of the connection, theirs the child's.
	conn, theirs uintptr
	// keep holds the child's stack and what the steps point to until the program
	// runs: the child may share the memory.
	keep []any
}

// Begin forks the child from the calling thread, whose namespaces and root
// directory it gets. flags are those of clone(2) for new namespaces, and CLONE_VM:
// a child that shares this process's memory costs no copy of it, and no fault for
// each page that is written meanwhile, but cannot enter a time namespace. cgroup
// is a directory of cgroup v2 to be born in, or nil. What follows is Paused and
// Resume for each pause of the script, then Wait.
func (s *Script) Begin(flags uintptr, cgroup *os.File) (*Child, error) {
	defer func() {
		for _, fd := range s.fds {
			unix.Close(fd)
		}
		s.fds = nil
	}()
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	theirs := os.NewFile(uintptr(ends[1]), "parent")
	defer theirs.Close()
	stack := new([16 << 10]byte)
	args := &cloneArgs{
		flags: uint64(flags), exitSignal: uint64(syscall.SIGCHLD),
		stack: uint64(uintptr(unsafe.Pointer(stack))), stackSize: uint64(len(stack)),
	}
	c := &Child{steps: s.steps, conn: uintptr(ends[0]), keep: append(s.keep, stack, args)}
	if c.theirs, err = s.Fd(theirs); err != nil {
		unix.Close(ends[0])
		return nil, err
	}
	if cgroup != nil {
		args.flags, args.cgroup = args.flags|unix.CLONE_INTO_CGROUP, uint64(cgroup.Fd())
	}
	syscall.ForkLock.Lock()
	pid, errno := fork(c, args)
	syscall.ForkLock.Unlock()
	runtime.KeepAlive(cgroup)
	if errno != 0 {
		unix.Close(ends[0])
		return nil, os.NewSyscallError("clone", errno)
	}
	c.Pid = int(pid)
	return c, nil
}

// message is what the child writes: a sibling's pid, that it waits, or the step
// and errno with which it gave up.
type message struct{ kind, step, value uint32 }

const (
	movedTo = 1
	gaveUp  = 2
	waits   = 3
)

// Paused waits until the child has come to its next pause. When it has not the
// child is gone: the error is a *StepError, or io.EOF when something has killed it.
func (c *Child) Paused() error {
	if reached, err := c.next(); reached || err != nil {
		return err
	}
	c.end()
	return io.EOF
}

// Resume lets a child that is Paused go on.
func (c *Child) Resume() {
	unix.Write(int(c.conn), []byte{1}) // an error shows in what follows
}

// Wait waits until the program runs, and ends the connection. The error is a
// *StepError when it does not; then nothing is left of the child.
func (c *Child) Wait() error {
	_, err := c.next()
	if err == nil {
		unix.Close(int(c.conn))
	}
	return err
}

// Kill ends a child whose program does not run yet.
func (c *Child) Kill() {
	unix.Kill(c.Pid, unix.SIGKILL)
	c.end()
}

func (c *Child) end() {
	Reap(c.Pid)
	unix.Close(int(c.conn))
}

// next reads the child's messages to the next pause, or to the end of the
// connection, which execve closes.
func (c *Child) next() (paused bool, err error) {
	for {
		var m message
		n, err := unix.Read(int(c.conn), unsafe.Slice((*byte)(unsafe.Pointer(&m)), unsafe.Sizeof(m)))
		switch {
		case errors.Is(err, unix.EINTR):
		case n <= 0:
			return false, nil
		case m.kind == waits:
			return true, nil
		case m.kind == movedTo:
			Reap(c.Pid)
			c.Pid = int(m.value)
		default:
			c.end()
			return false, &StepError{c.steps[m.step].name, syscall.Errno(m.value)}
		}
	}
}

// The runtime's own preparation for a fork: signals are blocked. gVisor uses the
// same two.
//
//go:linkname runtimeBeforeFork syscall.runtime_BeforeFork
func runtimeBeforeFork()

//go:linkname runtimeAfterFork syscall.runtime_AfterFork
func runtimeAfterFork()

// cloneArgs is struct clone_args; see clone3 in clone(2), Linux 5.7.
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls, setTID, setTIDSize, cgroup uint64
}

// fork makes the child, which plays on a stack of its own.
//
//go:norace
func fork(c *Child, args *cloneArgs) (uintptr, syscall.Errno) {
	// clone3 is not known to every sandbox that kist may itself run in.
	nr, a1, a2 := uintptr(syscall.SYS_CLONE), uintptr(args.flags|args.exitSignal), uintptr(args.stack+args.stackSize)
	if args.cgroup != 0 {
		nr, a1, a2 = unix.SYS_CLONE3, uintptr(unsafe.Pointer(args)), unsafe.Sizeof(*args)
	}
	runtimeBeforeFork()
	pid := clone(nr, a1, a2, c)
	runtimeAfterFork()
	if errno := -int(pid); errno > 0 {
		return 0, syscall.Errno(errno)
	}
	return pid, 0
}

// clone makes the system call nr. The child calls play; the parent gets the pid,
// or the negative errno.
//
//go:noescape
func clone(nr, a1, a2 uintptr, c *Child) (pid uintptr)

// play makes nothing but raw system calls: in the child there is no Go runtime,
// one thread, and a stack that cannot grow.
//
//go:norace
//go:nosplit
func play(c *Child) {
	// The parent's end, whose last one the child is to see go.
	syscall.RawSyscall(unix.SYS_CLOSE, c.conn, 0, 0)
	resetSignals()
	var denied syscall.Errno
	for i := range c.steps {
		st := &c.steps[i]
		var got uintptr
		var errno syscall.Errno
		switch st.kind {
		case pausing:
			tell(c.theirs, message{kind: waits})
			var word byte
			if n, _, _ := syscall.RawSyscall(unix.SYS_READ, c.theirs, uintptr(unsafe.Pointer(&word)), 1); n != 1 {
				exit()
			}
			continue
		case closing:
			_, _, errno = syscall.RawSyscall(st.nr, st.args[0], c.theirs-1, 0)
			if errno == 0 {
				_, _, errno = syscall.RawSyscall(st.nr, c.theirs+1, 1<<32-1, 0)
			}
		default:
			got, _, errno = syscall.RawSyscall6(st.nr, st.args[0], st.args[1], st.args[2], st.args[3], st.args[4], st.args[5])
		}
		if st.kind == forking && errno == 0 && got != 0 {
			tell(c.theirs, message{kind: movedTo, value: uint32(got)})
			exit()
		}
		if errno == 0 || st.kind == ignored {
			continue
		}
		if st.kind == candidate {
			if errno == unix.EACCES {
				denied = errno
			}
			passOn := errno == unix.ENOENT || errno == unix.ENOTDIR || errno == unix.EACCES
			if passOn && i+1 < len(c.steps) {
				continue
			}
			if passOn && denied != 0 {
				errno = denied
			}
		}
		tell(c.theirs, message{gaveUp, uint32(i), uint32(errno)})
		exit()
	}
	exit()
}

// resetSignals makes the program begin as one of a fresh login: no signal ignored,
// none blocked.
//
//go:norace
//go:nosplit
func resetSignals() {
	var a sigaction
	for n := uintptr(1); n <= lastSignal; n++ {
		syscall.RawSyscall6(unix.SYS_RT_SIGACTION, n, uintptr(unsafe.Pointer(&a)), 0, maskSize, 0, 0)
	}
	var none uint64
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&none)), 0, maskSize, 0, 0)
}

//go:norace
//go:nosplit
func tell(conn uintptr, m message) {
	syscall.RawSyscall(unix.SYS_WRITE, conn, uintptr(unsafe.Pointer(&m)), unsafe.Sizeof(m))
}

//go:norace
//go:nosplit
func exit() {
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 253, 0, 0)
	}
}

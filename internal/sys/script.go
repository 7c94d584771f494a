package sys

import (
	"fmt"
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
	defer func() {
		for _, fd := range s.fds {
			unix.Close(fd)
		}
		s.fds = nil
	}()
	r, w, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer r.Close()
	report, err := s.Fd(w)
	w.Close()
	if err != nil {
		return 0, err
	}
	syscall.ForkLock.Lock()
	child, errno := fork(s.steps, report)
	syscall.ForkLock.Unlock()
	unix.Close(int(report))
	s.fds = s.fds[:len(s.fds)-1]
	runtime.KeepAlive(s)
	if errno != 0 {
		return 0, os.NewSyscallError("clone", errno)
	}
	return s.outcome(r, int(child))
}

// message is what the child writes: a sibling's pid, or the step and errno with
// which it gave up.
type message struct{ kind, step, value uint32 }

const (
	movedTo = 1
	gaveUp  = 2
)

// outcome reads the child's messages to the end of the pipe, which execve closes.
func (s *Script) outcome(r *os.File, child int) (int, error) {
	for {
		var m message
		n, err := r.Read(unsafe.Slice((*byte)(unsafe.Pointer(&m)), unsafe.Sizeof(m)))
		if n == 0 || err != nil {
			return child, nil
		}
		if m.kind == movedTo {
			Reap(child)
			child = int(m.value)
			continue
		}
		Reap(child)
		if int(m.step) >= len(s.steps) {
			return 0, fmt.Errorf("start a process: unknown step %d", m.step)
		}
		return 0, &StepError{s.steps[m.step].name, syscall.Errno(m.value)}
	}
}

// The runtime's own preparation for a fork: signals are blocked, and the child
// must not grow its stack. gVisor uses the same three.
//
//go:linkname runtimeBeforeFork syscall.runtime_BeforeFork
func runtimeBeforeFork()

//go:linkname runtimeAfterFork syscall.runtime_AfterFork
func runtimeAfterFork()

//go:linkname runtimeAfterForkInChild syscall.runtime_AfterForkInChild
func runtimeAfterForkInChild()

// fork splits the process. The child runs on a copy of this stack with one
// thread, so nothing in it may allocate, grow the stack or call the scheduler.
//
//go:norace
//go:noinline
func fork(steps []step, report uintptr) (uintptr, syscall.Errno) {
	runtimeBeforeFork()
	pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 || pid != 0 {
		runtimeAfterFork()
		return pid, errno
	}
	runtimeAfterForkInChild()
	play(steps, report)
	return 0, 0 // not reached
}

// play makes nothing but raw system calls.
//
//go:norace
//go:nosplit
func play(steps []step, report uintptr) {
	var m message
	var denied syscall.Errno
	for i := range steps {
		st := &steps[i]
		got, _, errno := syscall.RawSyscall6(st.nr, st.args[0], st.args[1], st.args[2], st.args[3], st.args[4], st.args[5])
		if st.kind == forking && errno == 0 && got != 0 {
			m.kind, m.value = movedTo, uint32(got)
			syscall.RawSyscall(unix.SYS_WRITE, report, uintptr(unsafe.Pointer(&m)), unsafe.Sizeof(m))
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
			if passOn && i+1 < len(steps) {
				continue
			}
			if passOn && denied != 0 {
				errno = denied
			}
		}
		m.kind, m.step, m.value = gaveUp, uint32(i), uint32(errno)
		syscall.RawSyscall(unix.SYS_WRITE, report, uintptr(unsafe.Pointer(&m)), unsafe.Sizeof(m))
		exit()
	}
	exit()
}

//go:norace
//go:nosplit
func exit() {
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 253, 0, 0)
	}
}

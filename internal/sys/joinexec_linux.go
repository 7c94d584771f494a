package sys

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A JoinExec starts a program inside existing namespaces. setns(2) of a user
// namespace is refused to a process with threads, as every Go process is, so it
// happens in a forked child that makes nothing but system calls until execve.
type JoinExec struct {
	Path string
	Args []string
	Env  []string
	// Files become the child's descriptors 0, 1, 2, …
	Files []*os.File
	// Namespaces are joined in this order; the user namespace comes first, since
	// joining the others may want its capabilities.
	Namespaces []*os.File
	// Root makes the child uid and gid 0 after the joining, which a joined user
	// namespace does not do by itself.
	Root bool
	// Unshare are CLONE_NEW* flags for namespaces made after the joining; mounts
	// of a new mount namespace do not propagate back.
	Unshare int
}

// joinSteps name what the child was doing when it gave up.
var joinSteps = [...]string{"dup3", "setns", "setresgid", "setresuid", "unshare", "make mounts private", "execve"}

const (
	stepDup = iota
	stepSetns
	stepGid
	stepUid
	stepUnshare
	stepPrivate
	stepExec
)

// Start returns the child's pid once its execve succeeded; the caller waits for
// it. See setns(2), clone(2).
func (j *JoinExec) Start() (pid int, err error) {
	p := joinParams{root: j.Root, unshare: uintptr(j.Unshare)}
	if p.path, err = syscall.BytePtrFromString(j.Path); err != nil {
		return 0, err
	}
	if p.argv, err = syscall.SlicePtrFromStrings(j.Args); err != nil {
		return 0, err
	}
	if p.envv, err = syscall.SlicePtrFromStrings(j.Env); err != nil {
		return 0, err
	}
	p.slash, _ = syscall.BytePtrFromString("/")
	p.none, _ = syscall.BytePtrFromString("none")
	for _, f := range j.Namespaces {
		p.namespaces = append(p.namespaces, f.Fd())
	}
	r, w, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer r.Close()
	p.report = w.Fd()
	if pid, err = p.fork(j.Files); err != nil {
		w.Close()
		return 0, err
	}
	w.Close()
	runtime.KeepAlive(j)
	return pid, readReport(r, pid)
}

// readReport waits for the end of the pipe, which execve closes, or for the
// step and errno with which the child gave up.
func readReport(r *os.File, pid int) error {
	var report [2]uint32
	n, _ := r.Read(unsafe.Slice((*byte)(unsafe.Pointer(&report)), 8))
	if n == 0 {
		return nil
	}
	var status unix.WaitStatus
	for {
		if _, err := unix.Wait4(pid, &status, 0, nil); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if n != 8 || int(report[0]) >= len(joinSteps) {
		return errors.New("join namespaces: child ended without a word")
	}
	return fmt.Errorf("join namespaces: %w", os.NewSyscallError(joinSteps[report[0]], syscall.Errno(report[1])))
}

type joinParams struct {
	path, slash, none *byte
	argv, envv        []*byte
	namespaces        []uintptr
	files             []uintptr
	report            uintptr
	unshare           uintptr
	root              bool
}

// fork duplicates the files above every descriptor that the child will assign
// to, so that no dup3 overwrites a source it still needs.
func (p *joinParams) fork(files []*os.File) (int, error) {
	syscall.ForkLock.Lock()
	defer syscall.ForkLock.Unlock()
	for _, f := range files {
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, len(files)+3)
		if err != nil {
			return 0, os.NewSyscallError("fcntl", err)
		}
		defer unix.Close(fd)
		p.files = append(p.files, uintptr(fd))
	}
	high, err := unix.FcntlInt(p.report, unix.F_DUPFD_CLOEXEC, len(files)+3)
	if err != nil {
		return 0, os.NewSyscallError("fcntl", err)
	}
	defer unix.Close(high)
	p.report = uintptr(high)
	for i, fd := range p.namespaces {
		high, err := unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, len(files)+3)
		if err != nil {
			return 0, os.NewSyscallError("fcntl", err)
		}
		defer unix.Close(high)
		p.namespaces[i] = uintptr(high)
	}
	pid, errno := p.clone()
	runtime.KeepAlive(files)
	if errno != 0 {
		return 0, os.NewSyscallError("clone", errno)
	}
	return int(pid), nil
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

// clone forks. The child runs on a copy of this stack with one thread, so
// nothing in it may allocate, grow the stack or call the scheduler.
//
//go:norace
//go:noinline
func (p *joinParams) clone() (uintptr, syscall.Errno) {
	runtimeBeforeFork()
	pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 || pid != 0 {
		runtimeAfterFork()
		return pid, errno
	}
	runtimeAfterForkInChild()
	p.child()
	return 0, 0 // not reached
}

// child makes nothing but raw system calls.
//
//go:norace
//go:nosplit
func (p *joinParams) child() {
	var step uintptr
	var errno syscall.Errno
	for i := 0; i < len(p.files); i++ {
		if _, _, errno = syscall.RawSyscall(syscall.SYS_DUP3, p.files[i], uintptr(i), 0); errno != 0 {
			step = stepDup
			goto fail
		}
	}
	for i := 0; i < len(p.namespaces); i++ {
		if _, _, errno = syscall.RawSyscall(unix.SYS_SETNS, p.namespaces[i], 0, 0); errno != 0 {
			step = stepSetns
			goto fail
		}
	}
	if p.root {
		if _, _, errno = syscall.RawSyscall(unix.SYS_SETRESGID, 0, 0, 0); errno != 0 {
			step = stepGid
			goto fail
		}
		if _, _, errno = syscall.RawSyscall(unix.SYS_SETRESUID, 0, 0, 0); errno != 0 {
			step = stepUid
			goto fail
		}
	}
	if p.unshare != 0 {
		if _, _, errno = syscall.RawSyscall(unix.SYS_UNSHARE, p.unshare, 0, 0); errno != 0 {
			step = stepUnshare
			goto fail
		}
		if p.unshare&unix.CLONE_NEWNS != 0 {
			if _, _, errno = syscall.RawSyscall6(unix.SYS_MOUNT, uintptr(unsafe.Pointer(p.none)), uintptr(unsafe.Pointer(p.slash)), 0, unix.MS_REC|unix.MS_SLAVE, 0, 0); errno != 0 {
				step = stepPrivate
				goto fail
			}
		}
	}
	_, _, errno = syscall.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(p.path)),
		uintptr(unsafe.Pointer(&p.argv[0])), uintptr(unsafe.Pointer(&p.envv[0])))
	step = stepExec
fail:
	report := [2]uint32{uint32(step), uint32(errno)}
	syscall.RawSyscall(unix.SYS_WRITE, p.report, uintptr(unsafe.Pointer(&report)), 8)
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 253, 0, 0)
	}
}

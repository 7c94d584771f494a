package sys

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Spawn runs path as a child that has files as its descriptors 0, 1, 2, …, a nil
// one being /dev/null. The caller reaps the pid with wait4(2).
//
// It is what package os/exec does, without the child that os starts first, once
// in every process, to try out what this kernel knows of pidfds.
func Spawn(path string, argv []string, files []*os.File, attr syscall.ProcAttr) (pid int, err error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	for _, f := range files {
		if f == nil {
			f = null
		}
		attr.Files = append(attr.Files, f.Fd())
	}
	pid, err = syscall.ForkExec(path, argv, &attr)
	runtime.KeepAlive(files)
	return pid, os.NewSyscallError("start "+argv[0], err)
}

// SpawnFile is Spawn of an open file, for example a ProtectedSelf.
func SpawnFile(binary *os.File, argv []string, files []*os.File, attr syscall.ProcAttr) (pid int, err error) {
	// A number that the descriptors which the child is given do not overwrite.
	// Below 64 the table need not grow, which costs 10 ms; see Script.
	const high = 48
	fd, err := unix.FcntlInt(binary.Fd(), unix.F_DUPFD_CLOEXEC, max(high, 2*len(files)+high/2))
	if err != nil {
		return 0, os.NewSyscallError("fcntl", err)
	}
	defer unix.Close(fd)
	return Spawn(fmt.Sprintf("/proc/self/fd/%d", fd), argv, files, attr)
}

// Reap waits for the end of the child pid. A status of zero also stands for a
// child that somebody else has reaped.
func Reap(pid int) (status unix.WaitStatus) {
	for {
		if _, err := unix.Wait4(pid, &status, 0, nil); !errors.Is(err, unix.EINTR) {
			return status
		}
	}
}

// Package reexec lets one binary play several roles, each in a process of its
// own, and lets parent and child talk.
//
// The role is argv[0], so that ps(1) tells the truth. The child runs
// /proc/self/exe, because an upgrade may replace the file while we run.
// Configuration goes over an inherited SOCK_SEQPACKET pair, one JSON message a
// packet: not over the environment and not in arguments, which ps shows.
package reexec

import (
	"context"
	"os"
	"os/exec"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Role is a way to run this binary other than as the command line.
type Role struct {
	// Name is the argv[0] that selects the role, "kist-monitor" for example.
	Name string
	// Main plays the role and returns the exit status.
	Main func() int
}

// Dispatch plays the role that argv[0] names and exits. It returns when there
// is none. It is the first statement of main, so that a child pays for nothing
// but package initialisation.
func Dispatch(roles []Role) {
	for _, r := range roles {
		if os.Args[0] == r.Name {
			// The kernel took the name of this thread from /proc/self/exe.
			if name, err := unix.BytePtrFromString(r.Name); err == nil {
				unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(name)), 0, 0, 0)
			}
			os.Exit(r.Main())
		}
	}
}

// Command returns the command that runs this binary as role with args. The
// caller sets the standard streams, ExtraFiles and SysProcAttr. The child's
// environment is empty: whatever it needs is sent to it.
func Command(ctx context.Context, role string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Args[0] = role
	cmd.Env = []string{}
	return cmd
}

// childFD is where a role finds its connection.
const childFD = 3

// Become replaces the program of this process, itself a role with a connection
// to its parent, by the one that argv selects. That receives v and files in the parent's stead.
// Process number, children and the calling thread's namespaces stay; see
// execve(2). Become returns only with an error.
func Become(argv, env []string, v any, files ...*os.File) error {
	ours, theirs, err := Pair()
	if err != nil {
		return err
	}
	defer ours.Close()
	defer theirs.Close()
	if err := ours.Send(v, files...); err != nil {
		return err
	}
	if err := unix.Dup3(int(theirs.f.Fd()), childFD, 0); err != nil {
		return os.NewSyscallError("dup3", err)
	}
	defer unix.CloseOnExec(childFD)
	return os.NewSyscallError("execve", unix.Exec("/proc/self/exe", argv, env))
}

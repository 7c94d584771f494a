// Package rootless runs the rest of kist as uid 0 of a user namespace, for a
// user who is not root.
//
// There is one user namespace per user and run directory. The first command
// makes it and maps the user's subordinate ids with newuidmap(1) and
// newgidmap(1), or only the user's own id where those are missing. It lives as
// long as a process lives in it: later commands join the one that such a
// process (a monitor) shows. Each command has a mount namespace of its own in it.
package rootless

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/reexec"
	"github.com/kist-containers/kist/internal/state"
	"github.com/kist-containers/kist/internal/sys"
)

// uidVariable tells a command inside the namespace whose it is. Root of the host
// never has it set by us, and outside it means nothing: see Inside.
const uidVariable = "_KIST_ROOTLESS_UID"

// Caller is who typed the command: the uid outside, and whether this process is
// already inside that user's namespace.
type Caller struct {
	UID    int
	Inside bool
}

// Whoami reads the facts about this process. Inside is believed only of uid 0
// in a user namespace that is not the initial one.
func Whoami() Caller {
	uid, err := strconv.Atoi(os.Getenv(uidVariable))
	if err == nil && uid != 0 && os.Geteuid() == 0 && !initialNamespace() {
		return Caller{UID: uid, Inside: true}
	}
	return Caller{UID: os.Geteuid()}
}

// initialNamespace reports whether every id maps to itself.
func initialNamespace() bool {
	data, err := os.ReadFile("/proc/self/uid_map")
	var inside, outside, size uint64
	_, scanErr := fmt.Sscan(string(data), &inside, &outside, &size)
	return err == nil && scanErr == nil && inside == 0 && outside == 0 && size == 1<<32-1
}

// Rootless reports whether the command runs, or is to run, in a user namespace.
func (c Caller) Rootless() bool { return c.UID != 0 }

// Run runs this command line again inside the user's namespace and returns its
// exit status. alive lists processes that may live in the namespace; those that
// ended, or live elsewhere, are passed over.
func Run(ctx context.Context, r state.Roots, uid int, alive func() []sys.Process) (status int, err error) {
	if err := r.Dirs(0o700); err != nil {
		return 0, err
	}
	lock, err := state.AcquireLock(ctx, r.Lock("userns"))
	if err != nil {
		return 0, err
	}
	defer lock.Unlock()
	env := append(os.Environ(), uidVariable+"="+strconv.Itoa(uid))
	for _, p := range alive() {
		pid, err := join(p, env)
		if err == nil {
			lock.Unlock()
			return wait(pid)
		}
	}
	pid, err := create(ctx, r, uid, env)
	if err != nil {
		return 0, err
	}
	lock.Unlock()
	return wait(pid)
}

// join runs this command line in the namespace of p.
func join(p sys.Process, env []string) (pid int, err error) {
	if !p.Alive() {
		return 0, sys.ErrGone
	}
	user, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", p.Pid))
	if err != nil {
		return 0, err
	}
	defer user.Close()
	if !p.Alive() {
		return 0, sys.ErrGone
	}
	if same(user, "/proc/self/ns/user") {
		return 0, errors.New("not in a namespace of its own")
	}
	var script sys.Script
	if err := script.Stdio(os.Stdin, os.Stdout, os.Stderr); err != nil {
		return 0, err
	}
	fd, err := script.Fd(user)
	if err != nil {
		return 0, err
	}
	script.Call("setns", unix.SYS_SETNS, fd, unix.CLONE_NEWUSER)
	script.Call("setresgid", unix.SYS_SETRESGID, 0, 0, 0)
	script.Call("setresuid", unix.SYS_SETRESUID, 0, 0, 0)
	// Mounts made by the command stay with it: the kernel makes those of a mount
	// namespace with another owner slaves; see mount_namespaces(7).
	script.Call("unshare", unix.SYS_UNSHARE, unix.CLONE_NEWNS)
	script.Exec([]string{"/proc/self/exe"}, os.Args, env)
	return script.Start()
}

func same(f *os.File, path string) bool {
	a, errA := f.Stat()
	b, errB := os.Stat(path)
	return errA == nil && errB == nil && os.SameFile(a, b)
}

// Role is the name of the process that waits, in a new namespace, for its ids.
const Role = "kist-userns"

// create makes the namespace with this command line in it:
//
//	parent                         child (role kist-userns)
//	clone(NEWUSER|NEWNS)    ──▶    blocked in read
//	newuidmap, newgidmap
//	go                      ──▶    setresgid, setresuid 0; exec kist ARGS
func create(ctx context.Context, r state.Roots, uid int, env []string) (int, error) {
	ours, theirs, err := reexec.Pair()
	if err != nil {
		return 0, err
	}
	defer ours.Close()
	// Not CommandContext: the child becomes the command itself, and a cancelled
	// context must not kill what handles its own signals.
	cmd := reexec.Command(context.WithoutCancel(ctx), Role, os.Args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = env
	cmd.ExtraFiles = []*os.File{theirs.File()}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS}
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		return 0, fmt.Errorf("make a user namespace: %w", err)
	}
	pid := cmd.Process.Pid
	if err := errors.Join(mapIDs(pid, uid), ours.Send(struct{}{})); err != nil {
		cmd.Process.Kill()
		cmd.Wait()
		return 0, err
	}
	return pid, nil
}

// Main plays Role: it waits for its ids and becomes the command. This process
// has lost the capabilities of its namespace, since it was nobody there when it
// was executed; the command is executed as root and has them.
func Main() int {
	conn := reexec.NewConn(os.NewFile(3, "parent"))
	if _, err := conn.Receive(&struct{}{}); err != nil {
		return 125 // the parent says why
	}
	if err := becomeRoot(); err != nil {
		fmt.Fprintln(os.Stderr, "kist: enter user namespace:", err)
		return 125
	}
	err := unix.Exec("/proc/self/exe", os.Args[1:], os.Environ())
	fmt.Fprintln(os.Stderr, "kist: enter user namespace: execve:", err)
	return 125
}

func becomeRoot() error {
	if err := unix.Setresgid(0, 0, 0); err != nil {
		return os.NewSyscallError("setresgid", err)
	}
	if err := unix.Setresuid(0, 0, 0); err != nil {
		return os.NewSyscallError("setresuid", err)
	}
	return nil
}

// wait passes signals on and returns the child's status as a shell would.
func wait(pid int) (int, error) {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2)
	defer signal.Stop(signals)
	proc, err := os.FindProcess(pid)
	if err != nil {
		return 0, err
	}
	go func() {
		for s := range signals {
			// A terminal's Ctrl-C reaches the child by itself: same process group.
			if s != unix.SIGINT && s != unix.SIGQUIT {
				proc.Signal(s)
			}
		}
	}()
	st, err := proc.Wait()
	if err != nil {
		return 0, err
	}
	if ws := st.Sys().(syscall.WaitStatus); ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return st.ExitCode(), nil
}

package runtime

import (
	"context"
	"fmt"
	"os"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/reexec"
	"github.com/kist-containers/kist/internal/sys"
)

// joinRole is the process that starts a program inside a container.
const joinRole = "kist-join"

// ExecOptions say where the streams of a joining process come from.
type ExecOptions struct {
	// The standard streams; nil is /dev/null. With a terminal they are not used.
	Stdin, Stdout, Stderr *os.File
	// ExtraFiles become descriptors 3, 4, … of the program.
	ExtraFiles []*os.File
	// Seccomp is the container's profile.
	Seccomp *specs.LinuxSeccomp
	// Cgroup are paths below the container's cgroup: for all hierarchies, or
	// "CONTROLLER:PATH" for one.
	Cgroup []string
}

// joinOrder is what kist-join does; the program's descriptors come with it.
type joinOrder struct {
	Record  *record             `json:"record"`
	Process *specs.Process      `json:"process"`
	Seccomp *specs.LinuxSeccomp `json:"seccomp,omitempty"`
	Cgroup  []string            `json:"cgroup,omitempty"`
}

// joined is what kist-join answers; the terminal's master comes with it.
type joined struct {
	Pid     int         `json:"pid,omitempty"`
	Failure *StartError `json:"failure,omitempty"`
}

// Exec runs a process in all namespaces and the cgroup of a running container.
// The program runs when it returns; the error is a *StartError when it does not.
//
//	caller                       kist-join, from a protected binary
//	joinOrder, descriptors  ──▶  forks a script of system calls: cgroup, setns,
//	                             ids, capabilities, seccomp, execve
//	pid or failure, console ◀──  ends: the program is the caller's child
//
// No Go code runs inside: everything between fork and execve is prepared, so
// there is no start of a Go program to pay for. The program may be
// "/proc/self/exe", which is kist itself, hence the protected binary.
func (r *Runtime) Exec(ctx context.Context, id string, proc *specs.Process, o ExecOptions) (*Process, error) {
	rec, err := r.read(id)
	if err != nil {
		return nil, err
	}
	if !rec.Init.Alive() {
		return nil, fmt.Errorf("exec in %s: container is not running", id)
	}
	if err := checkProcess(proc); err != nil {
		return nil, err
	}
	if rec.Program != "" {
		return r.foreignExec(ctx, rec, proc, o)
	}
	files, null, err := o.files(proc.Terminal)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	// The child of kist-join becomes this process's when that one ends.
	defer adoptChildren()()
	return join(joinOrder{rec, proc, o.Seccomp, o.Cgroup}, files)
}

// files are the program's descriptors.
func (o *ExecOptions) files(terminal bool) (files []*os.File, null *os.File, err error) {
	if null, err = os.OpenFile(os.DevNull, os.O_RDWR, 0); err != nil {
		return nil, nil, err
	}
	files = append([]*os.File{o.Stdin, o.Stdout, o.Stderr}, o.ExtraFiles...)
	for i, f := range files {
		if f == nil || terminal && i < firstExtraFd {
			files[i] = null
		}
	}
	return files, null, nil
}

func join(order joinOrder, files []*os.File) (*Process, error) {
	ours, theirs, err := reexec.Pair()
	if err != nil {
		return nil, err
	}
	defer ours.Close()
	defer theirs.Close()
	binary, err := sys.ProtectedSelf()
	if err != nil {
		return nil, fmt.Errorf("protect kist's binary: %w", err)
	}
	defer binary.Close()
	helper := &initCommand{binary: binary, argv: []string{joinRole}, extra: []*os.File{theirs.File()}}
	pid, err := helper.start(&syscall.SysProcAttr{})
	if err != nil {
		return nil, err
	}
	defer sys.Reap(pid)
	theirs.Close()
	if err := ours.Send(order, files...); err != nil {
		return nil, err
	}
	var a joined
	got, err := ours.Receive(&a)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s ended: %w", joinRole, err)
	case a.Failure != nil:
		return nil, a.Failure
	}
	p := &Process{pid: a.Pid}
	if len(got) > 0 {
		p.console = got[0]
	}
	return p, nil
}

// joinMain plays joinRole.
func joinMain() int {
	// Not even the forked child, which still is this program, may be looked into
	// from the container; see PR_SET_DUMPABLE in prctl(2).
	unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	conn := reexec.NewConn(os.NewFile(firstExtraFd, "caller"))
	var o joinOrder
	files, err := conn.Receive(&o)
	if err != nil {
		return 1
	}
	e := &execution{joinOrder: o, files: files}
	pid, err := e.run()
	if err != nil {
		conn.Send(joined{Failure: failure(err)})
		return 1
	}
	var console []*os.File
	if e.master != nil {
		console = append(console, e.master)
	}
	conn.Send(joined{Pid: pid}, console...)
	return 0
}

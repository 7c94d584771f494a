package monitor

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/kist-containers/kist/container/runtime"
	"github.com/kist-containers/kist/internal/reexec"
	"github.com/kist-containers/kist/internal/sys"
)

// Role is the name of the monitor's process.
const Role = "kist-monitor"

// order is the only message that a monitor gets: what to run, from the engine,
// or what runs already, from itself.
type order struct {
	Spec    Spec     `json:"spec"`
	Settled *settled `json:"settled,omitempty"`
	// Inherited is how many files, the last ones, are the caller's for the program.
	Inherited int `json:"inherited,omitempty"`
}

// started is the monitor's answer: PID 1 runs, or why it does not.
type started struct {
	Init    sys.Process         `json:"init"`
	Failure *runtime.StartError `json:"failure,omitempty"`
	Error   string              `json:"error,omitempty"`
}

// A Starter is a monitor that waits to be told what to run. It is started early
// because the start of a process and the preparation of a container can overlap.
type Starter struct {
	conn *reexec.Conn
	pid  int
}

// Spawn starts a monitor in a session of its own, with no stream and no
// environment of the caller's.
func Spawn() (*Starter, error) {
	ours, theirs, err := reexec.Pair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	// The program of a container is a fork of the monitor, whose file it may open.
	binary, err := sys.ProtectedSelf()
	if err != nil {
		ours.Close()
		return nil, fmt.Errorf("protect kist's binary: %w", err)
	}
	defer binary.Close()
	// The monitor keeps it open: letting go of its mount takes a millisecond.
	pid, err := sys.SpawnFile(binary, []string{Role}, []*os.File{nil, nil, nil, theirs.File(), binary}, syscall.ProcAttr{
		Dir: "/",
		Env: []string{"GOGC=off"}, // until the container runs: see monitor.main
		Sys: sessionAttr(),
	})
	if err != nil {
		ours.Close()
		return nil, err
	}
	return &Starter{ours, pid}, nil
}

// sessionAttr makes the monitor, where a service manager has started this command,
// the manager's own child: systemd warns that of others it may not see the end.
func sessionAttr() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setsid: true}
	if os.Getenv("NOTIFY_SOCKET") != "" && os.Getpid() != 1 { // PID 1 has no parent
		attr.Cloneflags = syscall.CLONE_PARENT
	}
	return attr
}

// Start hands the spec and the root file system, a detached mount, over and
// waits until the program runs. client, when it is not nil, is one end of a
// connection of AttachPair: it sees every byte from the first on. A
// *runtime.StartError says why a program did not start. The program has inherited
// as its descriptors 3, 4, …, in its first run.
func (s *Starter) Start(spec Spec, root, client *os.File, inherited ...*os.File) (sys.Process, error) {
	defer s.conn.Close()
	files := []*os.File{root}
	if client != nil {
		files = append(files, client)
	}
	files = append(files, inherited...)
	if err := s.conn.Send(order{Spec: spec, Inherited: len(inherited)}, files...); err != nil {
		return sys.Process{}, s.lost(err)
	}
	var a started
	if _, err := s.conn.Receive(&a); err != nil {
		return sys.Process{}, s.lost(err)
	}
	switch {
	case a.Failure != nil:
		return sys.Process{}, a.Failure
	case a.Error != "":
		return sys.Process{}, errors.New(a.Error)
	}
	return a.Init, nil
}

func (s *Starter) lost(err error) error {
	st := sys.Reap(s.pid)
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.EPIPE) {
		return fmt.Errorf("the container's monitor ended with status %d (signal %d)", st.ExitStatus(), st.Signal())
	}
	return err
}

// Pid is the monitor's process number.
func (s *Starter) Pid() int { return s.pid }

// Abort ends a monitor that was never told what to run.
func (s *Starter) Abort() {
	s.conn.Close()
	sys.Reap(s.pid)
}

package monitor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	goruntime "runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/container/runtime"
	"github.com/kist-containers/kist/internal/reexec"
	"github.com/kist-containers/kist/internal/state"
	"github.com/kist-containers/kist/internal/sys"
)

// Hooks are what the monitor calls of packages that import it.
type Hooks struct {
	// Cleanup undoes what was made for a run that has ended; it is called once,
	// after the exit was recorded, and removes the container if it is to go. The
	// function that it returns, unless nil, removes what is invisible by then:
	// nobody need wait for it.
	Cleanup func(ctx context.Context, s *Spec) (purge func(), err error)
	// Listen makes the sockets that Serve answers on, before the container's first
	// process can ask. nil: none.
	Listen func(s *Spec) ([]*os.File, error)
	// Serve answers for the container on its networks (names, published ports)
	// until ctx ends, on the sockets of Listen, which stay open. nil: nothing to serve.
	Serve func(ctx context.Context, s *Spec, sockets []*os.File) error
	// Event notes something that happened to the container. nil: nobody listens.
	Event func(s *Spec, action string, attributes map[string]string)
	// Policy is the container's restart policy as it is now. nil: as it was.
	Policy func(s *Spec) RestartPolicy
}

// A monitor is one container's.
type monitor struct {
	Spec
	hooks Hooks
	run   *runtime.Runtime
	hub   *hub
	sock  *server
	// streams are the container's, from its making until their output is read.
	streams *streams
	// sockets are those of Hooks.Listen.
	sockets []*os.File

	// inherited are the caller's descriptors, for the first run.
	inherited []*os.File
	proc      *runtime.Process // until it runs
	init      sys.Process
	began     time.Time
	restarts  int
	inRow     int
	waiting   bool
	// stopped says that a user stopped the container: it is not to come back.
	stopped atomic.Bool
	// shutdown says that it was the machine's end that stopped it.
	shutdown atomic.Bool
	// wanted says that the next run is to begin whatever the policy is.
	wanted atomic.Bool
	wake   chan struct{}
	// notify is the program's socket to a service manager, or nil.
	notify *net.UnixConn
	// probing is held while a health check's process runs.
	probing sync.Mutex
}

// Main plays Role. hooks are made once it is known whose monitor this is.
func Main(hooks func(*Spec) Hooks) int {
	signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGPIPE)
	unix.Umask(0o077)
	// It stays open to the end: see reexec.Become.
	conn := reexec.NewConn(os.NewFile(3, "engine"))
	unix.CloseOnExec(4) // its own binary: see Spawn
	m := &monitor{wake: make(chan struct{}, 1)}
	fresh := !slices.Contains(os.Args, settledArg)
	if fresh {
		// The mount namespace is going to be this thread's, and every child is
		// forked from it.
		goruntime.LockOSThread()
		runtime.WarmUp()
	}
	var o order
	files, err := conn.Receive(&o)
	if err != nil {
		return 1 // the engine gave up
	}
	m.Spec = o.Spec
	m.hooks = hooks(&m.Spec)
	m.run = &runtime.Runtime{Root: filepath.Join(m.Roots.Run, "runtime"), Rootless: m.Rootless, Systemd: m.Systemd, Program: m.Runtime, NoCgroup: m.NoCgroup}
	if fresh {
		last := max(0, len(files)-o.Inherited)
		files, m.inherited = files[:last], files[last:]
		return m.main(conn, files)
	}
	return m.resume(o.Settled, files)
}

// main starts the container and stays with it until it has ended for good.
func (m *monitor) main(conn *reexec.Conn, files []*os.File) int {
	err := m.prepare(files)
	if err == nil && m.Held {
		conn, err = m.hold(conn)
	}
	if err == nil {
		err = m.start()
	}
	if err != nil {
		m.fail(conn, err)
		return 1
	}
	// An engine that was killed meanwhile is not told; its container runs, and ps
	// shows it.
	conn.Send(started{Init: m.init})
	m.settle()
	// Nothing was collected until here, to start fast: see Spawn.
	debug.SetGCPercent(100)
	return m.supervise()
}

// supervise stays with a running container through all its runs.
func (m *monitor) supervise() int {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	m.hub.open(m.streams)
	go m.sock.accept()
	m.serve(ctx)
	m.onTerminate()
	m.onChild()
	for {
		again, err := m.untilExit()
		if !again || err != nil {
			break
		}
		if err = m.again(); err != nil {
			m.record(Exit{ExitCode: 127, Error: err.Error()})
			break
		}
		m.settle()
		m.hub.open(m.streams)
	}
	cancel()
	m.finish()
	if m.stopped.Load() {
		return 0
	}
	// A service manager restarts what has failed.
	return min(m.hub.exit, 255)
}

// fail tells the engine why nothing runs. The engine cleans up.
func (m *monitor) fail(conn *reexec.Conn, err error) {
	a := started{Error: err.Error()}
	var start *runtime.StartError
	if errors.As(err, &start) {
		a.Failure = start
	}
	m.run.Delete(context.Background(), m.ID, true)
	if m.sock != nil {
		m.sock.close()
	}
	conn.Send(a)
}

// prepare builds the environment: root file system, log, attach socket, the
// container's first process waiting to start.
func (m *monitor) prepare(files []*os.File) error {
	if m.Runtime != "" {
		runtime.AdoptForGood()
	}
	if err := m.note(); err != nil {
		return err
	}
	if len(files) == 0 {
		return errors.New("the engine sent no root file system")
	}
	// Not earlier: what the engine has mounted for the container, its network
	// namespace, would not be in it where the host's mounts are private.
	if err := privateMounts(); err != nil {
		return err
	}
	if err := errors.Join(m.mountRoot(files[0]), m.mountImages(), m.mountSecrets(), m.listenNotify()); err != nil {
		return err
	}
	opened := make(chan error, 1)
	go func() { opened <- m.open(files[1:]) }()
	return errors.Join(m.create(), <-opened)
}

// open makes what the container's output and its clients need. client is the
// connection of the first one, if there is one.
func (m *monitor) open(client []*os.File) error {
	log, err := openLog(m.Log)
	if err != nil {
		return err
	}
	m.hub = newHub(log)
	if m.sock, err = listen(m); err != nil {
		return err
	}
	for _, f := range client {
		if err := m.sock.adopt(f); err != nil {
			return err
		}
	}
	if m.Sandbox && m.hooks.Listen != nil {
		m.sockets, err = m.hooks.Listen(&m.Spec)
	}
	return err
}

// note records this process, so that a killed engine leaves no stranger.
func (m *monitor) note() error {
	self, err := sys.ProcessOf(os.Getpid())
	if err != nil {
		return err
	}
	return state.WriteVolatileJSON(filepath.Join(m.RunDir, "state.json"), State{
		Version: 1, Monitor: self.Pid, MonStart: self.Start,
		Pid: m.init.Pid, PidStart: m.init.Start, StartedAt: m.began, Restarts: m.restarts, Restarting: m.waiting, Held: m.Held && m.init.Pid != 0,
	})
}

// create makes the container's first process, waiting, with its streams.
func (m *monitor) create() error {
	streams, err := newStreams(m.Terminal, m.OpenStdin)
	if err != nil {
		return err
	}
	defer streams.closeTheirs()
	m.proc, err = m.run.Create(context.Background(), m.ID, runtime.CreateOptions{
		Bundle: m.Bundle, Stdin: streams.theirs[0], Stdout: streams.theirs[1], Stderr: streams.theirs[2], ExtraFiles: m.inherited,
	})
	closeAll(m.inherited)
	m.inherited = nil
	if err != nil {
		streams.closeOurs()
		return err
	}
	streams.console = m.proc.Console()
	m.streams = streams
	return nil
}

// start lets the program go, recording it first.
func (m *monitor) start() error {
	var err error
	if m.init, err = sys.ProcessOf(m.proc.Pid()); err != nil {
		return fmt.Errorf("container init: %w", err)
	}
	m.began = time.Now().UTC()
	if err := m.note(); err != nil {
		return err
	}
	if err := m.proc.Start(); err != nil {
		return err
	}
	m.announce()
	return errors.Join(writePid(m.PidFile, m.init.Pid), writePid(m.MonitorPidFile, os.Getpid()))
}

func writePid(file string, pid int) error {
	if file == "" {
		return nil
	}
	return state.WriteFile(file, fmt.Appendf(nil, "%d", pid), 0o644)
}

func (m *monitor) serve(ctx context.Context) {
	if m.Sandbox && m.hooks.Serve != nil {
		go m.hooks.Serve(ctx, &m.Spec, m.sockets)
	}
	if m.Health != nil && len(m.Health.Test) > 0 && m.Health.Test[0] != "NONE" {
		go m.watchHealth(ctx)
	}
}

// onTerminate makes a shutdown of the machine, which signals every process, a
// stop of the container.
func (m *monitor) onTerminate() {
	c := make(chan os.Signal, 1)
	signal.Notify(c, unix.SIGTERM)
	go func() {
		<-c
		m.shutdown.Store(!m.stopped.Swap(true))
		m.signal(stopSignal(m.StopSignal))
		time.Sleep(max(m.StopTimeout, time.Second))
		m.init.Signal(unix.SIGKILL)
	}()
}

// onChild reaps what the commands of another runtime leave.
func (m *monitor) onChild() {
	if m.Runtime == "" {
		return
	}
	c := make(chan os.Signal, 1)
	signal.Notify(c, unix.SIGCHLD)
	go func() {
		for range c {
			m.run.Reap(m.ID)
		}
	}()
}

// signal reaches the program, through the other runtime if one made it.
func (m *monitor) signal(s unix.Signal) {
	if m.Runtime == "" {
		m.init.Signal(s)
		return
	}
	m.run.Kill(m.ID, s, false)
}

func stopSignal(name string) unix.Signal {
	if n, err := strconv.Atoi(name); err == nil && n > 0 {
		return unix.Signal(n)
	}
	if s := unix.SignalNum(name); s != 0 {
		return s
	}
	return unix.SIGTERM
}

// untilExit waits for the end of PID 1, records it, and reports whether the
// policy wants another run, after its delay.
func (m *monitor) untilExit() (again bool, err error) {
	if m.Timeout > 0 {
		init := m.init
		timer := time.AfterFunc(time.Until(m.began.Add(m.Timeout)), func() { init.Signal(unix.SIGKILL) })
		defer timer.Stop()
	}
	status, err := waitFor(m.init.Pid)
	if err != nil {
		return false, err
	}
	e := Exit{ExitCode: status.ExitStatus(), FinishedAt: time.Now().UTC()}
	if status.Signaled() {
		e.ExitCode = 128 + int(status.Signal())
	}
	e.OOMKilled, _ = m.run.OOMKilled(m.ID)
	restart := m.wantsRestart(e)
	if restart {
		// What is left of the container goes with its cgroup: a descendant of
		// another pid namespace, which would hold the pipes. The root file system
		// is the next run's as well.
		if err := m.run.Delete(context.Background(), m.ID, true); err != nil {
			e.Error = err.Error()
		}
	}
	m.record(e)
	if e.OOMKilled {
		m.event("oom", nil)
	}
	m.event("die", map[string]string{"exitCode": fmt.Sprint(e.ExitCode)})
	if !restart {
		return false, nil
	}
	m.hub.drain()
	return m.delay(e), nil
}

// record writes how the run ended. Of a container that is to be removed anyway
// only the attached client is told.
func (m *monitor) record(e Exit) {
	e.Version, e.StartedAt, e.Restarts, e.Shutdown = 1, m.began, m.restarts, m.shutdown.Load()
	if e.FinishedAt.IsZero() {
		e.FinishedAt = time.Now().UTC()
	}
	m.hub.exit = e.ExitCode
	if m.AutoRemove {
		return
	}
	err := state.WriteJSON(filepath.Join(m.DataDir, "exit.json"), e)
	if err != nil {
		// No space left, perhaps by the program's own doing: how it ended is known
		// until a reboot then.
		err = errors.Join(err, state.WriteVolatileJSON(filepath.Join(m.RunDir, "exit.json"), e))
		fmt.Fprintln(os.Stderr, "kist-monitor:", err)
	}
}

func (m *monitor) event(action string, attributes map[string]string) {
	if m.hooks.Event != nil {
		m.hooks.Event(&m.Spec, action, attributes)
	}
}

// finish sends the last output and the exit code, then undoes the run. Clients
// see the end of the connection when all is done.
func (m *monitor) finish() {
	// Some of it waits in the kernel, which would hold up the rest.
	goruntime.GOMAXPROCS(8)
	var cleaned sync.WaitGroup
	var purge func()
	mounted := m.unmountRoot() != nil
	cleaned.Go(func() {
		// A removal through a mount that is still there would be one of what is
		// mounted: a user's own directory, with --rootfs.
		if mounted || m.hooks.Cleanup == nil {
			m.run.Delete(context.Background(), m.ID, true)
			return
		}
		purge, _ = m.hooks.Cleanup(context.Background(), &m.Spec)
	})
	m.hub.drain()
	m.hub.finish()
	m.sock.stop()
	cleaned.Wait()
	m.sock.close()
	if purge != nil {
		purge()
	}
}

// waitFor reaps a child. The wait costs no thread: a pidfd is readable when the
// process has ended; see pidfd_open(2), PIDFD_NONBLOCK since Linux 5.10.
func waitFor(pid int) (unix.WaitStatus, error) {
	var status unix.WaitStatus
	var reaped int
	var err error
	reap := func(flags int) bool {
		for {
			if reaped, err = unix.Wait4(pid, &status, flags, nil); !errors.Is(err, unix.EINTR) {
				return reaped != 0 || err != nil
			}
		}
	}
	if awaitEnd(pid, func() bool { return reap(unix.WNOHANG) }) != nil {
		reap(0)
	}
	return status, os.NewSyscallError("wait4", err)
}

// awaitEnd calls reap whenever the process may have ended, until it returns true.
func awaitEnd(pid int, reap func() bool) error {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	defer f.Close()
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(func(uintptr) bool { return reap() })
}

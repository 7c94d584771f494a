package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	goruntime "runtime"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/reexec"
	"github.com/kist-containers/kist/internal/sys"
)

// Role is the name of the process that becomes the payload.
const Role = "kist-init"

// An initProcess is a container seen from its first process.
type initProcess struct {
	*setup
	entry
	conn    *reexec.Conn
	root    *os.File // the root file system, before it is "/"
	console *os.File // the terminal's master
	// rootMount and sources are what the parent has opened; see openSources.
	rootMount *os.File
	sources   map[int]*os.File
	// connFd is the number under which conn was inherited: those before it are
	// the payload's.
	connFd   int
	warnings []string
	// postpone leaves the late mounts to a builder.
	postpone bool
}

// InitMain plays Role.
func InitMain() int {
	// All namespaces, ids and capabilities below are the thread's, and execve
	// keeps those of the thread that calls it.
	goruntime.LockOSThread()
	// Nobody in a shared pid namespace may look into this process before it has
	// become the payload; see PR_SET_DUMPABLE in prctl(2).
	unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	if len(os.Args) != 2 {
		return 1
	}
	fd, err := strconv.Atoi(os.Args[1])
	if err != nil {
		return 1
	}
	p := &initProcess{setup: new(setup), connFd: fd, conn: reexec.NewConn(os.NewFile(uintptr(fd), "parent"))}
	files, err := p.conn.Receive(p.setup)
	if err != nil {
		return 1 // the parent is gone, or says why
	}
	p.take(files)
	p.conn.Send(answer{Failure: failure(p.run())})
	return 1
}

// failure is err as data for the parent, who words it.
func failure(err error) *StartError {
	var start *StartError
	if errors.As(err, &start) {
		return start
	}
	f := &StartError{Step: err.Error()}
	return f
}

// run does not return when all goes well.
func (p *initProcess) run() error {
	for _, step := range []func() error{
		p.enterNamespaces, p.newSession, p.enterCgroup, p.mountAll, p.hooksBeforePivot, p.changeRoot, p.terminal, p.finishRoot, p.limits, p.workdir,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	if err := p.ready(); err != nil {
		return err
	}
	return p.execute()
}

func (p *initProcess) enterNamespaces() error {
	spec := p.Spec
	if err := joinByPath(spec); err != nil {
		return err
	}
	if isNew(spec, specs.TimeNamespace) {
		if err := newClocks(spec.Linux.TimeOffsets); err != nil {
			return err
		}
	}
	if spec.Hostname != "" {
		if err := unix.Sethostname([]byte(spec.Hostname)); err != nil {
			return os.NewSyscallError("sethostname", err)
		}
	}
	if spec.Domainname != "" {
		if err := unix.Setdomainname([]byte(spec.Domainname)); err != nil {
			return os.NewSyscallError("setdomainname", err)
		}
	}
	if isNew(spec, specs.NetworkNamespace) {
		return sys.LoopbackUp()
	}
	return nil
}

// newSession makes this the leader of a session, with a keyring of its own.
func (p *initProcess) newSession() error {
	if !p.NoNewKeyring {
		// Best effort: a kernel without keyrings has none to leak.
		unix.KeyctlJoinSessionKeyring(keyring(p.State.ID))
	}
	_, err := unix.Setsid()
	return os.NewSyscallError("setsid", err)
}

// keyring is the name of a container's session keyring; see session-keyring(7).
func keyring(id string) string { return "_kist." + id }

// enterCgroup waits for the cgroup and moves this thread; see group.joinFiles.
func (p *initProcess) enterCgroup() error {
	tasks, err := p.conn.Receive(&p.entry)
	if err != nil {
		os.Exit(1) // the parent is gone, or says why
	}
	for _, f := range tasks {
		if _, err := f.WriteString("0"); err != nil {
			return fmt.Errorf("join cgroup %s: %w", f.Name(), err)
		}
		f.Close()
	}
	if isNew(p.Spec, specs.CgroupNamespace) {
		return os.NewSyscallError("unshare cgroup namespace", unix.Unshare(unix.CLONE_NEWCGROUP))
	}
	return nil
}

// newClocks makes a time namespace, which the program enters by its execve
// (Linux 6.3; before, only its children do); see time_namespaces(7).
func newClocks(offsets map[string]specs.LinuxTimeOffset) error {
	if err := unix.Unshare(unix.CLONE_NEWTIME); err != nil {
		return os.NewSyscallError("unshare time namespace", err)
	}
	var text strings.Builder
	for clock, o := range offsets {
		fmt.Fprintf(&text, "%s %d %d\n", clock, o.Secs, o.Nanosecs)
	}
	if text.Len() == 0 {
		return nil
	}
	if err := os.WriteFile("/proc/self/timens_offsets", []byte(text.String()), 0); err != nil {
		return fmt.Errorf("set clock offsets: %w", err)
	}
	return nil
}

// hooksBeforePivot lets the parent run its hooks, then runs createContainer's.
func (p *initProcess) hooksBeforePivot() error {
	if p.WaitHooks {
		if err := p.conn.Send(answer{Name: "mounted"}); err != nil {
			return err
		}
		if _, err := p.conn.Receive(&order{}); err != nil {
			return err
		}
	}
	if h := p.Spec.Hooks; h != nil && len(h.CreateContainer) > 0 {
		return runHooks(context.Background(), h.CreateContainer, p.State)
	}
	return nil
}

// ready tells the parent that the environment stands, hands over the terminal's
// master, and waits for the word to start.
func (p *initProcess) ready() error {
	var files []*os.File
	if p.console != nil {
		master := p.console
		defer master.Close()
		files = append(files, master)
	}
	if err := p.conn.Send(answer{Name: "ready", Warnings: p.warnings}, files...); err != nil {
		return err
	}
	if p.Listen {
		if err := p.accept(); err != nil {
			return err
		}
	} else if !p.told() {
		os.Exit(1) // the parent gave up
	}
	if h := p.Spec.Hooks; h != nil && len(h.StartContainer) > 0 {
		return runHooks(context.Background(), h.StartContainer, p.State)
	}
	return nil
}

// told waits for the word to start.
func (p *initProcess) told() bool {
	var o order
	_, err := p.conn.Receive(&o)
	return err == nil && o.Start
}

// accept waits for a process that says start, and talks to it from then on. One
// that connects and says nothing only wanted to know whether this waits.
func (p *initProcess) accept() error {
	p.conn.Close()
	for {
		fd, _, err := unix.Accept4(p.connFd+1, unix.SOCK_CLOEXEC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return os.NewSyscallError("accept", err)
		}
		p.conn = reexec.NewConn(os.NewFile(uintptr(fd), "starter"))
		if p.told() {
			return nil
		}
		p.conn.Close()
	}
}

package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	goruntime "runtime"
	"strconv"
	"strings"
	"syscall"

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
	knowSpec() // while the parent makes the cgroup
	files, err := p.conn.Receive(p.setup)
	if err != nil {
		return 1 // the parent is gone, or says why
	}
	tasks, err := p.adopt(files)
	if err == nil {
		err = joinCgroup(p.take(tasks))
	}
	if err == nil {
		err = p.run()
	}
	p.conn.Send(answer{Failure: failure(err)})
	return 1
}

// joinCgroup moves this thread; see group.joinFiles.
func joinCgroup(tasks []*os.File) error {
	for _, f := range tasks {
		if _, err := f.WriteString("0"); err != nil {
			return fmt.Errorf("join cgroup %s: %w", f.Name(), err)
		}
		f.Close()
	}
	return nil
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
		p.enterNamespaces, p.mountAll, p.hooksBeforePivot, p.changeRoot, p.finishRoot, p.limits, p.workdir,
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
	if isNew(spec, specs.CgroupNamespace) {
		if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
			return os.NewSyscallError("unshare cgroup namespace", err)
		}
	}
	if isNew(spec, specs.TimeNamespace) {
		if err := newClocks(spec.Linux.TimeOffsets); err != nil {
			return err
		}
	}
	if !p.NoNewKeyring {
		// Best effort: a kernel without keyrings has none to leak.
		unix.KeyctlJoinSessionKeyring("_kist." + p.State.ID)
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

// execute becomes the program.
func (p *initProcess) execute() error {
	proc := p.Spec.Process
	if proc == nil {
		return &StartError{Step: "start", Text: "config.json has no process"}
	}
	paths := lookup(proc)
	sys.ResetSignals()
	// Without no_new_privs the filter wants CAP_SYS_ADMIN, which finish drops.
	if !proc.NoNewPrivileges {
		if err := p.loadFilter(); err != nil {
			return err
		}
	}
	if err := becomeUser(proc); err != nil {
		return err
	}
	if err := accessible(proc); err != nil {
		return err
	}
	if proc.NoNewPrivileges {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return os.NewSyscallError("set no_new_privs", err)
		}
		if err := p.loadFilter(); err != nil {
			return err
		}
	}
	// Whatever was inherited, close-on-exec or not, ends here: close_range(2),
	// Linux 5.9; the flag, 5.11.
	if err := unix.CloseRange(uint(p.connFd), 1<<32-1, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return os.NewSyscallError("close_range", err)
	}
	return execFirst(paths, proc)
}

// workdir enters the working directory. Where start comes from another process,
// whoever created the container wants to know already that the program is missing.
func (p *initProcess) workdir() error {
	proc := p.Spec.Process
	if proc == nil {
		return nil
	}
	if err := enterDir(proc); err != nil || !p.Listen {
		return err
	}
	return executable(proc)
}

// executable tells what execFirst would, without doing it; execve, as the user,
// has the last word.
func executable(proc *specs.Process) error {
	found := syscall.ENOENT
	for _, path := range lookup(proc) {
		info, err := os.Stat(path)
		switch {
		case err != nil:
		case info.Mode().IsRegular() && info.Mode()&0o111 != 0:
			return nil
		default:
			found = syscall.EACCES
		}
	}
	return execError(proc.Args[0], found)
}

// enterDir goes to the working directory, which is made when missing, and makes
// sure that it is one below the root: /proc/self/fd/N would lead out.
func enterDir(proc *specs.Process) error {
	err := os.Chdir(proc.Cwd)
	if errors.Is(err, os.ErrNotExist) {
		if err := os.MkdirAll(proc.Cwd, 0o755); err != nil {
			return fmt.Errorf("make working directory: %w", err)
		}
		err = os.Chdir(proc.Cwd)
	}
	if errors.Is(err, os.ErrPermission) {
		return nil // for the user alone: accessible tries again
	}
	if err != nil {
		return fmt.Errorf("enter working directory: %w", err)
	}
	return inside(proc.Cwd)
}

func inside(cwd string) error {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Getcwd(buf)
	if err != nil || n == 0 || buf[0] != '/' {
		return &StartError{Step: "enter working directory", Object: cwd, Text: "it leads out of the container"}
	}
	return nil
}

// accessible enters the working directory again as the user, who may see what
// root of another machine may not (a network file system).
func accessible(proc *specs.Process) error {
	if err := os.Chdir(proc.Cwd); err != nil {
		return fmt.Errorf("enter working directory as the user: %w", err)
	}
	return inside(proc.Cwd)
}

// defaultPath is what execvp(3) uses without PATH.
const defaultPath = "/bin:/usr/bin"

// lookup lists the paths at which the program may be, as execvp(3) tries them.
func lookup(proc *specs.Process) []string {
	name := proc.Args[0]
	if strings.ContainsRune(name, '/') {
		return []string{name}
	}
	if name == "" {
		return nil
	}
	path := defaultPath
	for _, e := range proc.Env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			path = v
		}
	}
	var paths []string
	for _, dir := range strings.Split(path, ":") {
		if dir == "" {
			dir = "."
		}
		paths = append(paths, dir+"/"+name)
	}
	return paths
}

// execFirst becomes the first of paths that can be executed. As execvp(3) does
// it goes on after EACCES and reports it only when nothing else was found.
func execFirst(paths []string, proc *specs.Process) error {
	found := syscall.ENOENT
	for _, path := range paths {
		err := unix.Exec(path, proc.Args, proc.Env)
		switch {
		case errors.Is(err, unix.EACCES):
			found = syscall.EACCES
		case !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR):
			return execError(proc.Args[0], err)
		case errors.Is(err, unix.ENOENT) && exists(path):
			// The file is there: its interpreter or dynamic linker is not.
			return &StartError{Step: stepExec, Object: proc.Args[0], Text: "its interpreter is not in the image", Errno: int(unix.ENOENT)}
		}
	}
	return execError(proc.Args[0], found)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func execError(name string, err error) error {
	e := &StartError{Step: stepExec, Object: name}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		e.Errno = int(errno)
	}
	return e
}

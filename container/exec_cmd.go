package container

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/kist-containers/kist/container/monitor"
	"github.com/kist-containers/kist/container/runtime"
	"github.com/kist-containers/kist/internal/reexec"
	"github.com/kist-containers/kist/internal/ui"
)

// ExecCmd is `kist exec`.
type ExecCmd struct {
	Detach      bool     `short:"d" help:"Leave it running."`
	DetachKeys  string   `help:"Keys that detach from a terminal (ctrl-p,ctrl-q)." placeholder:"KEYS"`
	Env         []string `short:"e" sep:"none" help:"Set a variable." placeholder:"KEY=VALUE"`
	EnvFile     []string `sep:"none" help:"Read variables from a file." placeholder:"FILE"`
	Interactive bool     `short:"i" help:"Pass standard input on."`
	Tty         bool     `short:"t" help:"Give it a terminal."`
	Privileged  bool     `help:"Give it all capabilities."`
	User        string   `short:"u" help:"User, by name or id." placeholder:"USER[:GROUP]"`
	Workdir     string   `short:"w" help:"Working directory." placeholder:"DIR"`
	PreserveFds int      `help:"Pass so many descriptors on, from 3 up." placeholder:"N"`
	PreserveFd  []int    `help:"Pass descriptors on." placeholder:"FD,…"`
	Cidfile     string   `name:"cidfile" help:"Read the container's ID from a file." placeholder:"FILE"`
	Latest      bool     `short:"l" help:"The newest container."`
	NoSession   bool     `hidden:""`
	Argv        []string `arg:"" name:"container" passthrough:"" help:"Container, then command and arguments."`
}

// HandlesSignals says that signals are for the program.
func (c *ExecCmd) HandlesSignals() {}

// Run runs a program in a running container.
func (c *ExecCmd) Run(ctx context.Context, e *Engine, out *ui.Output) error {
	argv, err := c.argv(e)
	if err != nil {
		return fmt.Errorf("exec: %w", err)
	}
	keys, err := detachKeys(c.DetachKeys)
	if err != nil {
		return fmt.Errorf("exec: %w", err)
	}
	inherited, err := inheritedFiles(c.PreserveFds, c.PreserveFd)
	if err != nil {
		return fmt.Errorf("exec: %w", err)
	}
	ct, err := e.running("exec", argv[0])
	if err != nil {
		return err
	}
	if e.Status(ct.ID).Word == StatusPaused {
		return ui.Hint(fmt.Errorf("exec %s: container is paused", argv[0]), "kist unpause %s", argv[0])
	}
	if c.Tty && c.Interactive && !c.Detach && !ui.IsTerminal(out.In) {
		return errors.New("the input device is not a TTY")
	}
	proc, seccomp, err := c.process(e, ct, argv[1:])
	if err != nil {
		return fmt.Errorf("exec %s: %w", argv[0], err)
	}
	o := runtime.ExecOptions{Seccomp: seccomp, ExtraFiles: inherited}
	if !c.Detach {
		o.Stdout, o.Stderr = out.Out, out.Err
		if c.Interactive {
			o.Stdin = out.In
		}
	}
	x := &execSession{c: c, out: out, keys: keys}
	id := map[string]string{"execID": newID()}
	command := ": " + strings.Join(proc.Args, " ")
	e.event(ct, "exec_create"+command, id)
	if err := x.start(ctx, e, ct, proc, o); err != nil {
		if e.Rootless && !e.facts(ct.ID).MonitorAlive {
			// With the last monitor goes a user's way into the user namespace.
			err = ui.Hint(errors.New("its monitor was killed"), "kist stop %s; kist start %[1]s", argv[0])
		}
		return fmt.Errorf("exec %s: %w", argv[0], e.explainExec(ct, err))
	}
	e.event(ct, "exec_start"+command, id)
	if c.Detach {
		return x.leave()
	}
	err = x.wait()
	if errors.Is(err, monitor.ErrDetached) {
		e.event(ct, "exec_detach", id)
		return err // docker: it says so and exits 1, as attach does
	}
	e.event(ct, "exec_die", map[string]string{"execID": id["execID"], "exitCode": fmt.Sprint(ui.ExitCode(err, failedCode))})
	return err
}

// notStarted is docker's exit status of exec where the container runs and the
// program does not start for another reason than that it is missing.
const notStarted = 126

func (e *Engine) explainExec(c *Config, err error) error {
	err = e.explain(c, err)
	var start *ui.CodedError
	if errors.As(err, &start) && start.Code == failedCode {
		return ui.WithCode(notStarted, err)
	}
	return err
}

// argv is the container and what to run in it.
func (c *ExecCmd) argv(e *Engine) ([]string, error) {
	argv := c.Argv
	if len(argv) > 0 && argv[0] == "--" {
		argv = argv[1:]
	}
	switch {
	case c.Latest && c.Cidfile != "":
		return nil, errors.New("--latest and --cidfile contradict each other")
	case c.Latest:
		all, err := e.all()
		if err != nil {
			return nil, err
		}
		if len(all) == 0 {
			return nil, ui.Hint(ErrNotFound, "kist ps -a")
		}
		argv = append([]string{all[0].ID}, argv...)
	case c.Cidfile != "":
		id, err := os.ReadFile(c.Cidfile)
		if err != nil {
			return nil, fmt.Errorf("--cidfile %s: %w", c.Cidfile, errors.Unwrap(err))
		}
		argv = append([]string{strings.TrimSpace(string(id))}, argv...)
	}
	if len(argv) < 2 {
		return nil, ui.Hint(errors.New("a container and a command are needed"), "kist exec --help")
	}
	return argv, nil
}

// inheritedFiles are the caller's descriptors that a program is to have too, as
// 3, 4 and so on.
func inheritedFiles(count int, list []int) ([]*os.File, error) {
	if count > 0 && len(list) > 0 {
		return nil, errors.New("--preserve-fds and --preserve-fd contradict each other")
	}
	const first = 3
	for n := range count {
		list = append(list, first+n)
	}
	slices.Sort(list)
	var files []*os.File
	for _, fd := range list {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || fd < first {
			return nil, fmt.Errorf("--preserve-fds: descriptor %d is not open", fd)
		}
		files = append(files, os.NewFile(uintptr(fd), "inherited"))
	}
	return files, nil
}

// process describes the program: the container's own, with what the flags change.
func (c *ExecCmd) process(e *Engine, ct *Config, argv []string) (*specs.Process, *specs.LinuxSeccomp, error) {
	spec, err := runtime.ReadSpec(e.dataDir(ct.ID, bundleDir, configFile))
	if err != nil {
		return nil, nil, err
	}
	proc := *spec.Process
	proc.Args, proc.Terminal, proc.ConsoleSize = argv, c.Tty, nil
	flags := createFlags{processFlags: processFlags{Env: c.Env, EnvFile: c.EnvFile}}
	env, err := flags.environment()
	if err != nil {
		return nil, nil, err
	}
	proc.Env = slices.DeleteFunc(proc.Env, func(v string) bool { return v == "TERM=xterm" && !c.Tty })
	if c.Tty {
		proc.Env = mergeEnv([]string{"TERM=xterm"}, proc.Env)
	}
	if c.User != "" {
		if err := c.become(e, ct, &proc); err != nil {
			return nil, nil, ui.WithCode(notStarted, err)
		}
	}
	proc.Env = mergeEnv(proc.Env, env)
	if c.Workdir != "" {
		if !path.IsAbs(c.Workdir) {
			return nil, nil, fmt.Errorf("-w %s: the working directory must be an absolute path", c.Workdir)
		}
		proc.Cwd = c.Workdir
	}
	seccomp := spec.Linux.Seccomp
	if c.Privileged {
		all := runtime.OwnCapabilities()
		proc.Capabilities = &specs.LinuxCapabilities{Bounding: all, Effective: all, Permitted: all}
		seccomp = nil
	}
	if out := proc.Terminal; out {
		if cols, rows, err := term.GetSize(int(os.Stdin.Fd())); err == nil {
			proc.ConsoleSize = &specs.Box{Width: uint(cols), Height: uint(rows)}
		}
	}
	return &proc, seccomp, nil
}

// become resolves -u by the container's own files as they are now.
func (c *ExecCmd) become(e *Engine, ct *Config, proc *specs.Process) error {
	root, err := e.process(ct.ID).OpenFile("root", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return endedMeanwhile(err)
	}
	defer root.Close()
	user, home, err := e.user(root, c.User, ct.GroupAdd)
	if err != nil {
		return err
	}
	proc.User = user
	proc.Env = mergeEnv(proc.Env, []string{"HOME=" + home})
	bounding := proc.Capabilities.Bounding
	proc.Capabilities = &specs.LinuxCapabilities{Bounding: bounding}
	if user.UID == 0 {
		proc.Capabilities.Effective, proc.Capabilities.Permitted = bounding, bounding
	}
	return nil
}

// execSession is one exec while it runs. Without a terminal the program has this
// command's own descriptors unless they are a terminal, into which it must not
// be able to type (TIOCSTI); then pipes stand between.
type execSession struct {
	c       *ExecCmd
	out     *ui.Output
	proc    *runtime.Process
	console *os.File
	keys    []byte
	left    chan struct{} // closed once the user typed the keys
	copying sync.WaitGroup
	closers []io.Closer
}

func (x *execSession) start(ctx context.Context, e *Engine, ct *Config, proc *specs.Process, o runtime.ExecOptions) (err error) {
	if !x.c.Tty {
		defer x.closeTheirs()
		for i, f := range []**os.File{&o.Stdin, &o.Stdout, &o.Stderr} {
			if ui.IsTerminal(*f) {
				if *f, err = x.pipe(i, *f); err != nil {
					return err
				}
			}
		}
	}
	x.proc, err = e.runtime().Exec(ctx, ct.ID, proc, o)
	if errors.Is(err, runtime.ErrNotFound) {
		return ErrNotRunning // it has ended meanwhile
	}
	if err != nil {
		return err
	}
	if x.console = x.proc.Console(); x.console != nil && !x.c.Detach {
		return x.terminal()
	}
	return nil
}

// pipe puts a pipe before a terminal and returns the program's end.
func (x *execSession) pipe(fd int, user *os.File) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	if fd == 0 {
		go func() {
			io.Copy(w, user)
			w.Close()
		}()
		x.closers = append(x.closers, r)
		return r, nil
	}
	x.copying.Go(func() {
		io.Copy(user, r)
		r.Close()
	})
	x.closers = append(x.closers, w)
	return w, nil
}

func (x *execSession) closeTheirs() {
	for _, c := range x.closers {
		c.Close()
	}
	x.closers = nil
}

// terminal connects the user's terminal with the program's.
func (x *execSession) terminal() error {
	if x.c.Interactive {
		// First: what is printed before the user's terminal is raw, that terminal
		// translates once more.
		if err := x.typing(); err != nil {
			return err
		}
	}
	x.copying.Go(func() { io.Copy(x.out.Out, x.console) })
	return nil
}

// typing passes on what is typed and how large the user's terminal is.
func (x *execSession) typing() error {
	fd := int(x.out.In.Fd())
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, unix.SIGWINCH)
	go func() {
		for range resized {
			if cols, rows, err := term.GetSize(fd); err == nil {
				unix.IoctlSetWinsize(int(x.console.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(rows), Col: uint16(cols)})
			}
		}
	}()
	old, err := term.MakeRaw(fd)
	if err != nil {
		return err
	}
	x.closers = append(x.closers, closerFunc(func() error {
		signal.Stop(resized)
		return term.Restore(fd, old)
	}))
	x.left = make(chan struct{})
	go func() {
		if monitor.CopyUntilKeys(x.console, x.out.In, x.keys) {
			close(x.left)
		}
	}()
	return nil
}

// HoldRole keeps the terminal of a program whose user has left: without its
// master the program would be hung up on.
const HoldRole = "kist-hold"

// HoldMain reads what the program prints to its end.
func HoldMain() int {
	signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM)
	io.Copy(io.Discard, os.NewFile(3, "terminal"))
	return 0
}

// leave lets the program go on without this command.
func (x *execSession) leave() error {
	if x.console == nil {
		return nil
	}
	hold := reexec.Command(context.Background(), HoldRole)
	hold.ExtraFiles = []*os.File{x.console}
	hold.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := hold.Start(); err != nil {
		return err
	}
	return hold.Process.Release()
}

type closerFunc func() error

func (f closerFunc) Close() error { return f() }

// wait returns the program's exit status as this command's own. Signals are
// passed on.
func (x *execSession) wait() error {
	defer x.closeTheirs()
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2)
	defer signal.Stop(signals)
	go func() {
		for s := range signals {
			unix.Kill(x.proc.Pid(), s.(unix.Signal))
		}
	}()
	ended := make(chan struct{})
	var status unix.WaitStatus
	var err error
	go func() {
		status, err = x.proc.Wait()
		close(ended)
	}()
	select {
	case <-x.left:
		return cmp.Or(x.leave(), monitor.ErrDetached)
	case <-ended:
	}
	if err != nil {
		return err
	}
	if x.console != nil {
		x.copying.Wait()
		x.console.Close()
	} else {
		x.copying.Wait()
	}
	switch {
	case status.Signaled():
		return ui.Exit(128 + int(status.Signal()))
	case status.ExitStatus() != 0:
		return ui.Exit(status.ExitStatus())
	}
	return nil
}

package container

import (
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

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/kist-containers/kist/container/runtime"
	"github.com/kist-containers/kist/internal/state"
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
	Argv        []string `arg:"" name:"container" passthrough:"" help:"Container, then command and arguments."`
}

// HandlesSignals says that signals are for the program.
func (c *ExecCmd) HandlesSignals() {}

// Run runs a program in a running container.
func (c *ExecCmd) Run(ctx context.Context, e *Engine, out *ui.Output) error {
	argv := c.Argv
	if len(argv) > 0 && argv[0] == "--" {
		argv = argv[1:]
	}
	if len(argv) < 2 {
		return ui.Hint(errors.New("exec: a container and a command are needed"), "kist exec --help")
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
	o := runtime.ExecOptions{Seccomp: seccomp}
	if !c.Detach {
		o.Stdout, o.Stderr = out.Out, out.Err
		if c.Interactive {
			o.Stdin = out.In
		}
	}
	x := &execSession{c: c, out: out}
	if err := x.start(ctx, e, ct, proc, o); err != nil {
		return e.explain(ct, fmt.Errorf("exec %s: %w", argv[0], err))
	}
	e.event(ct, "exec_start: "+strings.Join(proc.Args, " "), nil)
	if c.Detach {
		return nil
	}
	return x.wait()
}

// process describes the program: the container's own, with what the flags change.
func (c *ExecCmd) process(e *Engine, ct *Config, argv []string) (*specs.Process, *specs.LinuxSeccomp, error) {
	spec := new(specs.Spec)
	if err := state.ReadJSON(e.dataDir(ct.ID, bundleDir, configFile), spec); err != nil {
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
			return nil, nil, err
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
		all := ownCapabilities()
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
	root, err := os.OpenFile(fmt.Sprintf("/proc/%d/root", e.process(ct.ID).Pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer root.Close()
	user, home, err := resolveUser(root, c.User, ct.GroupAdd)
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
	if x.proc, err = e.runtime().Exec(ctx, ct.ID, proc, o); err != nil {
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
	x.copying.Go(func() { io.Copy(x.out.Out, x.console) })
	if !x.c.Interactive {
		return nil
	}
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
	go io.Copy(x.console, x.out.In)
	return nil
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
	status, err := x.proc.Wait()
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

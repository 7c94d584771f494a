package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/container/monitor"
	"github.com/kist-containers/kist/image"
	"github.com/kist-containers/kist/internal/state"
	"github.com/kist-containers/kist/internal/ui"
	"github.com/kist-containers/kist/volume"
)

// failedCode is docker's exit status when kist itself, and not the program, is
// the reason.
const failedCode = 125

// CreateCmd is `kist create`.
type CreateCmd struct {
	createFlags `embed:""`
	Argv        []string `arg:"" name:"image" passthrough:"" help:"Image, then command and arguments."`
}

// Run records the container and prints its ID.
func (c *CreateCmd) Run(ctx context.Context, e *Engine, out *ui.Output) error {
	ct, err := c.create(ctx, e, out, c.Argv, len(c.Attach) > 0 || c.Interactive)
	if err != nil {
		return ui.WithCode(failedCode, fmt.Errorf("create %s: %w", first(c.Argv), err))
	}
	ct.Release()
	out.Print(ct.ID)
	return nil
}

func first(argv []string) string {
	if len(argv) > 0 {
		return argv[0]
	}
	return ""
}

// create turns flags and image into a container.
func (f *createFlags) create(ctx context.Context, e *Engine, out *ui.Output, argv []string, stdinOnce bool) (*created, error) {
	if len(argv) > 0 && argv[0] == "--" {
		argv = argv[1:]
	}
	if len(argv) == 0 {
		return nil, errors.New("no image is given")
	}
	// What kong does not know it passes through as the image.
	if strings.HasPrefix(argv[0], "-") {
		return nil, ui.Hint(fmt.Errorf("unknown flag %s", argv[0]), "kist run --help")
	}
	c, err := f.settle()
	if err != nil {
		return nil, err
	}
	c.StdinOnce = stdinOnce && f.Interactive
	c.noteOrigin(os.Args[1:])
	platform, err := f.platform()
	if err != nil {
		return nil, err
	}
	if err := f.volumesFrom(e, c); err != nil {
		return nil, err
	}
	if _, err := c.ports(); err != nil {
		return nil, err
	}
	if c.Network.Mode == "host" && len(c.Network.Ports) > 0 {
		out.Warn("-p: published ports are discarded with --network host")
	}
	if f.Cidfile != "" {
		if _, err := os.Lstat(f.Cidfile); err == nil {
			return nil, ui.Hint(fmt.Errorf("--cidfile %s: the file exists", f.Cidfile), "rm %s", f.Cidfile)
		}
	}
	var progress *ui.Progress
	if !f.Quiet {
		progress = out.Progress()
		defer progress.Close()
	}
	if f.Replace {
		if err := e.replace(ctx, f.Name); err != nil {
			return nil, err
		}
	}
	ct, err := e.Create(ctx, c, source{
		Image: argv[0], Rootfs: f.Rootfs, Entrypoint: f.Entrypoint, Argv: argv[1:], Policy: f.Pull,
		Pull: image.PullOptions{Platform: platform, Progress: progress, Registry: f.registry()}, Retry: f.RetryFlags,
		Env: f.envFlags, ImageVolume: f.ImageVolume, SeccompPolicy: f.SeccompPolicy,
	})
	if err != nil {
		return nil, err
	}
	if f.Cidfile != "" {
		path, err := filepath.Abs(f.Cidfile)
		if err == nil {
			err = state.WriteFile(path, []byte(ct.ID), 0o644)
		}
		if err != nil {
			var inner *fs.PathError // of the temporary file beside it
			if errors.As(err, &inner) {
				err = inner.Err
			}
			err = errors.Join(fmt.Errorf("--cidfile %s: %w", f.Cidfile, err), e.remove(ctx, ct.Config, true))
			ct.Release()
			return nil, err
		}
	}
	return ct, nil
}

// volumesFrom adds the mounts of other containers.
func (f *createFlags) volumesFrom(e *Engine, c *Config) error {
	for _, v := range f.VolumesFrom {
		name, mode, _ := strings.Cut(v, ":")
		o, err := e.Lookup(name)
		if err != nil {
			return fmt.Errorf("--volumes-from %s: %w", v, err)
		}
		if mode != "" && mode != "ro" && mode != "rw" && mode != "z" && mode != "Z" {
			return fmt.Errorf("--volumes-from %s: mode %q: want ro or rw", v, mode)
		}
		for _, m := range o.Mounts {
			m.ReadOnly = m.ReadOnly || mode == "ro"
			m.Anonymous = false // it goes with its own container
			if !slices.ContainsFunc(c.Mounts, func(x volume.Mount) bool { return x.Target == m.Target }) {
				c.Mounts = append(c.Mounts, m)
			}
		}
	}
	return nil
}

// RunCmd is `kist run`: create, start and, unless detached, wait.
type RunCmd struct {
	createFlags `embed:""`
	Detach      bool     `short:"d" help:"Leave it running and print its ID."`
	DetachKeys  string   `help:"Keys that detach from a terminal (ctrl-p,ctrl-q)." placeholder:"KEYS"`
	PreserveFds int      `help:"Pass so many descriptors on, from 3 up." placeholder:"N"`
	PreserveFd  []int    `help:"Pass descriptors on." placeholder:"FD,…"`
	SigProxy    bool     `negatable:"" default:"true" help:"Pass signals on to the program."`
	Argv        []string `arg:"" name:"image" passthrough:"" help:"Image, then command and arguments."`

	// starter is the monitor, started before the command line is parsed: the two
	// take about as long. One that is never told what to run ends by itself.
	starter *monitor.Starter
	// showID says that no output is attached.
	showID bool
}

// newRunCmd starts the monitor ahead.
func newRunCmd() *RunCmd {
	c := new(RunCmd)
	// An error shows again, and is told, when the monitor is needed.
	c.starter, _ = monitor.Spawn()
	return c
}

// HandlesSignals says that signals are for the container.
func (c *RunCmd) HandlesSignals() {}

// Validate refuses flags that contradict each other.
func (c *RunCmd) Validate() error {
	if c.Detach && len(c.Attach) > 0 {
		return errors.New("-d and -a contradict each other")
	}
	return nil
}

// Run runs a container.
func (c *RunCmd) Run(ctx context.Context, e *Engine, out *ui.Output) error {
	keys, err := detachKeys(c.DetachKeys)
	if err != nil {
		return ui.WithCode(failedCode, fmt.Errorf("run: %w", err))
	}
	inherited, err := inheritedFiles(c.PreserveFds, c.PreserveFd)
	if err != nil {
		return ui.WithCode(failedCode, fmt.Errorf("run: %w", err))
	}
	if c.Tty && c.Interactive && !c.Detach && !ui.IsTerminal(out.In) {
		return errors.New("the input device is not a TTY")
	}
	starter := c.starter
	if starter == nil {
		if starter, err = monitor.Spawn(); err != nil {
			return ui.WithCode(failedCode, err)
		}
	}
	c.detached = c.Detach
	ct, err := c.create(ctx, e, out, c.Argv, !c.Detach)
	if err != nil {
		starter.Abort()
		return ui.WithCode(failedCode, fmt.Errorf("run %s: %w", first(c.Argv), err))
	}
	if c.Detach {
		err = e.Start(ctx, ct.Config, starter, nil, inherited...)
	} else {
		var s *session
		if s, err = c.foreground(ctx, e, ct, starter, out, keys, inherited); err == nil {
			if c.showID {
				out.Print(ct.ID) // docker: nothing else is shown
			}
			return s.wait(ctx, e)
		}
	}
	if err != nil {
		return ui.WithCode(ui.ExitCode(err, failedCode), fmt.Errorf("run %s: %w", first(c.Argv), e.abandon(ctx, ct, err)))
	}
	ct.Release()
	out.Print(ct.ID)
	return nil
}

// abandon removes a container that never started because of what was asked of
// kist, and one that was to be removed after its exit. One whose program is the
// reason is left as created, for the user to look at.
func (e *Engine) abandon(ctx context.Context, ct *created, err error) error {
	defer ct.Release()
	if ct.AutoRemove || ui.ExitCode(err, failedCode) == failedCode {
		return errors.Join(err, e.remove(context.WithoutCancel(ctx), ct.Config, true))
	}
	return err
}

// session is a started container with this command attached.
type session struct {
	client   *monitor.Client
	c        *Config
	sigProxy bool
}

// foreground starts the container with this command's streams.
func (c *RunCmd) foreground(ctx context.Context, e *Engine, ct *created, starter *monitor.Starter, out *ui.Output, keys []byte, inherited []*os.File) (*session, error) {
	ours, theirs, err := monitor.AttachPair()
	if err != nil {
		starter.Abort()
		return nil, err
	}
	defer theirs.Close()
	client, err := monitor.NewClient(ours)
	if err != nil {
		starter.Abort()
		return nil, err
	}
	streams(client, ct.Config, c.Attach, out)
	c.showID = len(c.Attach) > 0 && client.Stdout == nil && client.Stderr == nil
	client.DetachKeys = keys
	e.event(ct.Config, "attach", nil)
	if err := e.Start(ctx, ct.Config, starter, theirs, inherited...); err != nil {
		client.Close()
		return nil, err
	}
	ct.Release()
	return &session{client, ct.Config, c.SigProxy && !ct.Tty}, nil
}

// streams connects the client to this command's standard streams, or to those of
// them that -a names.
func streams(client *monitor.Client, c *Config, attach []string, out *ui.Output) {
	want := func(name string) bool {
		return len(attach) == 0 || slices.ContainsFunc(attach, func(a string) bool { return strings.EqualFold(a, name) })
	}
	client.Terminal = c.Tty
	if c.OpenStdin && want("stdin") {
		client.Stdin = out.In
	}
	if want("stdout") {
		client.Stdout = out.Out
	}
	if want("stderr") {
		client.Stderr = out.Err
	}
}

// wait copies until the container ends, and passes signals on meanwhile.
func (s *session) wait(ctx context.Context, e *Engine) error {
	if s.sigProxy {
		s.proxy(e)
	}
	code, err := s.client.Run(ctx, s.c.AutoRemove)
	switch {
	case errors.Is(err, monitor.ErrDetached):
		e.event(s.c, "detach", nil)
		return nil
	case errors.Is(err, monitor.ErrMonitorGone):
		st := e.Status(s.c.ID)
		return ui.WithCode(failedCode, fmt.Errorf("run %s: %w (now %s)", s.c.Name, err, st.Word))
	case errors.Is(err, unix.EPIPE):
		return ui.Exit(128 + int(unix.SIGPIPE))
	case err != nil:
		return ui.WithCode(failedCode, err)
	case code != 0:
		return ui.Exit(code)
	}
	return nil
}

// proxy sends every signal that a program may want to the container's first
// process, from now to the end of this one. After three of those that end a
// program kist itself goes, as docker does.
func (s *session) proxy(e *Engine) {
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGCONT)
	// All of them take the Go runtime a millisecond, and two CPUs have the
	// container's program to start.
	time.AfterFunc(20*time.Millisecond, func() { signal.Notify(signals) })
	go func() {
		ends := 0
		for sig := range signals {
			n := sig.(unix.Signal)
			switch n {
			case unix.SIGCHLD, unix.SIGPIPE, unix.SIGURG, unix.SIGWINCH:
				continue
			case unix.SIGINT, unix.SIGTERM:
				if ends++; ends >= 3 {
					os.Exit(128 + int(n))
				}
			}
			e.signal(s.c.ID, n)
		}
	}()
}

func detachKeys(s string) ([]byte, error) {
	if s == "" {
		return monitor.DefaultDetachKeys, nil
	}
	return monitor.ParseDetachKeys(s)
}

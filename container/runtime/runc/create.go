package runc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/container/runtime"
	"github.com/kist-containers/kist/internal/state"
	"github.com/kist-containers/kist/internal/sys"
	"github.com/kist-containers/kist/internal/ui"
)

// createFlags are what create and run share.
type createFlags struct {
	Bundle        string `short:"b" help:"Directory of config.json (default: the working directory)." placeholder:"DIR"`
	Config        string `short:"f" help:"File to read in place of config.json." placeholder:"FILE"`
	ConsoleSocket string `name:"console-socket" help:"Unix socket to send the terminal to." placeholder:"SOCK"`
	PidfdSocket   string `name:"pidfd-socket" help:"Unix socket to send a pidfd of the program to." placeholder:"SOCK"`
	PidFile       string `name:"pid-file" help:"File to write the program's pid to." placeholder:"FILE"`
	NoPivot       bool   `name:"no-pivot" help:"Use MS_MOVE and chroot, for a root on a ramdisk."`
	NoNewKeyring  bool   `name:"no-new-keyring" help:"Keep the session keyring."`
	NoSubreaper   bool   `name:"no-subreaper" help:"Accepted; kist is no subreaper." hidden:""`
	PreserveFds   int    `name:"preserve-fds" help:"Pass descriptors 3 to N+2 on." placeholder:"N"`
	ID            string `arg:"" help:"Name of the container."`
}

// create makes the container with this process's streams and descriptors.
func (c *createFlags) create(ctx context.Context, r *runtime.Runtime, detached bool) (*runtime.Process, error) {
	spec, err := c.spec()
	if err != nil {
		return nil, err
	}
	if c.ConsoleSocket == "" && detached && spec.Process != nil && spec.Process.Terminal {
		return nil, errors.New("process.terminal wants --console-socket")
	}
	p, err := r.Create(ctx, c.ID, runtime.CreateOptions{
		Bundle: c.Bundle, Spec: spec, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		NoPivot: c.NoPivot, NoNewKeyring: c.NoNewKeyring, ExtraFiles: inherited(spec, c.PreserveFds), Detached: true,
	})
	if err != nil {
		return nil, err
	}
	if err := c.announce(p); err != nil {
		return nil, errors.Join(err, r.Delete(context.WithoutCancel(ctx), c.ID, true))
	}
	return p, nil
}

func (c *createFlags) spec() (*specs.Spec, error) {
	file := c.Config
	if file == "" {
		file = filepath.Join(c.Bundle, "config.json")
	}
	if err := foreign(file); err != nil {
		return nil, err
	}
	return runtime.ReadSpec(file)
}

// maxForeign bounds a file that others wrote and that is read as a whole; a large
// config.json has some 40 kB.
const maxForeign = 16 << 20

// foreign refuses what would never end, or is too large to be meant.
func foreign(file string) error {
	info, err := os.Stat(file)
	switch {
	case err != nil:
		return nil // for its reader to tell
	case !info.Mode().IsRegular():
		return fmt.Errorf("read %s: not a regular file", file)
	case info.Size() > maxForeign:
		return fmt.Errorf("read %s: more than %d MiB", file, maxForeign>>20)
	}
	return nil
}

// announce tells whoever asked for the terminal, the pidfd and the pid.
func (c *createFlags) announce(p *runtime.Process) error {
	if p.Console() != nil && c.ConsoleSocket != "" {
		err := sendFile(c.ConsoleSocket, p.Console())
		p.Console().Close()
		if err != nil {
			return fmt.Errorf("send the terminal to %s: %w", c.ConsoleSocket, err)
		}
	}
	if c.PidfdSocket != "" {
		if err := sendPidfd(c.PidfdSocket, p.Pid()); err != nil {
			return err
		}
	}
	return writePid(c.PidFile, p.Pid())
}

func writePid(file string, pid int) error {
	if file == "" {
		return nil
	}
	return state.WriteFile(file, []byte(strconv.Itoa(pid)), 0o644)
}

func sendPidfd(socket string, pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return os.NewSyscallError("pidfd_open", err)
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	defer f.Close()
	return sendFile(socket, f)
}

// sendFile passes f on; the name goes with it, as runc does it.
func sendFile(socket string, f *os.File) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: socket}); err != nil {
		return os.NewSyscallError("connect", err)
	}
	return os.NewSyscallError("sendmsg", unix.Sendmsg(fd, []byte(f.Name()), unix.UnixRights(int(f.Fd())), nil, 0))
}

// inherited are the descriptors that go on to the program: those of systemd's
// socket activation (sd_listen_fds(3)), then those of --preserve-fds.
func inherited(spec *specs.Spec, preserve int) []*os.File {
	listen, _ := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if listen > 0 && spec.Process != nil {
		spec.Process.Env = append(spec.Process.Env, fmt.Sprintf("LISTEN_FDS=%d", listen), "LISTEN_PID=1")
	}
	var files []*os.File
	for i := range max(listen, 0) + max(preserve, 0) {
		files = append(files, os.NewFile(uintptr(3+i), "inherited"))
	}
	return files
}

type createCmd struct {
	createFlags `embed:""`
}

// Run is `create`.
func (c *createCmd) Run(ctx context.Context, r *runtime.Runtime) error {
	_, err := c.create(ctx, r, true)
	return err
}

type startCmd struct {
	ID string `arg:"" help:"Name of the container."`
}

// Run is `start`.
func (c *startCmd) Run(ctx context.Context, r *runtime.Runtime) error { return r.Start(ctx, c.ID) }

type runCmd struct {
	createFlags `embed:""`
	Detach      bool `short:"d" help:"Return once the program runs."`
	Keep        bool `help:"Keep the container's state when it has ended."`
}

// HandlesSignals marks a command that hands signals on.
func (c *runCmd) HandlesSignals() {}

// Run is `run`.
func (c *runCmd) Run(ctx context.Context, r *runtime.Runtime, out *ui.Output) error {
	p, err := c.create(ctx, r, c.Detach)
	if err != nil {
		return err
	}
	restore, err := relay(p, out)
	if err != nil {
		return errors.Join(err, r.Delete(ctx, c.ID, true))
	}
	defer restore()
	if err := r.Start(ctx, c.ID); err != nil {
		return errors.Join(err, r.Delete(ctx, c.ID, true))
	}
	if c.Detach {
		return nil
	}
	err = wait(p)
	restore()
	if c.Keep {
		return err
	}
	if gone := r.Delete(ctx, c.ID, true); gone != nil {
		return errors.Join(gone, err)
	}
	return err
}

// wait hands this process's signals on until p ends, and returns its exit
// status as runc's own.
func wait(p *runtime.Process) error {
	self, err := sys.ProcessOf(p.Pid())
	if err == nil {
		stop := forward(self)
		defer stop()
	}
	status, err := p.Wait()
	switch {
	case err != nil:
		return err
	case status.Signaled():
		return ui.Exit(128 + int(status.Signal()))
	case status.ExitStatus() != 0:
		return ui.Exit(status.ExitStatus())
	}
	return nil
}

func forward(to sys.Process) (stop func()) {
	c := make(chan os.Signal, 16)
	signal.Notify(c)
	go func() {
		for s := range c {
			sig, ok := s.(unix.Signal)
			if ok && sig != unix.SIGCHLD && sig != unix.SIGURG && sig != unix.SIGPIPE && sig != unix.SIGWINCH {
				to.Signal(sig)
			}
		}
	}()
	return func() { signal.Stop(c); close(c) }
}

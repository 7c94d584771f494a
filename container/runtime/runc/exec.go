package runc

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/kist-containers/kist/container/runtime"
	"github.com/kist-containers/kist/internal/state"
	"github.com/kist-containers/kist/internal/ui"
)

type execCmd struct {
	Process        string   `short:"p" help:"File with the process as in config.json." placeholder:"FILE"`
	ConsoleSocket  string   `name:"console-socket" help:"Unix socket to send the terminal to." placeholder:"SOCK"`
	PidfdSocket    string   `name:"pidfd-socket" help:"Unix socket to send a pidfd of the program to." placeholder:"SOCK"`
	PidFile        string   `name:"pid-file" help:"File to write the program's pid to." placeholder:"FILE"`
	Detach         bool     `short:"d" help:"Return once the program runs."`
	TTY            bool     `name:"tty" short:"t" help:"Give it a terminal."`
	Cwd            string   `help:"Working directory." placeholder:"DIR"`
	Env            []string `short:"e" sep:"none" help:"Environment variables to add." placeholder:"K=V"`
	User           string   `short:"u" help:"Numbers to run as." placeholder:"UID[:GID]"`
	AdditionalGids []uint32 `name:"additional-gids" short:"g" help:"Groups to add." placeholder:"GID"`
	ProcessLabel   string   `name:"process-label" help:"SELinux label." placeholder:"LABEL"`
	Apparmor       string   `help:"AppArmor profile." placeholder:"PROFILE"`
	NoNewPrivs     bool     `name:"no-new-privs" help:"Set no_new_privs."`
	Cap            []string `short:"c" help:"Capabilities to add." placeholder:"CAP"`
	PreserveFds    int      `name:"preserve-fds" help:"Pass descriptors 3 to N+2 on." placeholder:"N"`
	Cgroup         []string `help:"Cgroup below the container's to run in: [CONTROLLER:]PATH." placeholder:"PATH"`
	IgnorePaused   bool     `name:"ignore-paused" help:"Do not refuse a paused container."`
	NoSubreaper    bool     `name:"no-subreaper" hidden:""`
	Words          []string `arg:"" name:"id" passthrough:"" help:"Container, then program and arguments."`
}

// HandlesSignals marks a command that hands signals on.
func (c *execCmd) HandlesSignals() {}

// execFailed is runc's exit status when the program did not run.
const execFailed = 255

// Run is `exec`.
func (c *execCmd) Run(ctx context.Context, r *runtime.Runtime, out *ui.Output) error {
	err := c.run(ctx, r, out)
	if _, own := err.(ui.Exit); own {
		return err
	}
	return ui.WithCode(execFailed, err)
}

func (c *execCmd) run(ctx context.Context, r *runtime.Runtime, out *ui.Output) error {
	id := c.Words[0]
	spec, err := r.Spec(id)
	if err != nil {
		return err
	}
	proc, err := c.process(spec)
	if err != nil {
		return err
	}
	s, err := r.State(id)
	switch {
	case err != nil:
		return err
	case s.Status == specs.StateStopped:
		return fmt.Errorf("exec in %s: container is not running", id)
	case s.Status == "paused" && !c.IgnorePaused:
		return fmt.Errorf("exec in %s: container is paused", id)
	case proc.Terminal && c.Detach && c.ConsoleSocket == "":
		return errors.New("a terminal wants --console-socket")
	}
	p, err := r.Exec(ctx, id, proc, runtime.ExecOptions{
		Stdin: out.In, Stdout: out.Out, Stderr: out.Err, Seccomp: spec.Linux.Seccomp,
		ExtraFiles: inherited(&specs.Spec{Process: proc}, c.PreserveFds), Cgroup: c.Cgroup,
	})
	if err != nil {
		return err
	}
	told := createFlags{ConsoleSocket: c.ConsoleSocket, PidfdSocket: c.PidfdSocket, PidFile: c.PidFile}
	if err := told.announce(p); err != nil {
		return err
	}
	if c.Detach {
		return nil
	}
	if c.ConsoleSocket != "" {
		return wait(p)
	}
	restore, err := relay(p, out)
	if err != nil {
		return err
	}
	defer restore()
	return wait(p)
}

// process is the file's, or the container's own changed by the flags.
func (c *execCmd) process(spec *specs.Spec) (*specs.Process, error) {
	if c.Process != "" {
		if err := foreign(c.Process); err != nil {
			return nil, err
		}
		proc := new(specs.Process)
		return proc, state.ReadJSON(c.Process, proc)
	}
	if spec.Process == nil || len(c.Words) < 2 {
		return nil, errors.New("exec: which program?")
	}
	proc := *spec.Process
	proc.Args, proc.Terminal = c.Words[1:], c.TTY
	if proc.Args[0] == "--" {
		proc.Args = proc.Args[1:]
	}
	proc.Env = append(append([]string{}, proc.Env...), c.Env...)
	if c.Cwd != "" {
		proc.Cwd = c.Cwd
	}
	proc.NoNewPrivileges = proc.NoNewPrivileges || c.NoNewPrivs
	proc.User.AdditionalGids = append(append([]uint32{}, proc.User.AdditionalGids...), c.AdditionalGids...)
	if c.Apparmor != "" {
		proc.ApparmorProfile = c.Apparmor
	}
	if c.ProcessLabel != "" {
		proc.SelinuxLabel = c.ProcessLabel
	}
	proc.Capabilities = withCapabilities(proc.Capabilities, c.Cap)
	return &proc, parseUser(c.User, &proc.User)
}

func parseUser(text string, u *specs.User) error {
	if text == "" {
		return nil
	}
	uid, gid, both := strings.Cut(text, ":")
	n, err := strconv.ParseUint(uid, 10, 32)
	if err != nil {
		return fmt.Errorf("--user %s: want UID[:GID]", text)
	}
	u.UID = uint32(n)
	if !both {
		return nil
	}
	if n, err = strconv.ParseUint(gid, 10, 32); err != nil {
		return fmt.Errorf("--user %s: want UID[:GID]", text)
	}
	u.GID = uint32(n)
	return nil
}

// withCapabilities adds caps to the sets in which they have an effect.
func withCapabilities(c *specs.LinuxCapabilities, caps []string) *specs.LinuxCapabilities {
	if len(caps) == 0 {
		return c
	}
	if c == nil {
		c = &specs.LinuxCapabilities{}
	}
	return &specs.LinuxCapabilities{
		Bounding: append(c.Bounding[:len(c.Bounding):len(c.Bounding)], caps...), Effective: append(c.Effective[:len(c.Effective):len(c.Effective)], caps...),
		Permitted: append(c.Permitted[:len(c.Permitted):len(c.Permitted)], caps...), Inheritable: c.Inheritable, Ambient: c.Ambient,
	}
}

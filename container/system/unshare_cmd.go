package system

import (
	"errors"
	"fmt"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/container"
	"github.com/kist-containers/kist/internal/ui"
)

// UnshareCmd is `kist unshare`. By the time it runs, a user is in the namespace.
type UnshareCmd struct {
	RootlessNetns bool     `name:"rootless-netns" hidden:""`
	Argv          []string `arg:"" optional:"" name:"command" passthrough:"" help:"Program and arguments; without any, $SHELL."`
}

func (*UnshareCmd) Help() string {
	return `  kist unshare                        a shell as root of your user namespace
  kist unshare cat /proc/self/uid_map which ids you have
  kist unshare chown 1000:1000 data   as a container's user sees them
  kist unshare sh -c 'ls $(kist mount web)'`
}

// HandlesSignals says that signals are for the program.
func (c *UnshareCmd) HandlesSignals() {}

// Run becomes the program.
func (c *UnshareCmd) Run(e *container.Engine, out *ui.Output) error {
	argv := c.Argv
	if len(argv) > 0 && argv[0] == "--" {
		argv = argv[1:]
	}
	switch {
	case c.RootlessNetns:
		return errors.New("unshare --rootless-netns: containers have network namespaces of their own, and there is none above them; kist run --network container:NAME joins one")
	case !e.Rootless:
		return errors.New("unshare: you are root, who needs no user namespace; it is for other users")
	case len(argv) == 0:
		argv = []string{shell()}
	}
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return ui.WithCode(127, fmt.Errorf("unshare %s: %w", argv[0], errors.Unwrap(err)))
	}
	env := append(os.Environ(), "CONTAINERS_GRAPHROOT="+e.Roots.Data, "CONTAINERS_RUNROOT="+e.Roots.Run, container.UnshareVariable+"=1")
	unix.Umask(0o022) // as a shell expects it, not as kist writes its own files
	return ui.WithCode(126, fmt.Errorf("unshare %s: %w", path, unix.Exec(path, argv, env)))
}

func shell() string {
	if s := os.Getenv("SHELL"); s != "" {
		return s
	}
	return "/bin/sh"
}

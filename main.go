// Command kist runs, builds and ships containers, with no daemon.
//
// This file is the grammar and its dispatch. The commands themselves live in
// the packages of their domains.
package main

import (
	"context"
	"errors"
	"os"
	"os/signal"

	"github.com/alecthomas/kong"
	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/build"
	"github.com/kist-containers/kist/container"
	"github.com/kist-containers/kist/container/runtime"
	"github.com/kist-containers/kist/container/runtime/runc"
	"github.com/kist-containers/kist/image"
	"github.com/kist-containers/kist/internal/cli"
	"github.com/kist-containers/kist/internal/reexec"
	"github.com/kist-containers/kist/internal/state"
	"github.com/kist-containers/kist/internal/ui"
	"github.com/kist-containers/kist/network"
	"github.com/kist-containers/kist/volume"
)

func main() {
	reexec.Dispatch(roles())
	// Whatever is written is the owner's alone unless its writer says otherwise.
	unix.Umask(0o077)
	os.Exit(run(os.Args[1:], ui.Std()))
}

// usageCode is docker's exit status for a command line that does not parse.
const usageCode = 125

// globals are the flags that precede the command.
type globals struct {
	Root    string `help:"Directory of images, containers, volumes and networks." placeholder:"DIR" env:"KIST_ROOT"`
	Runroot string `help:"Directory of what is gone after a reboot." placeholder:"DIR" env:"KIST_RUNROOT"`
	Debug   bool   `short:"D" help:"Show the inner paths and causes of errors."`
	Version bool   `short:"v" help:"Print the version and exit."`
}

// run is one invocation of the command line; it returns the exit status.
func run(args []string, out *ui.Output) (status int) {
	defer cli.Recover(&status)
	g := &globals{}
	line := cli.Line{
		Name: "kist", Help: "Run, build and ship containers, with no daemon.",
		Globals: g, Commands: commands(), Out: out,
	}
	kctx, err := line.Parse(args)
	switch {
	case errors.Is(err, cli.ErrShown):
		return 0
	case err != nil:
		out.Notef("%s", ui.ErrorText(err))
		return usageCode
	}
	ctx, stop := cancellable(kctx)
	defer stop()
	kctx.BindTo(ctx, (*context.Context)(nil))
	kctx.Bind(out)
	roots := g.roots()
	var builder *build.Builder
	images := image.Open(roots, image.Options{Uses: func() ([]image.Use, error) { return builder.Uses() }})
	builder = build.Open(roots, images, build.Options{})
	kctx.Bind(images)
	kctx.Bind(builder)
	err = kctx.Run()
	if _, silent := err.(ui.Exit); err != nil && !silent {
		out.Notef("%s", ui.ErrorText(err))
	}
	return ui.ExitCode(err, 1)
}

// cancellable returns a context that Ctrl-C ends, so that a command stops
// cleanly. Commands that hand signals on to a container handle them themselves.
func cancellable(kctx *kong.Context) (context.Context, context.CancelFunc) {
	if n := kctx.Selected(); n != nil && n.Target.CanAddr() {
		if _, ok := n.Target.Addr().Interface().(interface{ HandlesSignals() }); ok {
			return context.WithCancel(context.Background())
		}
	}
	return signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
}

// commands are all commands, in the order of kist --help.
func commands() []ui.Command {
	var all []ui.Command
	for _, of := range []func() []ui.Command{
		container.Commands, image.Commands, build.Commands, network.Commands, volume.Commands, runc.Commands, cli.Commands,
	} {
		all = append(all, of()...)
	}
	return all
}

// roles are the other processes that this binary plays.
func roles() []reexec.Role {
	return append(image.Roles(), runtime.Roles()...)
}

// roots are the two trees that this invocation works on.
func (g *globals) roots() state.Roots {
	r := state.DefaultRoots(os.Geteuid(), os.Getenv)
	if g.Root != "" {
		r.Data = g.Root
	}
	if g.Runroot != "" {
		r.Run = g.Runroot
	}
	return r
}

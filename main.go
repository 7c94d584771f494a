// Command kist runs, builds and ships containers, with no daemon.
//
// This file is the grammar and its dispatch. The commands themselves live in
// the packages of their domains.
package main

import (
	"cmp"
	"context"
	"errors"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"

	"github.com/alecthomas/kong"
	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/build"
	"github.com/kist-containers/kist/container"
	"github.com/kist-containers/kist/container/monitor"
	"github.com/kist-containers/kist/container/runtime"
	"github.com/kist-containers/kist/container/runtime/runc"
	"github.com/kist-containers/kist/container/system"
	"github.com/kist-containers/kist/container/units"
	"github.com/kist-containers/kist/image"
	"github.com/kist-containers/kist/internal/cli"
	"github.com/kist-containers/kist/internal/reexec"
	"github.com/kist-containers/kist/internal/rootless"
	"github.com/kist-containers/kist/internal/state"
	"github.com/kist-containers/kist/internal/sys"
	"github.com/kist-containers/kist/internal/ui"
	"github.com/kist-containers/kist/network"
	"github.com/kist-containers/kist/volume"
)

func main() {
	reexec.Dispatch(roles())
	// What the caller left open is not for a container's monitor to keep.
	unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	// A command lives for milliseconds: it is over before a collection pays.
	debug.SetGCPercent(400)
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
	// CgroupParent is the cgroup above all containers' cgroups. Behind run it is the
	// container's: see leading.
	CgroupParent string `kong:"-"`
	// Firewall and PublishAddress are of the published ports.
	Firewall       string       `enum:"iptables,none" default:"iptables" help:"Who makes the rules of networks: iptables, or none for the administrator." placeholder:"NAME" env:"KIST_FIREWALL"`
	PublishAddress string       `name:"publish-address" help:"Where ports without an address are published: all addresses." placeholder:"IP" env:"KIST_PUBLISH_ADDRESS"`
	AddressPools   string       `name:"address-pools" help:"What networks without --subnet are cut from: docker's pools." placeholder:"BASE:SIZE,…" env:"KIST_ADDRESS_POOLS"`
	Debug          bool         `short:"D" help:"Show what errors are made of."`
	Help           cli.HelpFlag `help:"Show help and exit."`
}

// run is one invocation of the command line; it returns the exit status.
func run(args []string, out *ui.Output) (status int) {
	defer cli.Recover(&status)
	g := &globals{CgroupParent: cmp.Or(os.Getenv("KIST_CGROUP_PARENT"), "/kist")}
	line := cli.Line{
		Name: "kist", Help: "Run, build and ship containers, with no daemon.",
		Globals: g, Leading: g.leading(), Commands: commands(), Out: out,
	}
	kctx, err := line.Parse(args)
	switch {
	case errors.Is(err, cli.ErrShown):
		return 0
	case err != nil:
		out.Notef("%s", ui.ErrorText(err))
		return cli.Status(err)
	}
	caller := rootless.Whoami()
	roots := g.roots(caller)
	if err := roots.Check(); err != nil {
		out.Notef("%s", ui.ErrorText(err))
		return usageCode
	}
	if caller.Rootless() && !caller.Inside && needsNamespace(kctx) {
		return enter(roots, caller, out)
	}
	ctx, stop := cancellable(kctx)
	defer stop()
	kctx.BindTo(ctx, (*context.Context)(nil))
	kctx.Bind(out)
	err = newApp(roots, caller.Rootless(), g.CgroupParent, g.network(), out).bind(kctx).Run()
	var silent ui.Exit
	if err != nil && !errors.As(err, &silent) {
		out.Notef("%s", ui.ErrorText(err))
		if g.Debug {
			out.Notef("%s", ui.Causes(err))
		}
	}
	return ui.ExitCode(err, 1)
}

// leading are the flags that precede the command and have another meaning, or none,
// behind it.
func (g *globals) leading() []cli.Leading {
	return []cli.Leading{
		{Name: "cgroup-parent", Help: "Cgroup above all containers' own: $KIST_CGROUP_PARENT, or /kist.", Set: func(path string) error {
			g.CgroupParent = path
			return nil
		}},
		{Name: "config", Help: "Directory of docker's config.json, with the credentials: $DOCKER_CONFIG.", Set: func(dir string) error { return os.Setenv("DOCKER_CONFIG", dir) }},
		// kist logs nothing of its own.
		{Name: "log-level", Short: "l", Set: func(level string) error {
			if !slices.Contains([]string{"trace", "debug", "info", "warn", "warning", "error", "fatal", "panic"}, level) {
				return errors.New("want debug, info, warn, error or fatal")
			}
			return nil
		}},
	}
}

// network are the settings of networks.
func (g *globals) network() network.Options {
	return network.Options{Firewall: g.Firewall, PublishAddress: g.PublishAddress, AddressPools: g.AddressPools}
}

// app is the domains, each knowing of the others only what it is handed here.
type app struct {
	engine   *container.Engine
	images   *image.Store
	networks *network.Manager
	volumes  *volume.Store
	builder  *build.Builder
}

func newApp(roots state.Roots, rootless bool, cgroupParent string, nets network.Options, out *ui.Output) *app {
	a := &app{}
	a.engine = container.New(container.Options{Roots: roots, CgroupParent: cgroupParent, Rootless: rootless, Warn: out.Warn})
	a.images = image.Open(roots, image.Options{Rootless: rootless, Uses: a.imageUses, Event: a.engine.ImageEvent})
	nets.Rootless, nets.Warn, nets.Event = rootless, out.Warn, a.engine.NetworkEvent
	a.networks = network.Open(roots, nets)
	a.volumes = volume.Open(roots, volume.Options{
		Rootless: rootless, Uses: a.engine.VolumeUses,
		Pack: image.WriteTree, Unpack: a.images.UnpackTree, Event: a.engine.VolumeEvent,
	})
	a.engine.Images, a.engine.Networks, a.engine.Volumes = a.images, a.networks, a.volumes
	a.builder = build.Open(roots, a.images, build.Options{Rootless: rootless, CgroupParent: cgroupParent, Networks: a.networks})
	return a
}

// imageUses are the holders of images: containers and the build cache.
func (a *app) imageUses() ([]image.Use, error) {
	containers, err := a.engine.ImageUses()
	if err != nil {
		return nil, err
	}
	cache, err := a.builder.Uses()
	return append(containers, cache...), err
}

func (a *app) bind(kctx *kong.Context) *kong.Context {
	kctx.Bind(a.engine)
	kctx.Bind(a.images)
	kctx.Bind(a.networks)
	kctx.BindTo(a.engine, (*network.Containers)(nil))
	kctx.Bind(a.volumes)
	kctx.Bind(a.builder)
	return kctx
}

// needsNamespace reports whether a command works on the roots at all.
func needsNamespace(kctx *kong.Context) bool {
	if n := kctx.Selected(); n != nil && n.Target.CanAddr() {
		_, own := n.Target.Addr().Interface().(*cli.VersionCmd)
		return !own
	}
	return true
}

// enter runs this command line again as root of the user's namespace.
func enter(roots state.Roots, caller rootless.Caller, out *ui.Output) int {
	status, err := rootless.Run(context.Background(), roots, caller.UID, func() []sys.Process {
		return container.New(container.Options{Roots: roots}).Monitors()
	})
	if err != nil {
		out.Notef("%s", ui.ErrorText(err))
		return usageCode
	}
	return status
}

// monitorMain plays a container's monitor, with what it calls of the domains.
func monitorMain() int {
	return monitor.Main(func(s *monitor.Spec) monitor.Hooks {
		a := newApp(s.Roots, s.Rootless, "", network.Options{}, &ui.Output{})
		return monitor.Hooks{
			Cleanup: a.engine.AfterExit,
			Event:   a.engine.MonitorEvent,
			Policy:  a.engine.RestartPolicy,
			Listen:  func(s *monitor.Spec) ([]*os.File, error) { return a.networks.Listen(s.ID) },
			Serve: func(ctx context.Context, s *monitor.Spec, sockets []*os.File) error {
				return a.networks.Serve(ctx, s.ID, sockets)
			},
		}
	})
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
		container.Commands, image.Commands, build.Commands, network.Commands, volume.Commands, system.Commands, units.Commands, runc.Commands, cli.Commands,
	} {
		all = append(all, of()...)
	}
	return all
}

// roles are the other processes that this binary plays.
func roles() []reexec.Role {
	list := []reexec.Role{
		{Name: monitor.Role, Main: monitorMain},
		{Name: rootless.Role, Main: rootless.Main},
		{Name: container.InitRole, Main: container.InitMain},
		{Name: container.HoldRole, Main: container.HoldMain},
	}
	// Elsewhere the file may have that name too: there it is the command line.
	if slices.Equal(os.Args[1:], []string{"hello"}) {
		list = append(list, reexec.Role{Name: container.HelloRole, Main: container.HelloMain})
	}
	// systemd knows its generators by their paths.
	if base := filepath.Base(os.Args[0]); base == units.SystemGenerator || base == units.UserGenerator {
		list = append(list, reexec.Role{Name: os.Args[0], Main: units.GeneratorMain})
	}
	return slices.Concat(list, image.Roles(), runtime.Roles(), build.Roles())
}

// roots are the two trees that this invocation works on.
func (g *globals) roots(c rootless.Caller) state.Roots {
	r := state.DefaultRoots(c.UID, os.Getenv)
	if g.Root != "" {
		r.Data = g.Root
	}
	if g.Runroot != "" {
		r.Run = g.Runroot
	}
	return r
}

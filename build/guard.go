package build

import (
	"context"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/kist-containers/kist/internal/reexec"
	"github.com/kist-containers/kist/internal/state"
	"github.com/kist-containers/kist/network"
)

// guardRole is the process that outlives a build that was killed, and ends what
// that left: its containers and their networks. Without it a RUN step would go
// on for nobody.
//
//	build                              kist-build-guard
//	charge{directories}         ──▶    waits
//	farewell, or killed:        ──▶    ends; or kills and removes, and ends
//	end of file
const guardRole = "kist-build-guard"

// A charge is what a guard looks after.
type charge struct {
	Roots        state.Roots
	RunDir       string
	Rootless     bool
	Systemd      bool
	CgroupParent string
	WithNetworks bool
}

// A guardian is the parent's side.
type guardian struct {
	once sync.Once
	conn *reexec.Conn
	cmd  *exec.Cmd
}

type farewell struct{ Done bool }

// Roles are the processes that this package plays.
func Roles() []reexec.Role { return []reexec.Role{{Name: guardRole, Main: guardMain}} }

// guard starts the guard of this job's containers, once.
func (j *job) guard() {
	j.guarded.once.Do(func() {
		ours, theirs, err := reexec.Pair()
		if err != nil {
			return // the next build cleans up then
		}
		cmd := reexec.Command(context.Background(), guardRole)
		cmd.ExtraFiles = []*os.File{theirs.File()}
		// Ctrl-C is the build's, which ends its containers itself.
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		err = cmd.Start()
		theirs.Close()
		o := j.b.o
		if err == nil {
			err = ours.Send(charge{j.b.roots, j.runDir, o.Rootless, o.Systemd, o.CgroupParent, o.Networks != nil})
		}
		if err != nil {
			ours.Close()
			return
		}
		j.guarded.conn, j.guarded.cmd = ours, cmd
	})
}

// dismiss lets the guard go: the build has ended by itself.
func (g *guardian) dismiss() {
	if g.conn == nil {
		return
	}
	g.conn.Send(farewell{true})
	g.conn.Close()
	g.cmd.Wait()
}

// guardMain waits for the end of the build.
func guardMain() int {
	conn := reexec.NewConn(os.NewFile(3, "build"))
	var c charge
	if _, err := conn.Receive(&c); err != nil {
		return 0
	}
	var bye farewell
	if _, err := conn.Receive(&bye); err == nil && bye.Done {
		return 0
	}
	o := Options{Rootless: c.Rootless, Systemd: c.Systemd, CgroupParent: c.CgroupParent}
	if c.WithNetworks {
		o.Networks = network.Open(c.Roots, network.Options{Rootless: c.Rootless, Warn: func(string, ...any) {}})
	}
	b := Open(c.Roots, nil, o)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	b.bury(ctx, c.RunDir)
	b.sweepTemp()
	return 0
}

// sweepTemp removes what killed builds left, unless a build runs.
func (b *Builder) sweepTemp() {
	entries, err := os.ReadDir(b.dir("tmp"))
	if err != nil || len(entries) == 0 {
		return
	}
	lock, err := state.TryLock(b.dir("use.lock"))
	if err != nil {
		return
	}
	defer lock.Unlock()
	b.purgeTemp() // what is left is removed by the next build
}

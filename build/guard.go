package build

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/kist-containers/kist/container/runtime"
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
	if err := errors.Join(b.endContainers(ctx, c.RunDir), b.endScratch(ctx)); err != nil {
		return 1 // the next build tries again
	}
	return 0
}

// endContainers waits for the death of the build of dir, which closes its
// connection a moment before it lets go of its locks, and clears up after it.
func (b *Builder) endContainers(ctx context.Context, dir string) error {
	lock, err := state.AcquireLock(ctx, dir+".lock")
	if err != nil {
		return err
	}
	defer lock.Unlock()
	return b.clear(ctx, dir)
}

// endScratch removes scratch space as soon as no build runs.
func (b *Builder) endScratch(ctx context.Context) error {
	lock, err := state.AcquireLock(ctx, b.dir("use.lock"))
	if err != nil {
		return err
	}
	defer lock.Unlock()
	return b.purgeTemp()
}

// bury ends what killed builds left in top, except what a living one has.
func (b *Builder) bury(ctx context.Context, top string) error {
	return b.killed(top, func(dir string) error {
		b.clear(ctx, dir) // what is left then is the next build's to remove
		return nil
	})
}

// killed calls do for each directory in top whose build is gone, with its lock.
func (b *Builder) killed(top string, do func(dir string) error) error {
	entries, err := os.ReadDir(top)
	if err != nil {
		return err
	}
	for _, e := range entries {
		dir := filepath.Join(top, strings.TrimSuffix(e.Name(), ".lock"))
		lock, err := state.TryLock(dir + ".lock")
		if err != nil {
			continue
		}
		err = do(dir)
		lock.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// Check returns a line for each killed build that left containers or networks.
// repair ends and removes them, and scratch space that no build uses.
func (b *Builder) Check(ctx context.Context, repair bool) (found []string, err error) {
	err = b.killed(filepath.Join(b.roots.Run, "build"), func(dir string) error {
		if _, err := os.Stat(dir); err == nil {
			found = append(found, "build "+filepath.Base(dir)+" was killed: what its steps made is still there")
		}
		if !repair {
			return nil
		}
		return b.clear(ctx, dir)
	})
	if repair {
		b.sweepTemp()
	}
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return found, err
}

// clear ends the containers that a killed build recorded in dir, and their
// networks, and removes the records. The caller holds the lock of dir.
func (b *Builder) clear(ctx context.Context, dir string) error {
	rt := &runtime.Runtime{Root: dir, Systemd: b.o.Systemd, Rootless: b.o.Rootless}
	ids, err := rt.List()
	for _, id := range ids {
		// A network's record stays until the network is gone.
		if !strings.HasPrefix(id, netPrefix) {
			err = errors.Join(err, rt.Delete(ctx, id, true))
		}
	}
	nets, _ := filepath.Glob(filepath.Join(dir, netPrefix+"*"))
	for _, n := range nets {
		err = errors.Join(err, b.o.Networks.Teardown(ctx, strings.TrimPrefix(filepath.Base(n), netPrefix)))
	}
	if err != nil {
		return err
	}
	return errors.Join(os.RemoveAll(dir), os.Remove(dir+".lock"))
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

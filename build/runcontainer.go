package build

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/cgroups"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/container/runtime"
	"github.com/kist-containers/kist/internal/sys"
	"github.com/kist-containers/kist/internal/ui"
)

// run runs the command in a container of its own.
func (r *stageRun) run(ctx context.Context, s *runStep, w *workspace) (err error) {
	// docker: a number without an entry in passwd has group 0.
	if s.user, err = lookup(w.view.Root, s.account, func(int) int { return 0 }); err != nil {
		return err
	}
	if err := s.user.join(w.view.Root, r.job.req.Groups); err != nil {
		return fmt.Errorf("--group-add: %w", err)
	}
	if err := r.makeCwd(s, w); err != nil {
		return err
	}
	c := &runContainer{stageRun: r, s: s, w: w, id: "b" + strings.ToLower(rand.Text()[:16])}
	if err := c.prepare(ctx); err != nil {
		return errors.Join(err, c.undo(ctx))
	}
	r.job.guard()
	openCgroups()
	err = inOwnMounts(func() error { return c.inside(ctx) })
	return errors.Join(err, c.undo(ctx))
}

// openCgroups makes package cgroups open its handle of /sys/fs/cgroup here: it
// does so once, and one that was opened on a thread with mounts of its own would
// be empty when that thread has died.
func openCgroups() {
	if f, err := cgroups.OpenFile("/sys/fs/cgroup", "cgroup.procs", os.O_RDONLY); err == nil {
		f.Close()
	}
}

// makeCwd makes the working directory when the base image names one that it
// does not have.
func (r *stageRun) makeCwd(s *runStep, w *workspace) error {
	t := &tree{root: w.view.Root, epoch: r.job.req.Epoch}
	defer t.forget()
	if t.isDir(s.cwd) {
		return nil
	}
	return errors.Join(t.mkdirAll(s.cwd, 0, 0), t.close())
}

// A runContainer is the container of one RUN step.
type runContainer struct {
	*stageRun
	s      *runStep
	w      *workspace
	id     string
	spec   *specs.Spec
	undone []func() error
}

// undo takes back what prepare made, last first.
func (c *runContainer) undo(ctx context.Context) (err error) {
	for _, f := range slices.Backward(c.undone) {
		err = errors.Join(err, f())
	}
	c.undone = nil
	return err
}

func (c *runContainer) prepare(ctx context.Context) (err error) {
	for _, d := range []string{"bundle", "bundle/rootfs", "mounts", "etc", "secrets"} {
		if err := os.Mkdir(filepath.Join(c.w.dir, d), 0o700); err != nil {
			return err
		}
	}
	for _, m := range c.s.mounts {
		if err := m.prepare(ctx, c); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	if c.spec, err = c.stageRun.spec(c.s, c.id); err != nil {
		return err
	}
	return c.connect(ctx)
}

// inside runs on a thread with its own mounts: the root file system is mounted
// where nobody else sees it, and is gone with this thread and the container.
func (c *runContainer) inside(ctx context.Context) (err error) {
	rootfs := filepath.Join(c.w.dir, "bundle", "rootfs")
	at, err := os.OpenFile(rootfs, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer at.Close()
	if err := sys.Attach(c.w.view.Root, at); err != nil {
		return err
	}
	// Nothing may keep the layer mounted when it is read afterwards.
	defer func() { err = errors.Join(err, os.NewSyscallError("umount2", unix.Unmount(rootfs, unix.MNT_DETACH))) }()
	for i, m := range c.s.mounts {
		mounts, err := m.mount(c, filepath.Join(c.w.dir, "mounts", fmt.Sprint(i)))
		if err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
		c.spec.Mounts = append(c.spec.Mounts, mounts...)
	}
	return c.execute(ctx)
}

// execute creates the container, starts it and waits for its end.
func (c *runContainer) execute(ctx context.Context) (err error) {
	out, in, err := os.Pipe()
	if err != nil {
		return err
	}
	defer out.Close()
	rt := c.job.runtime()
	p, err := rt.Create(ctx, c.id, runtime.CreateOptions{Bundle: filepath.Join(c.w.dir, "bundle"), Spec: c.spec, Stdout: in, Stderr: in})
	in.Close()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rt.Delete(context.WithoutCancel(ctx), c.id, true)) }()
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		io.Copy(c.w.line, out)
	}()
	if err := p.Start(); err != nil {
		return c.explain(err)
	}
	stop := context.AfterFunc(ctx, func() { unix.Kill(p.Pid(), unix.SIGKILL) })
	status, err := p.Wait()
	stop()
	<-copied
	switch {
	case err != nil:
		return err
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case status.Signaled():
		return &ExitError{Code: 128 + int(status.Signal()), Signal: unix.SignalName(status.Signal())}
	case status.ExitStatus() != 0:
		return &ExitError{Code: status.ExitStatus()}
	}
	return nil
}

// explain words why the command did not start.
func (c *runContainer) explain(err error) error {
	var start *runtime.StartError
	if errors.As(err, &start) && start.NotFound() {
		what := c.s.argv[0]
		if !strings.Contains(what, "/") {
			return fmt.Errorf("%s: not in the image's PATH", what)
		}
		return fmt.Errorf("%s: not in the image (or its interpreter is not)", what)
	}
	if errors.As(err, &start) && errors.Is(err, unix.ENOEXEC) {
		return ui.Hint(fmt.Errorf("%s: not a program for this machine", c.s.argv[0]), "to build for %s, install qemu-user-static (binfmt_misc)", platformName(c.stage.platform))
	}
	return err
}

// ExitError is the end of a RUN command that did not succeed.
type ExitError struct {
	Code   int
	Signal string
}

func (e *ExitError) Error() string {
	if e.Signal != "" {
		return "the command was killed by " + e.Signal
	}
	return fmt.Sprintf("the command ended with exit status %d", e.Code)
}

// runtime keeps its records in the job's own directory, so that the next build
// can tell those of a killed one.
func (j *job) runtime() *runtime.Runtime {
	return &runtime.Runtime{Root: j.runDir, Systemd: j.b.o.Systemd, Rootless: j.b.o.Rootless}
}

// skeleton makes mount points in dir, which becomes the lowest layer of the
// step's view: the command finds them, and its own layer has no trace of them.
func skeleton(dir string, dirs, files []string) error {
	for _, d := range dirs {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	for _, f := range files {
		p := filepath.Join(dir, f)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(p, nil, 0o644); err != nil {
			return err
		}
	}
	return filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = os.Chmod(p, 0o755) // not what the umask left
		}
		return err
	})
}

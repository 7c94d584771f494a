package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/container/monitor"
	"github.com/kist-containers/kist/container/runtime"
	"github.com/kist-containers/kist/image"
	"github.com/kist-containers/kist/internal/state"
	"github.com/kist-containers/kist/internal/sys"
	"github.com/kist-containers/kist/internal/ui"
	"github.com/kist-containers/kist/network"
	"github.com/kist-containers/kist/volume"
)

// Start starts a container whose lock the caller holds. starter is a monitor
// that was spawned ahead, or nil. client, when it is not nil, sees the output
// from the first byte on.
func (e *Engine) Start(ctx context.Context, c *Config, starter *monitor.Starter, client *os.File, inherited ...*os.File) error {
	how := launch{starter: starter, client: client, inherited: inherited}
	switch st := e.Status(c.ID); {
	case st.Busy():
		how.abort()
		return fmt.Errorf("%w already", ErrRunning)
	case st.Word == StatusInitialized:
		how.abort()
		return e.startHeld(ctx, c, client)
	}
	return e.launch(ctx, c, how)
}

// A launch is how a run begins: see Start.
type launch struct {
	starter   *monitor.Starter
	client    *os.File
	inherited []*os.File
	// held leaves the program waiting; see InitCmd.
	held bool
}

// abort ends a monitor that was not told anything.
func (l *launch) abort() {
	if l.starter != nil {
		l.starter.Abort()
	}
}

// launch prepares a container that does not run and starts it.
func (e *Engine) launch(ctx context.Context, c *Config, how launch) (err error) {
	defer func() {
		if err != nil {
			how.abort()
		}
	}()
	if err := e.startRequired(ctx, c); err != nil {
		return err
	}
	// What an earlier run left because its monitor was killed goes first.
	if err := e.cleanRun(ctx, c); err != nil {
		return err
	}
	if err := os.MkdirAll(e.runDir(), 0o711); err != nil {
		return err
	}
	if err := os.Mkdir(e.runDir(c.ID), 0o711); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.cleanRun(context.WithoutCancel(ctx), c))
			e.noteFailure(c, err)
		}
	}()
	if how.starter == nil {
		if how.starter, err = monitor.Spawn(); err != nil {
			return err
		}
	}
	spec, root, err := e.prepare(ctx, c)
	if err != nil {
		return err
	}
	defer root.Close()
	return e.tell(c, &how, spec, root)
}

// tell hands everything over to the monitor.
func (e *Engine) tell(c *Config, how *launch, spec monitor.Spec, root *os.File) error {
	spec.Held = how.held
	if !how.held {
		if err := e.noteStart(c); err != nil {
			return err
		}
	}
	starter := how.starter
	how.starter = nil // Start ends it, also after an error
	if _, err := starter.Start(spec, root, how.client, how.inherited...); err != nil {
		os.Remove(e.dataDir(c.ID, beganFile))
		return e.explain(c, err)
	}
	if !how.held {
		e.event(c, "start", nil)
	}
	return nil
}

// startFailed is docker's exit code of a start that failed for no fault of the
// program's.
const startFailed = 128

// noteFailure keeps why a start failed, for inspect. docker: the container stays
// what it was, created or exited, with the code that run ends with.
func (e *Engine) noteFailure(c *Config, failure error) {
	if c.AutoRemove {
		return
	}
	exit := e.facts(c.ID).Exit
	if exit == nil {
		exit = &monitor.Exit{Version: 1, NeverRan: true}
	}
	exit.Error, exit.ExitCode, exit.OOMKilled = failure.Error(), ui.ExitCode(failure, startFailed), false
	if exit.ExitCode == failedCode {
		exit.ExitCode = startFailed
	}
	// The failure itself is what the caller is told of.
	_ = state.WriteJSON(e.dataDir(c.ID, exitFile), exit)
}

// noteStart leaves word of the run in the tree that survives a reboot. A
// container that goes with its exit needs none.
func (e *Engine) noteStart(c *Config) error {
	if c.AutoRemove {
		return nil
	}
	return state.WriteJSON(e.dataDir(c.ID, beganFile), monitor.State{Version: 1, StartedAt: time.Now().UTC()})
}

// prepare makes the root file system, the sandbox and the bundle.
func (e *Engine) prepare(ctx context.Context, c *Config) (monitor.Spec, *os.File, error) {
	fs := e.rootFS(c)
	fs.Volatile = c.AutoRemove
	var err error
	if fs.Map, err = e.userNamespace(c); err != nil {
		return monitor.Spec{}, nil, err
	}
	defer fs.Map.Close()
	root, err := e.openRoot(c, fs)
	if err != nil {
		if e.Rootless && c.Rootfs != "" && errors.Is(err, unix.EINVAL) {
			return monitor.Spec{}, nil, ui.Hint(fmt.Errorf("overlay over %s: %w", c.Rootfs, err), "without root no file system may be mounted below it: use a copy, or sudo")
		}
		return monitor.Spec{}, nil, rootHint(err)
	}
	m := &specMaker{e: e, c: c, root: root}
	if err := e.bundle(ctx, m); err != nil {
		root.Close()
		return monitor.Spec{}, nil, err
	}
	spec := e.monitorSpec(c)
	spec.Images, spec.Secrets = m.images, m.secrets
	return spec, root, nil
}

// rootHint says what to do where overlay cannot be mounted: in a container, or with
// translated owners.
func rootHint(err error) error {
	switch {
	case errors.Is(err, monitor.ErrNoIDMap):
		return ui.Hint(err, "kist --root DIR, on ext4, xfs or btrfs; or --userns host")
	case errors.Is(err, unix.EINVAL) && !strings.Contains(err.Error(), "read-only"): // the kernel's words
		return ui.Hint(err, "overlay does not stack on overlay: kist --root DIR, on a disk or a tmpfs")
	case errors.Is(err, unix.EPERM):
		return ui.Hint(err, "root has no CAP_SYS_ADMIN here: run the container around it with --privileged")
	}
	return err
}

func (e *Engine) rootFS(c *Config) monitor.RootFS {
	if len(c.Lowers) == 0 {
		return monitor.RootFS{Dir: c.Rootfs}
	}
	return monitor.RootFS{Lowers: c.Lowers, Upper: e.dataDir(c.ID, upperDir), Work: e.dataDir(c.ID, workDir), UserXattr: e.Rootless}
}

// bundle writes config.json. It is made anew at each start, so it needs no sync:
// after a power cut it is not read before it was written again.
func (e *Engine) bundle(ctx context.Context, m *specMaker) error {
	c, root := m.c, m.root
	if err := e.network(ctx, m); err != nil {
		return err
	}
	if err := errors.Join(m.accountFiles(), m.zoneFile(), m.notifyDir(), m.ownFiles(), m.openSandbox()); err != nil {
		return err
	}
	plain, err := e.plainRoot(c, root)
	if err != nil {
		return err
	}
	if plain != root {
		defer plain.Close()
	}
	if err := m.ociMounts(ctx, plain); err != nil {
		return err
	}
	if err := m.secretFiles(); err != nil {
		return err
	}
	spec, err := m.make()
	if err != nil {
		return err
	}
	return runtime.WriteSpec(e.dataDir(c.ID, bundleDir, configFile), spec)
}

// stopNumber is the stop signal's number, "" for the usual one.
func (c *Config) stopNumber() string {
	if sig, err := parseSignal(c.StopSignal); err == nil {
		return strconv.Itoa(int(sig))
	}
	return ""
}

// RestartPolicy is a container's as it is stored now: `kist update` may have
// changed it since the start.
func (e *Engine) RestartPolicy(s *monitor.Spec) monitor.RestartPolicy {
	c, err := e.read(s.ID)
	if err != nil {
		return s.Restart
	}
	return c.Restart
}

func (e *Engine) monitorSpec(c *Config) monitor.Spec {
	return monitor.Spec{
		ID: c.ID, Name: c.Name, Roots: e.Roots,
		Bundle: e.dataDir(c.ID, bundleDir), RunDir: e.runDir(c.ID), DataDir: e.dataDir(c.ID),
		Rootless: e.Rootless, Runtime: c.Runtime,
		Terminal: c.Tty, OpenStdin: c.OpenStdin, StdinOnce: c.StdinOnce,
		Log: c.logConfig(e), StopSignal: c.stopNumber(), StopTimeout: c.StopTimeout(),
		Restart: c.Restart, Health: c.Health, AutoRemove: c.AutoRemove, PidFile: c.PidFile,
		MonitorPidFile: c.MonitorPidFile, Timeout: time.Duration(c.TimeoutSec) * time.Second, Notify: c.notify(), NoCgroup: c.Limits.NoCgroup,
		Sandbox: c.served(),
	}
}

// explain words why a program did not start, with docker's exit code.
func (e *Engine) explain(c *Config, err error) error {
	var start *runtime.StartError
	if !errors.As(err, &start) {
		return err
	}
	code := 125
	switch {
	case start.NotFound():
		name := start.Object
		if name == "" {
			name = `""`
		}
		code, err = 127, fmt.Errorf("%s: not found in the image%s", name, c.pathHint(start))
	case start.NotExecutable():
		code = 126
		reason := "not executable"
		if start.Errno != int(unix.EACCES) {
			reason = start.Unwrap().Error()
		}
		if isDir(e, c, start.Object) {
			reason = "is a directory"
		}
		err = fmt.Errorf("%s: %s", start.Object, reason)
	case e.Rootless && start.Errno == int(unix.EINVAL) && strings.HasPrefix(start.Step, "become "):
		err = ui.Hint(fmt.Errorf("%s: your user namespace has no such id", start.Step),
			"give yourself a range in /etc/subuid and /etc/subgid (usermod --add-subuids, --add-subgids)")
	}
	return ui.WithCode(code, err)
}

func isDir(e *Engine, c *Config, path string) bool {
	for _, l := range append([]string{e.dataDir(c.ID, upperDir)}, c.Lowers...) {
		root, err := os.Open(l)
		if err != nil {
			continue
		}
		f, err := sys.OpenInRoot(root, path, unix.O_PATH, 0)
		root.Close()
		if err == nil {
			info, err := f.Stat()
			f.Close()
			return err == nil && info.IsDir()
		}
	}
	return false
}

// pathHint names the PATH that was searched, or that an interpreter is missing.
func (c *Config) pathHint(start *runtime.StartError) string {
	if start.Text != "" {
		return ": " + start.Text
	}
	if filepath.Base(start.Object) != start.Object {
		return ""
	}
	for _, env := range mergeEnv([]string{defaultPath}, c.Env) {
		if len(env) > 5 && env[:5] == "PATH=" {
			return "'s PATH (" + env[5:] + ")"
		}
	}
	return ""
}

// cleanRun undoes everything that a run made outside the container's own
// directory. It succeeds when there is nothing to undo.
func (e *Engine) cleanRun(ctx context.Context, c *Config) error {
	if err := e.undoRun(ctx, c); err != nil {
		return err // the run directory tells the next command that there is more to undo
	}
	return os.RemoveAll(e.runDir(c.ID))
}

// endRun is cleanRun of a run whose end is known.
func (e *Engine) endRun(ctx context.Context, c *Config) error {
	if err := e.undoRun(ctx, c); err != nil {
		return err
	}
	return e.forgetRun(c.ID)
}

func (e *Engine) undoRun(ctx context.Context, c *Config) error {
	e.endHeld(c)
	return errors.Join(e.runtime().Delete(ctx, c.ID, true), e.leave(ctx, c))
}

// forgetRun removes the directory of a run that was undone and whose end is known;
// that is not lost when there was no space for it.
func (e *Engine) forgetRun(id string) error {
	var kept monitor.Exit
	if state.ReadJSON(e.runDir(id, exitFile), &kept) == nil {
		if err := state.WriteJSON(e.dataDir(id, exitFile), kept); err != nil {
			return err
		}
	}
	return os.RemoveAll(e.runDir(id))
}

// leave undoes a run's part in networks and volumes.
func (e *Engine) leave(ctx context.Context, c *Config) error {
	err := e.Networks.Teardown(ctx, c.ID)
	if network.Predefined(c.Network.Mode) {
		// Its files are all that was made, and tell that it was there.
		if _, gone := os.Lstat(e.runDir(c.ID, "resolv.conf")); gone == nil {
			e.Networks.LeftPredefined(c.Network.Mode, c.ID)
		}
	}
	for _, m := range c.Mounts {
		if m.Type == volume.TypeVolume {
			err = errors.Join(err, e.Volumes.Detach(ctx, m.Source, c.ID))
		}
	}
	return err
}

// AfterExit is the monitor's last act: it undoes the run, and removes the
// container if it is to go.
func (e *Engine) AfterExit(ctx context.Context, s *monitor.Spec) (purge func(), err error) {
	lock, err := e.lock(ctx, s.ID)
	if err != nil {
		return nil, err
	}
	defer lock.Unlock()
	// A new start may have come between the exit and here; then the run directory
	// is another monitor's.
	var st monitor.State
	if state.ReadJSON(e.runDir(s.ID, stateFile), &st) == nil && st.Monitor != os.Getpid() {
		return nil, nil
	}
	// The kernel takes its time for cgroups.
	var deleted errgroup.Group
	deleted.Go(func() error { return e.runtime().Delete(ctx, s.ID, true) })
	c, err := e.read(s.ID)
	if errors.Is(err, ErrNotFound) {
		c, err = &Config{ID: s.ID, Name: s.Name}, nil
	}
	if err == nil {
		err = e.leave(ctx, c)
	}
	if err := errors.Join(deleted.Wait(), err); err != nil {
		return nil, err // the run directory stays: see cleanRun
	}
	if err := e.forgetRun(s.ID); err != nil {
		return nil, err
	}
	for _, m := range c.Mounts {
		if m.Type == volume.TypeVolume {
			e.VolumeEvent(m.Source, "unmount", map[string]string{"container": c.ID})
		}
	}
	if !s.AutoRemove {
		return nil, nil
	}
	trash, err := e.hideFiles(c)
	e.event(c, "destroy", nil)
	return func() { sys.RemoveTree(trash) }, errors.Join(err, e.dropShifted(ctx, c), e.removeImage(ctx, c), e.removeAnonymous(ctx, c))
}

// removeImage removes the image of a removed container if it is to go too. One
// that another container has stays.
func (e *Engine) removeImage(ctx context.Context, c *Config) error {
	if !c.RemoveImage {
		return nil
	}
	_, err := e.Images.Remove(ctx, c.Image, image.RemoveOptions{})
	if errors.Is(err, image.ErrInUse) {
		return nil
	}
	return err
}

// remove deletes a container that does not run; the caller holds its lock.
func (e *Engine) remove(ctx context.Context, c *Config, volumes bool) error {
	if err := e.cleanRun(ctx, c); err != nil {
		return err
	}
	if err := e.removeFiles(c); err != nil {
		return err
	}
	e.event(c, "destroy", nil)
	if err := e.dropShifted(ctx, c); err != nil {
		return err
	}
	if !volumes {
		return nil
	}
	return e.removeAnonymous(ctx, c)
}

// removeAnonymous removes the volumes that were made for this container alone.
func (e *Engine) removeAnonymous(ctx context.Context, c *Config) error {
	var errs []error
	for _, m := range c.Mounts {
		if !m.Anonymous {
			continue
		}
		err := e.Volumes.Remove(ctx, m.Source)
		// Another container may have it by --volumes-from: then it stays.
		if err != nil && !errors.Is(err, volume.ErrNotFound) && !errors.Is(err, volume.ErrInUse) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

package runtime

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/sys"
)

// Another OCI runtime (crun, runc, runsc, kata) may make a container and control
// it, by runc's command line. Its state is below the container's own directory.
// What it makes is recorded as what this package makes, so that counters, the
// list of processes and the clean-up are the same for both.

// foreignDir is the other runtime's --root.
const foreignDir = "oci"

// foreignCommand runs the container's other runtime; what it complains of is in
// the error. Streams and descriptors are those of change.
func (r *Runtime) foreignCommand(ctx context.Context, rec *record, change func(*exec.Cmd), args ...string) error {
	log, err := os.CreateTemp(r.dir(rec.ID), "log-")
	if err != nil {
		return err
	}
	log.Close()
	defer os.Remove(log.Name())
	global := []string{"--root", r.dir(rec.ID, foreignDir), "--log", log.Name(), "--log-format", "json"}
	cmd := exec.CommandContext(ctx, rec.Program, append(global, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // see helperEnded
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	var said bytes.Buffer
	cmd.Stderr = &said
	if change != nil {
		change(cmd)
	}
	if err = cmd.Run(); err == nil {
		return nil
	}
	reason := foreignReason(log.Name())
	if reason == "" {
		reason = strings.TrimSpace(said.String())
	}
	if reason == "" {
		return fmt.Errorf("%s %s: %w", rec.Program, args[0], err)
	}
	return fmt.Errorf("%s %s: %s", filepath.Base(rec.Program), args[0], reason)
}

// foreignReason is the last error of a runtime's log.
func foreignReason(log string) (reason string) {
	data, _ := os.ReadFile(log)
	for line := range bytes.Lines(data) {
		var entry struct{ Level, Msg string }
		if json.Unmarshal(line, &entry) == nil && entry.Level == "error" {
			reason = entry.Msg
		}
	}
	return reason
}

// programError tells what is wrong with the program itself, as the runtimes word
// it, from other failures.
func programError(err error, proc *specs.Process) error {
	if err == nil || proc == nil || len(proc.Args) == 0 {
		return err
	}
	text := strings.ToLower(err.Error())
	program := proc.Args[0]
	if !strings.Contains(text, strings.ToLower(program)) && !strings.Contains(text, "open executable") {
		return err
	}
	for _, x := range []struct {
		words string
		errno unix.Errno
	}{
		{"executable file not found", unix.ENOENT}, {"is a directory", unix.EACCES}, {"permission denied", unix.EACCES},
		{"operation not permitted", unix.EACCES},
		{"no such file or directory", unix.ENOENT}, {"exec format error", unix.ENOEXEC},
	} {
		if strings.Contains(text, x.words) {
			return &StartError{Step: stepExec, Object: program, Errno: int(x.errno)}
		}
	}
	return err
}

// foreignCreate is Create by another runtime, whose bundle is on disk.
func (r *Runtime) foreignCreate(ctx context.Context, rec *record, spec *specs.Spec, o CreateOptions) (*Process, error) {
	if err := r.planCgroup(rec, spec, new(group)); err != nil {
		return nil, err
	}
	// Recorded first: a create that is killed leaves what Delete finds.
	if err := r.write(rec); err != nil {
		return nil, err
	}
	p, err := r.foreignStart(ctx, rec, spec.Process,
		ExecOptions{Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr, ExtraFiles: o.ExtraFiles}, "create", "--bundle", rec.Bundle)
	if err != nil {
		return nil, err
	}
	p.start = func() error {
		return programError(r.foreignCommand(context.Background(), rec, nil, "start", rec.ID), spec.Process)
	}
	if err := rec.started(p.pid); err != nil {
		return nil, fmt.Errorf("%s create: its process: %w", filepath.Base(rec.Program), err)
	}
	return p, r.write(rec)
}

// foreignStart has the runtime make a process, create's or exec's, and returns
// it, a child of this one.
func (r *Runtime) foreignStart(ctx context.Context, rec *record, proc *specs.Process, o ExecOptions, args ...string) (*Process, error) {
	dir, err := os.MkdirTemp(r.dir(rec.ID), "start-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	args = append(args, "--pid-file", filepath.Join(dir, "pid"))
	if n := len(o.ExtraFiles); n > 0 {
		args = append(args, "--preserve-fds", strconv.Itoa(n))
	}
	var console *consoleSocket
	if proc.Terminal {
		if console, err = listenConsole(dir); err != nil {
			return nil, err
		}
		defer console.close()
		args = append(args, "--console-socket", console.name)
	}
	files, null, err := o.files(proc.Terminal)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	defer adoptChildren()()
	defer rec.reap()
	err = r.foreignCommand(ctx, rec, func(cmd *exec.Cmd) {
		cmd.Stdin, cmd.Stdout, cmd.ExtraFiles = files[0], files[1], o.ExtraFiles
		if !proc.Terminal {
			cmd.Stderr = files[2]
		}
	}, append(args, rec.ID)...)
	if err != nil {
		return nil, programError(err, proc)
	}
	data, err := os.ReadFile(filepath.Join(dir, "pid"))
	if err != nil {
		return nil, err
	}
	p := &Process{}
	if p.pid, err = strconv.Atoi(strings.TrimSpace(string(data))); err == nil && console != nil {
		p.console, err = console.receive()
	}
	return p, err
}

// consoleSocket is where a runtime sends a terminal's master to.
type consoleSocket struct {
	name     string
	dir      *os.File
	listener *net.UnixListener
}

// listenConsole listens in dir. The name is by a descriptor because a socket's
// has 108 bytes at most; see unix(7).
func listenConsole(dir string) (*consoleSocket, error) {
	d, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	c := &consoleSocket{name: fmt.Sprintf("/proc/%d/fd/%d/console", os.Getpid(), d.Fd()), dir: d}
	if c.listener, err = net.ListenUnix("unix", &net.UnixAddr{Name: c.name, Net: "unix"}); err != nil {
		d.Close()
		return nil, err
	}
	return c, nil
}

func (c *consoleSocket) close() {
	c.listener.Close()
	c.dir.Close()
}

// consoleWait is for what the runtime sent before it ended.
const consoleWait = time.Second

func (c *consoleSocket) receive() (*os.File, error) {
	c.listener.SetDeadline(time.Now().Add(consoleWait))
	conn, err := c.listener.AcceptUnix()
	if err != nil {
		return nil, fmt.Errorf("receive the terminal: %w", err)
	}
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(consoleWait))
	return receiveFile(conn)
}

func receiveFile(conn *net.UnixConn) (*os.File, error) {
	name, rights := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := conn.ReadMsgUnix(name, rights)
	if err != nil {
		return nil, err
	}
	messages, err := unix.ParseSocketControlMessage(rights[:n])
	if err != nil || len(messages) == 0 {
		return nil, errors.Join(errors.New("the runtime sent no terminal"), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return nil, err
	}
	unix.CloseOnExec(fds[0])
	return os.NewFile(uintptr(fds[0]), "terminal"), nil
}

// foreignExec is Exec by another runtime.
func (r *Runtime) foreignExec(ctx context.Context, rec *record, proc *specs.Process, o ExecOptions) (*Process, error) {
	if len(o.Cgroup) > 0 {
		return nil, fmt.Errorf("exec in %s: a cgroup of one's own is not for %s", rec.ID, filepath.Base(rec.Program))
	}
	file, err := os.CreateTemp(r.dir(rec.ID), "exec-")
	if err != nil {
		return nil, err
	}
	defer os.Remove(file.Name())
	if err := errors.Join(json.NewEncoder(file).Encode(proc), file.Close()); err != nil {
		return nil, err
	}
	return r.foreignStart(ctx, rec, proc, o, "exec", "--detach", "--process", file.Name())
}

// foreignDelete undoes foreignCreate. A runtime that is no longer installed is
// no obstacle: its container ends, and its cgroup goes, in any case.
func (r *Runtime) foreignDelete(ctx context.Context, rec *record) error {
	if err := rec.Init.Signal(unix.SIGKILL); err != nil && !errors.Is(err, sys.ErrGone) {
		return err
	}
	for pause := time.Millisecond; rec.Init.Alive() && pause < 4*time.Second; pause *= 2 {
		time.Sleep(pause)
	}
	if _, err := os.Stat(r.dir(rec.ID, foreignDir, rec.ID)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	err := r.foreignCommand(ctx, rec, nil, "delete", "--force", rec.ID)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the program, or the directory
	}
	if _, gone := os.Stat(r.dir(rec.ID, recordFile)); errors.Is(gone, fs.ErrNotExist) {
		return nil // another process was faster
	}
	return err
}

// foreignUpdate changes limits.
func (r *Runtime) foreignUpdate(rec *record, res *specs.LinuxResources) error {
	data, err := json.Marshal(res)
	if err != nil {
		return err
	}
	return r.foreignCommand(context.Background(), rec, func(cmd *exec.Cmd) { cmd.Stdin = bytes.NewReader(data) },
		"update", "--resources", "-", rec.ID)
}

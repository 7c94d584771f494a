package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/reexec"
)

// prepareStart keeps the spec and makes the socket at which init will wait when
// another process is to start the program. Otherwise it returns nil.
func (r *Runtime) prepareStart(id string, spec *specs.Spec, o CreateOptions) (*os.File, error) {
	if !o.Detached {
		return nil, nil
	}
	if err := WriteSpec(r.dir(id, specFile), spec); err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), startSocket)
	err = r.atStart(id, func(a *unix.SockaddrUnix) error {
		if err := unix.Bind(fd, a); err != nil {
			return os.NewSyscallError("bind", err)
		}
		return os.NewSyscallError("listen", unix.Listen(fd, 8))
	})
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// atStart calls use with the start socket's address, which is short however long
// the path is: sun_path has 108 bytes; see unix(7).
func (r *Runtime) atStart(id string, use func(*unix.SockaddrUnix) error) error {
	dir, err := os.OpenFile(r.dir(id), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer dir.Close()
	return use(&unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), startSocket)})
}

// connect reaches the init of a created container. The error is ECONNREFUSED or
// ENOENT when none waits: the program runs, or it has ended.
func (r *Runtime) connect(id string) (*reexec.Conn, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), startSocket)
	err = r.atStart(id, func(a *unix.SockaddrUnix) error { return unix.Connect(fd, a) })
	if err != nil {
		f.Close()
		return nil, err
	}
	return reexec.NewConn(f), nil
}

// waits reports whether the container's program still is to be started.
func (r *Runtime) waits(id string) bool {
	if _, err := os.Lstat(r.dir(id, startSocket)); err != nil {
		return false
	}
	conn, err := r.connect(id)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// Start lets the program of a container go that was created Detached. A
// *StartError says why it does not run; then the container has ended.
func (r *Runtime) Start(ctx context.Context, id string) error {
	rec, err := r.read(id)
	if err != nil {
		return err
	}
	conn, err := r.connect(id)
	if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		status := "stopped"
		if rec.Init.Alive() {
			status = "running"
		}
		return fmt.Errorf("start %s: container is %s, not created", id, status)
	}
	if err != nil {
		return err
	}
	if err := begin(conn); err != nil {
		return err
	}
	os.Remove(r.dir(id, startSocket))
	err = runHooks(ctx, rec.Hooks.poststart(), rec.state(specs.StateRunning, rec.Init.Pid))
	if err != nil {
		return errors.Join(err, r.Kill(id, unix.SIGKILL, true))
	}
	return nil
}

// Spec is the configuration of a container that was created Detached.
func (r *Runtime) Spec(id string) (*specs.Spec, error) {
	if _, err := r.read(id); err != nil {
		return nil, err
	}
	return ReadSpec(r.dir(id, specFile))
}

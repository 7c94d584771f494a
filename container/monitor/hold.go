package monitor

import (
	"errors"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/reexec"
	"github.com/kist-containers/kist/internal/sys"
)

// A container that was initialized has all that it wants, and its first process
// waits. Its monitor waits too, for one message on a socket of its own:
//
//	engine                            monitor
//	spec with Held  ──▶               prepares
//	                ◀── started       the process waits; the spec's connection is over
//	release         ──▶ (hold.sock)   starts, or undoes everything and ends
//	                ◀── started
const holdSocket = "hold.sock"

// release is what becomes of a container that is held: with End it goes. The client
// to see the first output, if there is one, comes with it.
type release struct {
	End bool `json:"end,omitempty"`
}

// errEnded is what an end that was asked for looks like to the monitor.
var errEnded = errors.New("ended before it was started")

// hold tells the engine that the container waits, and waits for the word. It
// returns the connection on which the rest is answered.
func (m *monitor) hold(engine *reexec.Conn) (*reexec.Conn, error) {
	var err error
	if m.init, err = sys.ProcessOf(m.proc.Pid()); err != nil {
		return engine, err
	}
	dir, err := openDir(m.RunDir)
	if err != nil {
		return engine, err
	}
	defer dir.Close()
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: holdPath(dir), Net: "unixpacket"})
	if err != nil {
		return engine, err
	}
	l.SetUnlinkOnClose(false)
	defer l.Close()
	if err := m.note(); err != nil {
		return engine, err
	}
	engine.Send(started{Init: m.init})
	return m.released(l)
}

func holdPath(dir *os.File) string { return filepath.Join(filepath.Dir(socketPath(dir)), holdSocket) }

// released waits for the word: a connection that brings none was a killed engine's.
func (m *monitor) released(l *net.UnixListener) (*reexec.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		f, err := c.File()
		c.Close()
		if err != nil {
			continue
		}
		// What File returns is set to block, as Conn wants it.
		unix.SetNonblock(int(f.Fd()), false)
		conn := reexec.NewConn(f)
		var r release
		files, err := conn.Receive(&r)
		if err != nil {
			conn.Close()
			continue
		}
		m.Held = false
		if r.End {
			return conn, errEnded
		}
		for _, f := range files {
			if err := m.sock.adopt(f); err != nil {
				return conn, err
			}
		}
		return conn, nil
	}
}

// Release lets the program of a held container go; dir is its run directory. client
// is as for Starter.Start.
func Release(dir string, client *os.File) error {
	var files []*os.File
	if client != nil {
		files = append(files, client)
	}
	a, err := tellHeld(dir, release{}, files...)
	switch {
	case err != nil:
		return err
	case a.Failure != nil:
		return a.Failure
	case a.Error != "":
		return errors.New(a.Error)
	}
	return nil
}

// EndHeld ends a held container and its monitor.
func EndHeld(dir string) error {
	_, err := tellHeld(dir, release{End: true})
	return err
}

func tellHeld(dir string, r release, files ...*os.File) (a started, err error) {
	d, err := openDir(dir)
	if err != nil {
		return a, err
	}
	defer d.Close()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return a, os.NewSyscallError("socket", err)
	}
	conn := reexec.NewConn(os.NewFile(uintptr(fd), "monitor"))
	defer conn.Close()
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: holdPath(d)}); err != nil {
		return a, os.NewSyscallError("connect to the container's monitor", err)
	}
	if err := conn.Send(r, files...); err != nil {
		return a, err
	}
	_, err = conn.Receive(&a)
	return a, err
}

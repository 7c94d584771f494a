package nameserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/kist-containers/kist/internal/sys"

	"golang.org/x/sys/unix"
)

// Listen makes the sockets of a sandbox: they exist before its first process does
// and keep what is asked until Serve runs, perhaps in another process.
//
// A program of the container may want port 53 of all addresses, which excludes a
// listener of ours there. So the sockets have ports of the kernel's choice and
// the sandbox's packets are rewritten; see redirect. Where the kernel cannot do
// that, the server has port 53 itself.
func Listen(sandbox string) (files []*os.File, err error) {
	defer func() {
		if err != nil {
			for _, f := range files {
				f.Close()
			}
			files, err = nil, fmt.Errorf("name server: %w", err)
		}
	}()
	err = inside(sandbox, func() error {
		if files, err = sockets(0); err != nil {
			return err
		}
		err := redirect(portOf(files[0]), portOf(files[1]))
		if !errors.Is(err, errNoRewriting) {
			return err
		}
		for _, f := range files {
			f.Close()
		}
		files, err = sockets(53)
		return err
	})
	return files, err
}

// sockets are the one of packets and the one of streams.
func sockets(port int) ([]*os.File, error) {
	var files []*os.File
	for _, kind := range []int{unix.SOCK_DGRAM, unix.SOCK_STREAM} {
		fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return files, os.NewSyscallError("socket", err)
		}
		files = append(files, os.NewFile(uintptr(fd), "name server"))
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
		if err := unix.Bind(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 11}}); err != nil {
			return files, fmt.Errorf("bind %s:%d: %w", Address, port, err)
		}
		if kind == unix.SOCK_STREAM {
			if err := unix.Listen(fd, 128); err != nil {
				return files, os.NewSyscallError("listen", err)
			}
		}
	}
	return files, nil
}

func portOf(f *os.File) uint16 {
	sa, err := unix.Getsockname(int(f.Fd()))
	if in, ok := sa.(*unix.SockaddrInet4); ok && err == nil {
		return uint16(in.Port)
	}
	return 0
}

// adopt makes Go's own connections of the files.
func adopt(files []*os.File) (*net.UDPConn, *net.TCPListener, error) {
	if len(files) != 2 {
		return nil, nil, fmt.Errorf("name server: %d sockets, want 2", len(files))
	}
	pc, err := net.FilePacketConn(files[0])
	if err != nil {
		return nil, nil, err
	}
	l, err := net.FileListener(files[1])
	if err != nil {
		return nil, nil, errors.Join(err, pc.Close())
	}
	return pc.(*net.UDPConn), l.(*net.TCPListener), nil
}

// inside runs f on a thread in the namespace of a file.
func inside(sandbox string, f func() error) error {
	ns, err := os.Open(sandbox)
	if err != nil {
		return err
	}
	defer ns.Close()
	return sys.InNetwork(ns, f)
}

// dialInside connects from a sandbox. The socket is made by a thread that enters
// the namespace and comes back; all else is done where the caller is.
func dialInside(ctx context.Context, sandbox, proto, addr string) (c net.Conn, err error) {
	err = inside(sandbox, func() error {
		c, err = new(net.Dialer).DialContext(ctx, proto, addr)
		return err
	})
	return c, err
}

package registry

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// receiveBuffer is the most that Linux grows a receive buffer to by itself
// (tcp(7), tcp_rmem), had from the start.
const receiveBuffer = 6 << 20

// wideWindow lets a server's bytes leave its machine as fast as it writes them:
// what waits there for the window to open is lost, and paid for again, when the
// server or a middlebox resets the connection. Without CAP_NET_ADMIN the kernel
// keeps growing the buffer itself, which is better than the small one allowed.
func wideWindow(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer)
	})
}

package monitor

import (
	"encoding/binary"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// The attach protocol: packets over a SOCK_SEQPACKET socket, the first byte of
// each its kind.
//
//	client                           monitor
//	        ◀── kindStdout, kindStderr  bytes of the container
//	kindStdin, bytes       ──▶          to its standard input
//	kindStdinEnd           ──▶          closes it
//	kindResize, rows, cols ──▶          the terminal's size (two uint16)
//	kindStop               ──▶          a user stops it: no restart
//	        ◀── kindBehind              the client was too slow and is let go
//	        ◀── kindExit, code          PID 1 ended with code (int32), all output sent
//	        ◀── end of file             and everything of the run is cleaned up
const (
	kindStdout   = 'o'
	kindStderr   = 'e'
	kindStdin    = 'i'
	kindStdinEnd = 'z'
	kindResize   = 'r'
	kindStop     = 's'
	kindBehind   = 'b'
	kindExit     = 'x'
)

// socketName is the attach socket in the container's run directory. Its mode is
// 0600 in a directory of mode 0700.
const socketName = "attach.sock"

// socketPath is a path for bind or connect that fits into sockaddr_un, however
// long dir is. dir stays open as long as the path is used.
func socketPath(dir *os.File) string {
	return filepath.Join("/proc/self/fd", strconv.Itoa(int(dir.Fd())), socketName)
}

func openDir(path string) (*os.File, error) {
	return os.OpenFile(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

// AttachPair returns the two ends of a connection for a client that is there
// before its container: theirs goes to Starter.Start, ours to NewClient.
func AttachPair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	return os.NewFile(uintptr(fds[0]), "attach"), os.NewFile(uintptr(fds[1]), "attach"), nil
}

func packetConn(f *os.File) (*net.UnixConn, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	return c.(*net.UnixConn), nil
}

func exitPacket(code int) []byte {
	return binary.LittleEndian.AppendUint32([]byte{kindExit}, uint32(int32(code)))
}

func resizePacket(rows, cols uint16) []byte {
	return binary.LittleEndian.AppendUint16(binary.LittleEndian.AppendUint16([]byte{kindResize}, rows), cols)
}

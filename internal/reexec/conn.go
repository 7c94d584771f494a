package reexec

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/lazyjson"
)

// maxMessage bounds one packet. The kernel's default socket buffer is 208 KiB
// (net.core.wmem_default), and a packet must fit into it whole.
const maxMessage = 160 << 10

// maxFiles bounds the descriptors of one packet; see SCM_MAX_FD in unix(7).
const maxFiles = 253

// A Conn is one end of a SOCK_SEQPACKET pair between parent and child: whole
// messages, in order, descriptors attached. Close of the other end is io.EOF.
type Conn struct{ f *os.File }

// Pair returns two connected ends, both close-on-exec: put the child's File
// into exec.Cmd.ExtraFiles. See unix(7).
func Pair() (ours, theirs *Conn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	return NewConn(os.NewFile(uintptr(fds[0]), "parent")), NewConn(os.NewFile(uintptr(fds[1]), "child")), nil
}

// NewConn wraps an inherited socket: the child calls NewConn(os.NewFile(3, "parent")).
func NewConn(f *os.File) *Conn {
	unix.CloseOnExec(int(f.Fd()))
	return &Conn{f}
}

// File returns the socket itself.
func (c *Conn) File() *os.File { return c.f }

// Close closes this end.
func (c *Conn) Close() error { return c.f.Close() }

// Send encodes v as one packet and attaches files. The receiver gets
// duplicates; the caller keeps its own open.
func (c *Conn) Send(v any, files ...*os.File) error {
	data, err := lazyjson.Marshal(v)
	if err != nil {
		return err
	}
	if len(data) > maxMessage {
		return fmt.Errorf("send: message of %d bytes is over the limit of %d", len(data), maxMessage)
	}
	var rights []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		rights = unix.UnixRights(fds...)
	}
	for {
		err = unix.Sendmsg(int(c.f.Fd()), data, rights, nil, unix.MSG_NOSIGNAL)
		if !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("sendmsg", err)
		}
	}
}

// Receive decodes the next packet into v and returns the files that came with
// it, close-on-exec. The error is io.EOF when the other end is closed.
func (c *Conn) Receive(v any) ([]*os.File, error) {
	oob := make([]byte, unix.CmsgSpace(maxFiles*4))
	for {
		size, _, _, _, err := unix.Recvmsg(int(c.f.Fd()), nil, nil, unix.MSG_PEEK|unix.MSG_TRUNC)
		// A peer that ended with data unread resets the connection. The kernel says
		// so once; what the peer had sent can be read after that.
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ECONNRESET) {
			continue
		}
		buf := make([]byte, max(size, 0))
		n, oobn, _, _, err := unix.Recvmsg(int(c.f.Fd()), buf, oob, unix.MSG_CMSG_CLOEXEC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.ECONNRESET) || err == nil && n == 0 {
			return nil, io.EOF
		}
		if err != nil {
			return nil, os.NewSyscallError("recvmsg", err)
		}
		files, err := rightsOf(oob[:oobn])
		if err != nil {
			return nil, err
		}
		if err := lazyjson.Unmarshal(buf[:n], v); err != nil {
			closeAll(files)
			return nil, fmt.Errorf("receive: %w", err)
		}
		return files, nil
	}
}

func rightsOf(oob []byte) ([]*os.File, error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, os.NewSyscallError("recvmsg", err)
	}
	var files []*os.File
	for _, m := range msgs {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue // credentials and the like carry no descriptors
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

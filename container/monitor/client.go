package monitor

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// ErrDetached is returned when the user typed the detach keys.
var ErrDetached = errors.New("read escape sequence")

// ErrBehind is returned to a client that read too slowly.
var ErrBehind = errors.New("this reader fell too far behind the container's output and was let go; use `kist logs`")

// ErrMonitorGone is returned when the connection ends without an exit code.
var ErrMonitorGone = errors.New("the container's monitor was killed")

// A Client is an attached user: streams, a terminal, signals.
type Client struct {
	conn *net.UnixConn
	// Stdin is sent to the container; nil sends nothing, not even its end.
	Stdin *os.File
	// Stdout and Stderr get what the container prints; nil drops it.
	Stdout, Stderr io.Writer
	// Terminal says that the container has one: Stdin goes raw if it is one too,
	// and its size is passed on.
	Terminal bool
	// Redraw makes a program that draws on its terminal do so again, for a user who
	// has not seen what it drew.
	Redraw bool
	// DetachKeys end the client and not the container; see ParseDetachKeys. They
	// work on a terminal only.
	DetachKeys []byte
}

// NewClient wraps the connection ours of AttachPair.
func NewClient(ours *os.File) (*Client, error) {
	conn, err := packetConn(ours)
	if err != nil {
		return nil, err
	}
	return &Client{conn: conn}, nil
}

// Dial connects to the monitor of the container with the run directory dir.
func Dial(dir string) (*Client, error) {
	d, err := openDir(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: socketPath(d), Net: "unixpacket"})
	if err != nil {
		return nil, fmt.Errorf("connect to the container's monitor: %w", unwrapAll(err))
	}
	return &Client{conn: conn}, nil
}

func unwrapAll(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Stop tells the monitor that a user stops the container: no restart follows.
func (c *Client) Stop() error {
	_, err := c.conn.Write([]byte{kindStop})
	return err
}

// Run copies until the container ends and returns its exit code. The error is
// ErrDetached, ErrBehind or ErrMonitorGone when it did not come to that.
// With wait it returns only when the run is cleaned up.
func (c *Client) Run(ctx context.Context, wait bool) (code int, err error) {
	restore, err := c.raw()
	if err != nil {
		return 0, err
	}
	defer restore()
	detached := make(chan struct{})
	var once sync.Once
	stop := context.AfterFunc(ctx, func() { c.conn.Close() })
	defer stop()
	if c.Stdin != nil {
		go c.input(func() {
			once.Do(func() { close(detached); c.conn.Close() })
		})
	}
	code, err = c.output(wait)
	select {
	case <-detached:
		return 0, ErrDetached
	default:
	}
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	return code, err
}

// output writes what comes until the exit code has come.
func (c *Client) output(wait bool) (int, error) {
	buf := make([]byte, 1+readSize)
	code, ended := 0, false
	for {
		n, err := c.conn.Read(buf)
		switch {
		case ended && (err != nil || n == 0):
			return code, nil
		case err != nil || n == 0:
			return 0, ErrMonitorGone
		}
		switch data := buf[1:n]; buf[0] {
		case kindStdout:
			err = write(c.Stdout, data)
		case kindStderr:
			err = write(c.Stderr, data)
		case kindBehind:
			return 0, ErrBehind
		case kindExit:
			if len(data) == 4 {
				code, ended = int(int32(binary.LittleEndian.Uint32(data))), true
			}
			if !wait {
				return code, nil
			}
		}
		if err != nil {
			return 0, err
		}
	}
}

func write(w io.Writer, data []byte) error {
	if w == nil {
		return nil
	}
	_, err := w.Write(data)
	return err
}

// input sends what is typed. detach is called when the detach keys were.
func (c *Client) input(detach func()) {
	buf := make([]byte, 1+readSize)
	buf[0] = kindStdin
	keys := detector{keys: c.DetachKeys}
	for {
		n, err := c.Stdin.Read(buf[1:])
		if n > 0 {
			data := buf[:1+n]
			if c.Terminal && len(c.DetachKeys) > 0 {
				typed, found := keys.feed(data[1:])
				if found {
					detach()
					return
				}
				data = append([]byte{kindStdin}, typed...)
			}
			if len(data) > 1 {
				if _, err := c.conn.Write(data); err != nil {
					return
				}
			}
		}
		if err != nil {
			c.conn.Write([]byte{kindStdinEnd})
			return
		}
	}
}

// raw puts the user's terminal into raw mode and follows its size.
func (c *Client) raw() (restore func(), err error) {
	if !c.Terminal || c.Stdin == nil || !term.IsTerminal(int(c.Stdin.Fd())) {
		return func() {}, nil
	}
	fd := int(c.Stdin.Fd())
	if c.Redraw {
		c.sendSize(fd, 1) // a size that is no other than before tells it nothing
	}
	c.sendSize(fd, 0)
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, unix.SIGWINCH)
	go func() {
		for range resized {
			c.sendSize(fd, 0)
		}
	}()
	old, err := term.MakeRaw(fd)
	if err != nil {
		return nil, err
	}
	return func() {
		signal.Stop(resized)
		term.Restore(fd, old)
	}, nil
}

// sendSize tells how large the user's terminal is, and more.
func (c *Client) sendSize(fd, more int) {
	// docker: a terminal that does not know its size has none to tell.
	if cols, rows, err := term.GetSize(fd); err == nil && cols+rows > 0 {
		c.conn.Write(resizePacket(uint16(rows+more), uint16(cols+more)))
	}
}

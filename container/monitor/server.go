package monitor

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// A server accepts attach clients.
type server struct {
	m        *monitor
	listener *net.UnixListener
	mu       sync.Mutex
	conns    map[*net.UnixConn]bool
	// early are clients that came before there was a program to feed.
	early []*client
}

// listen opens the attach socket in the run directory.
func listen(m *monitor) (*server, error) {
	dir, err := openDir(m.RunDir)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	// What stands there is of an earlier run: the container's lock keeps others out.
	os.Remove(filepath.Join(m.RunDir, socketName))
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: socketPath(dir), Net: "unixpacket"})
	if err != nil {
		return nil, err
	}
	return newServer(m, l), nil
}

// newServer serves l, which stays where it is when this process goes on as another.
func newServer(m *monitor, l *net.UnixListener) *server {
	l.SetUnlinkOnClose(false)
	return &server{m: m, listener: l, conns: map[*net.UnixConn]bool{}}
}

// busy reports whether a client is connected.
func (s *server) busy() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns) > 0
}

// accept serves clients from now on: the hub is open for what they send.
func (s *server) accept() {
	for _, c := range s.early {
		go s.read(c)
	}
	s.early = nil
	for {
		conn, err := s.listener.AcceptUnix()
		if err != nil {
			return
		}
		go s.read(s.add(conn, false))
	}
}

// adopt takes the connection of the client that started the container. It is
// obeyed from accept on: what it sends at once, perhaps the input's end, waits.
func (s *server) adopt(f *os.File) error {
	conn, err := packetConn(f)
	if err != nil {
		return err
	}
	s.early = append(s.early, s.add(conn, true))
	return nil
}

func (s *server) add(conn *net.UnixConn, primary bool) *client {
	s.mu.Lock()
	s.conns[conn] = true
	s.mu.Unlock()
	c := newClient(conn, primary)
	s.m.hub.join(c)
	return c
}

// read obeys a client until it goes.
func (s *server) read(c *client) {
	buf := make([]byte, 1+readSize)
	fed := false
	for {
		n, err := c.conn.Read(buf)
		if err != nil || n == 0 {
			break
		}
		s.obey(buf[0], buf[1:n], &fed)
	}
	s.remove(c)
	// A client that fed a program and vanished has no more to say. One that
	// detached from a terminal leaves it open.
	if fed && s.m.StdinOnce && !s.m.Terminal {
		s.m.hub.endInput()
	}
}

func (s *server) obey(kind byte, data []byte, fed *bool) {
	h := s.m.hub
	switch kind {
	case kindStdin:
		*fed = true
		h.input(data)
	case kindStdinEnd:
		*fed = false
		if s.m.StdinOnce || s.m.Terminal {
			h.endInput()
		}
	case kindResize:
		if len(data) == 4 {
			rows, cols := binary.LittleEndian.Uint16(data), binary.LittleEndian.Uint16(data[2:])
			h.resize(rows, cols)
			s.m.event("resize", map[string]string{"height": fmt.Sprint(rows), "width": fmt.Sprint(cols)})
		}
	case kindStop:
		s.m.stop()
	}
}

func (s *server) remove(c *client) {
	s.m.hub.leave(c)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c.conn)
	c.conn.Close()
}

// stop takes no more clients.
func (s *server) stop() { s.listener.Close() }

// close ends all connections: for the clients, everything is done.
func (s *server) close() {
	s.listener.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.Close()
	}
}

// A client is one connection that sees the output.
type client struct {
	conn *net.UnixConn
	// primary is the client that started the container.
	primary bool

	mu     sync.Mutex
	queue  [][]byte
	queued int
	busy   bool
	ended  bool
	idle   *sync.Cond
}

// mostBehind is how many bytes a client may lag before it is let go.
const mostBehind = 1 << 20

func newClient(conn *net.UnixConn, primary bool) *client {
	c := &client{conn: conn, primary: primary}
	c.idle = sync.NewCond(&c.mu)
	return c
}

// send writes a packet, however long the client takes to read.
func (c *client) send(packet []byte) bool {
	_, err := c.conn.Write(packet)
	return err == nil
}

// enqueue keeps a copy for the client and returns false when it has had enough.
func (c *client) enqueue(packet []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return false
	}
	if c.queued+len(packet) > mostBehind {
		c.ended, c.queue = true, [][]byte{{kindBehind}}
	} else {
		c.queue = append(c.queue, append([]byte(nil), packet...))
		c.queued += len(packet)
	}
	if !c.busy {
		c.busy = true
		go c.flush()
	}
	return !c.ended
}

// flush sends the queue and ends: an idle client costs no goroutine.
func (c *client) flush() {
	for {
		c.mu.Lock()
		if len(c.queue) == 0 {
			c.busy = false
			c.idle.Broadcast()
			c.mu.Unlock()
			return
		}
		packet := c.queue[0]
		c.queue = c.queue[1:]
		c.queued -= len(packet)
		c.mu.Unlock()
		if !c.send(packet) {
			c.mu.Lock()
			c.ended, c.queue = true, nil
			c.mu.Unlock()
		}
	}
}

// lastWords is how long a client may take to read the end.
const lastWords = 5 * time.Second

// end sends the exit code after everything else. The client that started the
// container is waited for; one that looked on only so long.
func (c *client) end(code int) {
	if !c.primary {
		c.conn.SetWriteDeadline(time.Now().Add(lastWords))
		c.mu.Lock()
		for c.busy {
			c.idle.Wait()
		}
		c.mu.Unlock()
	}
	c.send(exitPacket(code))
}

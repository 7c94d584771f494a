package network

import (
	"cmp"
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kist-containers/kist/network/nameserver"
)

// Serve answers for a container on the host's side until ctx ends: it listens on
// the published ports, so that ss shows their owner and connections of the
// host's own reach the container, and is the name server on the sockets of Listen.
// It also keeps what networks want kept, those that the container joins later too.
func (m *Manager) Serve(ctx context.Context, id string, sockets []*os.File) error {
	s, err := m.Sandbox(id)
	if err != nil || s.Key == "" {
		return err
	}
	var running sync.WaitGroup
	defer running.Wait()
	var now atomic.Pointer[Sandbox]
	now.Store(s)
	named := len(sockets) > 0
	if named {
		running.Go(func() { nameserver.Serve(ctx, m.nameServer(s), sockets) })
	}
	running.Go(func() {
		m.follow(ctx, id, func(s *Sandbox) {
			now.Store(s)
			if !named && s.named() { // it joined its first network of that kind
				if sockets, err := nameserver.Listen(s.Key); err == nil {
					named = true
					running.Go(func() { nameserver.Serve(ctx, m.nameServer(s), sockets) })
				}
			}
		})
	})
	for _, p := range s.Ports {
		to := func() string { return now.Load().target(p) }
		switch {
		case p.HostPort == 0: // reached at the container's own address
		case p.Proto == "tcp":
			running.Go(func() { serveTCP(ctx, p, to) })
		case p.Proto == "udp":
			running.Go(func() { serveUDP(ctx, p, to) })
		}
	}
	return nil
}

// target is where a published port leads now: an address of the client's family, if
// the container has one.
func (s *Sandbox) target(p PublishedPort) string {
	e := s.gate()
	if e == nil {
		return ""
	}
	address := cmp.Or(e.Address, e.Address6)
	if host, err := netip.ParseAddr(p.HostIP); err == nil && host.Is6() {
		address = cmp.Or(e.Address6, e.Address)
	}
	prefix, err := netip.ParsePrefix(address)
	if err != nil {
		return ""
	}
	return netip.AddrPortFrom(prefix.Addr(), p.ContainerPort).String()
}

func (p PublishedPort) listenAddress() string {
	return net.JoinHostPort(p.HostIP, strconv.Itoa(int(p.HostPort)))
}

func serveTCP(ctx context.Context, p PublishedPort, to func() string) error {
	l, err := new(net.ListenConfig).Listen(ctx, p.network(), p.listenAddress())
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	defer l.Close()
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go relay(ctx, conn.(*net.TCPConn), to())
	}
}

// relay copies both ways; Go does it by splice(2), without the bytes coming here.
func relay(ctx context.Context, client *net.TCPConn, to string) {
	defer client.Close()
	d := net.Dialer{Timeout: 10 * time.Second}
	c, err := d.DialContext(ctx, "tcp", to)
	if err != nil {
		return
	}
	server := c.(*net.TCPConn)
	defer server.Close()
	var both sync.WaitGroup
	for _, way := range [][2]*net.TCPConn{{server, client}, {client, server}} {
		both.Go(func() {
			io.Copy(way[0], way[1])
			way[0].CloseWrite()
		})
	}
	both.Wait()
}

// udpIdle is how long a client's way back is kept without traffic.
const udpIdle = 90 * time.Second

func serveUDP(ctx context.Context, p PublishedPort, to func() string) error {
	pc, err := new(net.ListenConfig).ListenPacket(ctx, p.network(), p.listenAddress())
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { pc.Close() })
	defer stop()
	defer pc.Close()
	var mu sync.Mutex
	ways := map[string]net.Conn{}
	buf := make([]byte, 64<<10)
	for {
		n, from, err := pc.ReadFrom(buf)
		if err != nil {
			return err
		}
		mu.Lock()
		target := to()
		key := from.String() + " " + target
		way := ways[key]
		if way == nil {
			if way, err = net.Dial("udp", target); err != nil {
				mu.Unlock()
				continue
			}
			ways[key] = way
			go func() {
				answers(pc, way, from)
				mu.Lock()
				delete(ways, key)
				mu.Unlock()
			}()
		}
		mu.Unlock()
		way.Write(buf[:n])
	}
}

func answers(pc net.PacketConn, way net.Conn, to net.Addr) {
	defer way.Close()
	buf := make([]byte, 64<<10)
	for {
		way.SetReadDeadline(time.Now().Add(udpIdle))
		n, err := way.Read(buf)
		if err != nil {
			return
		}
		pc.WriteTo(buf[:n], to)
	}
}

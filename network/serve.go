package network

import (
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
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
	if len(sockets) > 0 {
		running.Go(func() { nameserver.Serve(ctx, m.nameServer(s), sockets) })
	}
	running.Go(func() { m.follow(ctx, id) })
	if len(s.Ports) == 0 || len(s.Endpoints) == 0 {
		return nil
	}
	prefix, err := netip.ParsePrefix(s.Endpoints[0].Address)
	if err != nil {
		return err
	}
	for _, p := range s.Ports {
		to := netip.AddrPortFrom(prefix.Addr(), p.ContainerPort).String()
		switch p.Proto {
		case "tcp":
			running.Go(func() { serveTCP(ctx, p, to) })
		case "udp":
			running.Go(func() { serveUDP(ctx, p, to) })
		}
	}
	return nil
}

func (p PublishedPort) listenAddress() string {
	return net.JoinHostPort(p.HostIP, strconv.Itoa(int(p.HostPort)))
}

func serveTCP(ctx context.Context, p PublishedPort, to string) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", p.listenAddress())
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
		go relay(ctx, conn.(*net.TCPConn), to)
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

func serveUDP(ctx context.Context, p PublishedPort, to string) error {
	pc, err := new(net.ListenConfig).ListenPacket(ctx, "udp", p.listenAddress())
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
		way := ways[from.String()]
		if way == nil {
			if way, err = net.Dial("udp", to); err != nil {
				mu.Unlock()
				continue
			}
			ways[from.String()] = way
			go func() {
				answers(pc, way, from)
				mu.Lock()
				delete(ways, from.String())
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

// Package nameserver answers a container's questions about names: those of the
// networks that its sandbox is joined to from files, all others by asking the
// servers of the host or of --dns.
//
// It listens at 127.0.0.11:53 of the sandbox and runs in the container's monitor,
// that is, in the host's network namespace. No other server is ever asked than a
// configured one.
package nameserver

import (
	"context"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// Address is where the server listens in every sandbox.
const Address = "127.0.0.11"

// Config says whom a server answers for. The zero value answers for nobody and
// forwards nothing.
type Config struct {
	// Record is a file that changes whenever Networks would return something
	// else; "" if it never does.
	Record string
	// Networks returns the networks that the sandbox is joined to, the most
	// important first. It is called again when Record changes.
	Networks func() ([]Network, error)
	// Servers are those of --dns. They are asked from the sandbox.
	Servers []netip.Addr
	// Sandbox is the path of the sandbox's network namespace.
	Sandbox string
	// HostFile is the resolv.conf whose servers are asked from the host's network
	// namespace when there are no Servers, unless all networks are internal; read
	// again when it changes.
	HostFile string
	// KeepSingle says that the user chose ndots: then a name without a dot is not
	// asked of others, as it is to get a search domain. See docker's resolver.
	KeepSingle bool
}

// Network is one that the sandbox is joined to.
type Network struct {
	// Name is what names are also known under: web.NAME.
	Name string
	// Dir holds one file per joined container; see Endpoint.
	Dir string
	// Internal networks do not lead outside.
	Internal bool
	// Links are names that only this sandbox knows, by the name that each stands for.
	Links map[string]string
}

// A server is one sandbox's.
type server struct {
	Config
	zone zone
	host hostServers
	// slots bounds the questions that wait for another server.
	slots chan struct{}
	late  lateServers
	work  sync.WaitGroup
}

const (
	// maxForwards and maxServers are docker's.
	maxForwards = 1024
	maxServers  = 3
	// maxStreams bounds the TCP connections of one container.
	maxStreams = 256
	// streamIdle is how long a TCP connection may be silent.
	streamIdle = 10 * time.Second
	// maxQuestion is the largest question by UDP; see RFC 6891, section 6.2.5.
	maxQuestion = 4096
)

// Serve answers on the sockets of Listen until ctx ends, then closes them. The
// files stay the caller's.
func Serve(ctx context.Context, c Config, files []*os.File) error {
	pc, l, err := adopt(files)
	if err != nil {
		return err
	}
	s := &server{Config: c, slots: make(chan struct{}, maxForwards)}
	s.zone.config = &s.Config
	s.host.path = c.HostFile
	stop := context.AfterFunc(ctx, func() {
		pc.Close()
		l.Close()
	})
	defer stop()
	s.work.Go(func() { s.acceptStreams(ctx, l) })
	err = s.servePackets(ctx, pc)
	l.Close()
	s.work.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// servePackets answers what it knows at once, so that a name of the container's
// networks never waits behind a name of others.
func (s *server) servePackets(ctx context.Context, pc *net.UDPConn) error {
	defer pc.Close()
	in, out := make([]byte, maxQuestion), make([]byte, 0, maxQuestion)
	for {
		n, from, err := pc.ReadFromUDPAddrPort(in)
		if err != nil {
			return err
		}
		a := s.answer(in[:n], out[:0], false)
		if a.forward {
			s.forwardPacket(ctx, pc, from, in[:n], a)
		} else if len(a.reply) > 0 {
			pc.WriteToUDPAddrPort(a.reply, from)
		}
	}
}

func (s *server) forwardPacket(ctx context.Context, pc *net.UDPConn, from netip.AddrPort, question []byte, a answer) {
	select {
	case s.slots <- struct{}{}:
	default:
		pc.WriteToUDPAddrPort(refuse(question, rcodeRefused), from)
		return
	}
	question = append([]byte(nil), question...)
	s.work.Go(func() {
		defer func() { <-s.slots }()
		pc.WriteToUDPAddrPort(s.forward(ctx, question, a.size, false), from)
	})
}

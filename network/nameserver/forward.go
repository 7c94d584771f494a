package nameserver

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

var (
	errNoQuestion = errors.New("message has not one question")
	errStrange    = errors.New("reply is not to this question")
)

const (
	// patience is how long one server may take. A client gives up after 5 s; by
	// then the second server has had its chance. (docker waits 4 s.)
	patience = 2 * time.Second
	// lateFor is how long a server that did not answer is asked last.
	lateFor = 30 * time.Second
)

// forward asks the configured servers one after the other and returns the first
// usable reply: any but "server failure" and "refused". Without one it is the
// last of those, or a failure of our own.
func (s *server) forward(ctx context.Context, msg []byte, size int, stream bool) []byte {
	asked, err := question(msg)
	if err != nil {
		return refuse(msg, dnsmessage.RCodeFormatError)
	}
	reply := refuse(msg, rcodeFailure)
	own := append([]byte(nil), msg...)
	for _, u := range s.late.order(s.upstreams()) {
		// A number of our own, from a port of the kernel's choice: see RFC 5452.
		binary.BigEndian.PutUint16(own, uint16(rand.Uint32()))
		got, err := u.ask(ctx, s.Sandbox, own, asked, size, stream)
		if err != nil {
			s.late.note(u.addr)
			continue
		}
		copy(got, msg[:2])
		reply = got
		if code := dnsmessage.RCode(got[3] & 0xf); code != rcodeFailure && code != rcodeRefused {
			break
		}
	}
	return reply
}

// upstream is a server that may be asked.
type upstream struct {
	addr netip.Addr
	// inside asks from the sandbox.
	inside bool
}

// upstreams are those of --dns, or the host's unless no network leads outside.
func (s *server) upstreams() (list []upstream) {
	servers, inside := s.Servers, len(s.Servers) > 0
	if !inside {
		if s.zone.current().internal {
			return nil
		}
		servers = s.host.current()
	}
	for _, a := range servers[:min(len(servers), maxServers)] {
		list = append(list, upstream{a, inside})
	}
	return list
}

// ask sends msg and returns the reply to it. By TCP a server that has none is
// asked by UDP: some resolvers of home routers are such.
func (u upstream) ask(ctx context.Context, sandbox string, msg, asked []byte, size int, stream bool) ([]byte, error) {
	if stream {
		c, err := u.dial(ctx, sandbox, "tcp")
		if err == nil {
			defer c.Close()
			if err := writeMessage(c, msg); err != nil {
				return nil, err
			}
			got, err := readMessage(c)
			if err == nil && !isReply(got, msg, asked) {
				err = errStrange
			}
			return got, err
		}
	}
	c, err := u.dial(ctx, sandbox, "udp")
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if _, err := c.Write(msg); err != nil {
		return nil, err
	}
	buf := make([]byte, min(max(size, 512), maxQuestion)+1)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return nil, err
		}
		switch {
		case !isReply(buf[:n], msg, asked): // a forgery, or of an earlier question
		case n == len(buf):
			return cut(buf, asked), nil
		default:
			return buf[:n], nil
		}
	}
}

// cut is a reply that was too long, without its records and marked so that the
// client asks again by TCP.
func cut(reply, asked []byte) []byte {
	short := append(reply[:12:12], asked...)
	short[2] |= 0x02
	clear(short[6:12])
	return short
}

func (u upstream) dial(ctx context.Context, sandbox, proto string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	d := net.Dialer{}
	addr := netip.AddrPortFrom(u.addr, 53).String()
	var c net.Conn
	var err error
	if u.inside && sandbox != "" {
		c, err = dialInside(ctx, sandbox, proto, addr)
	} else {
		c, err = d.DialContext(ctx, proto, addr)
	}
	if err != nil {
		return nil, err
	}
	return c, c.SetDeadline(time.Now().Add(patience))
}

// isReply reports whether got answers msg, whose question is asked. A server that
// understood nothing may repeat no question.
func isReply(got, msg, asked []byte) bool {
	if len(got) < 12 || !bytes.Equal(got[:2], msg[:2]) || got[2]&0x80 == 0 {
		return false
	}
	if binary.BigEndian.Uint16(got[4:]) == 0 {
		return got[3]&0xf != 0
	}
	q, err := question(got)
	return err == nil && bytes.EqualFold(q, asked)
}

// lateServers remembers who did not answer, so that a dead first server delays
// one question and not every one.
type lateServers struct {
	mu    sync.Mutex
	since map[netip.Addr]time.Time
}

func (l *lateServers) note(a netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.since == nil || len(l.since) > 2*maxServers {
		l.since = map[netip.Addr]time.Time{}
	}
	l.since[a] = time.Now()
}

// order puts the late ones last.
func (l *lateServers) order(list []upstream) []upstream {
	l.mu.Lock()
	defer l.mu.Unlock()
	var first, last []upstream
	for _, u := range list {
		if t, ok := l.since[u.addr]; ok && time.Since(t) < lateFor {
			last = append(last, u)
		} else {
			first = append(first, u)
		}
	}
	return append(first, last...)
}

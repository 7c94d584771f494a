package nameserver

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// upstreamServer is a server of the host, or of a sandbox, at port 53 of addr.
type upstreamServer struct {
	asked atomic.Int32
	// reply makes a reply of a question; nil for silence.
	reply func(q *dnsmessage.Message, stream bool) *dnsmessage.Message
}

func always(ip string) func(*dnsmessage.Message, bool) *dnsmessage.Message {
	return func(q *dnsmessage.Message, _ bool) *dnsmessage.Message { return found(q, ip) }
}

func found(q *dnsmessage.Message, ip string) *dnsmessage.Message {
	q.Response = true
	q.Answers = []dnsmessage.Resource{{
		Header: dnsmessage.ResourceHeader{Name: q.Questions[0].Name, Class: dnsmessage.ClassINET, TTL: 5},
		Body:   &dnsmessage.AResource{A: netip.MustParseAddr(ip).As4()},
	}}
	return q
}

func code(c dnsmessage.RCode) func(*dnsmessage.Message, bool) *dnsmessage.Message {
	return func(q *dnsmessage.Message, _ bool) *dnsmessage.Message {
		q.Response, q.RCode = true, c
		return q
	}
}

func (u *upstreamServer) listen(t *testing.T, sandbox, addr string) {
	t.Helper()
	needRoot(t)
	open := func() error {
		pc, err := net.ListenPacket("udp", net.JoinHostPort(addr, "53"))
		if err != nil {
			return err
		}
		t.Cleanup(func() { pc.Close() })
		l, err := net.Listen("tcp", net.JoinHostPort(addr, "53"))
		if err != nil {
			return err
		}
		t.Cleanup(func() { l.Close() })
		go u.packets(pc)
		go u.streams(l)
		return nil
	}
	var err error
	if sandbox != "" {
		err = inside(sandbox, open)
	} else {
		err = open()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (u *upstreamServer) answer(msg []byte, stream bool) []byte {
	var q dnsmessage.Message
	if q.Unpack(msg) != nil {
		return nil
	}
	u.asked.Add(1)
	r := u.reply(&q, stream)
	if r == nil {
		return nil
	}
	b, _ := r.Pack()
	return b
}

func (u *upstreamServer) packets(pc net.PacketConn) {
	buf := make([]byte, 4096)
	for {
		n, from, err := pc.ReadFrom(buf)
		if err != nil {
			return
		}
		if r := u.answer(buf[:n], false); r != nil {
			pc.WriteTo(r, from)
		}
	}
}

func (u *upstreamServer) streams(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		if msg, err := readMessage(c); err == nil {
			if r := u.answer(msg, true); r != nil {
				writeMessage(c, r)
			}
		}
		c.Close()
	}
}

// hostFile makes the servers the host's.
func hostFile(t *testing.T, lines ...string) func(*Config) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return func(c *Config) { c.HostFile = path }
}

func TestOtherNamesAreAskedOfTheHostsStub(t *testing.T) {
	u := &upstreamServer{reply: always("192.0.2.1")}
	u.listen(t, "", "127.0.0.53")
	s := newSite(t, hostFile(t, "search example", "nameserver 127.0.0.53"))
	s.join("a", "172.18.0.2", "", "web")
	for _, proto := range []string{"udp", "tcp"} {
		if r := s.ask(proto, "Example.org.", dnsmessage.TypeA); len(r.answers) != 1 || r.answers[0] != "192.0.2.1" {
			t.Errorf("%s: %v %v", proto, r.code, r.answers)
		}
	}
	if n := u.asked.Load(); n != 2 {
		t.Errorf("the stub was asked %d times", n)
	}
	s.ask("udp", "web.", dnsmessage.TypeA)
	s.ask("udp", "web.", dnsmessage.TypeAAAA)
	s.ask("udp", "web.", dnsmessage.TypeTXT)
	s.ask("udp", "2.0.18.172.in-addr.arpa.", dnsmessage.TypePTR)
	if n := u.asked.Load(); n != 2 {
		t.Error("questions about the network's own names went out")
	}
}

func TestHostsServersChange(t *testing.T) {
	u := &upstreamServer{reply: always("192.0.2.1")}
	u.listen(t, "", "127.0.0.54")
	file := ""
	s := newSite(t, func(c *Config) {
		hostFile(t, "# none")(c)
		file = c.HostFile
	})
	if r := s.ask("udp", "example.org.", dnsmessage.TypeA); r.code != dnsmessage.RCodeServerFailure {
		t.Errorf("no servers: %v", r.code)
	}
	os.WriteFile(file, []byte("nameserver 127.0.0.54\n"), 0o600)
	if r := s.ask("udp", "example.org.", dnsmessage.TypeA); len(r.answers) != 1 {
		t.Errorf("with a server: %v", r.code)
	}
	os.Remove(file)
	if r := s.ask("udp", "example.org.", dnsmessage.TypeA); r.code != dnsmessage.RCodeServerFailure {
		t.Errorf("no file: %v", r.code)
	}
}

func TestNextServerAfterFailure(t *testing.T) {
	first, second, third, fourth := &upstreamServer{reply: code(dnsmessage.RCodeServerFailure)}, &upstreamServer{reply: code(dnsmessage.RCodeRefused)},
		&upstreamServer{reply: code(dnsmessage.RCodeNameError)}, &upstreamServer{reply: always("192.0.2.1")}
	first.listen(t, "", "127.0.1.1")
	second.listen(t, "", "127.0.1.2")
	third.listen(t, "", "127.0.1.3")
	fourth.listen(t, "", "127.0.1.4")
	s := newSite(t, hostFile(t, "nameserver 127.0.1.1", "nameserver 127.0.1.2", "nameserver 127.0.1.3", "nameserver 127.0.1.4"))
	if r := s.ask("udp", "example.org.", dnsmessage.TypeA); r.code != dnsmessage.RCodeNameError {
		t.Errorf("code %v, want the third server's", r.code)
	}
	if fourth.asked.Load() != 0 {
		t.Error("docker asks three servers at most")
	}
}

func TestSilentServerDelaysOneQuestion(t *testing.T) {
	silent, good := &upstreamServer{reply: func(*dnsmessage.Message, bool) *dnsmessage.Message { return nil }}, &upstreamServer{reply: always("192.0.2.1")}
	silent.listen(t, "", "127.0.1.1")
	good.listen(t, "", "127.0.1.2")
	s := newSite(t, hostFile(t, "nameserver 127.0.1.1", "nameserver 127.0.1.2"))
	s.join("a", "172.18.0.2", "", "web")
	c := s.dial("udp")
	msg, _ := (&dnsmessage.Message{Header: dnsmessage.Header{ID: 1}, Questions: query("slow.org.", dnsmessage.TypeA).Questions}).Pack()
	c.Write(msg)
	start := time.Now()
	if s.ask("udp", "web.", dnsmessage.TypeA); time.Since(start) > patience/2 {
		t.Errorf("an own name waited %v for a silent server", time.Since(start))
	}
	if _, err := c.Read(make([]byte, 512)); err != nil {
		t.Fatal(err)
	}
	s.ask("udp", "again.org.", dnsmessage.TypeA)
	if n := silent.asked.Load(); n != 1 {
		t.Errorf("the silent server was asked %d times", n)
	}
}

// A server of --dns may be one that only the container reaches.
func TestOwnServersAreAskedFromTheSandbox(t *testing.T) {
	u := &upstreamServer{reply: always("192.0.2.7")}
	s := newSite(t, func(c *Config) {
		c.Servers = []netip.Addr{netip.MustParseAddr("127.0.0.99")}
		c.HostFile = "/etc/resolv.conf"
	})
	u.listen(t, s.sandbox, "127.0.0.99")
	for _, proto := range []string{"udp", "tcp"} {
		if r := s.ask(proto, "example.org.", dnsmessage.TypeA); len(r.answers) != 1 {
			t.Errorf("%s: %v", proto, r.code)
		}
	}
}

func TestInternalNetworkAsksNobody(t *testing.T) {
	u := &upstreamServer{reply: always("192.0.2.1")}
	u.listen(t, "", "127.0.0.53")
	host := hostFile(t, "nameserver 127.0.0.53")
	s := newSite(t, func(c *Config) {
		host(c)
		own := c.Networks
		c.Networks = func() ([]Network, error) {
			n, err := own()
			n[0].Internal = true
			return n, err
		}
	})
	if r := s.ask("udp", "example.org.", dnsmessage.TypeA); r.code != dnsmessage.RCodeServerFailure || u.asked.Load() != 0 {
		t.Errorf("code %v, the host's server was asked %d times", r.code, u.asked.Load())
	}
}

func TestTruncatedReplyIsAskedAgainByTCP(t *testing.T) {
	u := &upstreamServer{reply: func(q *dnsmessage.Message, stream bool) *dnsmessage.Message {
		if stream {
			return found(q, "192.0.2.1")
		}
		q.Response, q.Truncated = true, true
		return q
	}}
	u.listen(t, "", "127.0.0.53")
	s := newSite(t, hostFile(t, "nameserver 127.0.0.53"))
	if r := s.ask("udp", "example.org.", dnsmessage.TypeA); !r.Truncated {
		t.Error("udp: the mark is lost")
	}
	if r := s.ask("tcp", "example.org.", dnsmessage.TypeA); len(r.answers) != 1 {
		t.Errorf("tcp: %v", r.code)
	}
}

func TestForgedRepliesAreNotBelieved(t *testing.T) {
	needRoot(t)
	pc, err := net.ListenPacket("udp", "127.0.0.53:53")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	go func() {
		buf := make([]byte, 512)
		n, from, err := pc.ReadFrom(buf)
		if err != nil {
			return
		}
		var q dnsmessage.Message
		q.Unpack(buf[:n])
		send := func(m dnsmessage.Message) {
			b, _ := m.Pack()
			pc.WriteTo(b, from)
		}
		wrong := q
		wrong.ID++
		send(*found(&wrong, "198.51.100.1"))
		other := q
		other.Questions = query("other.org.", dnsmessage.TypeA).Questions
		send(*found(&other, "198.51.100.2"))
		pc.WriteTo([]byte("junk"), from)
		send(*found(&q, "192.0.2.1"))
	}()
	s := newSite(t, hostFile(t, "nameserver 127.0.0.53"))
	if r := s.ask("udp", "example.org.", dnsmessage.TypeA); len(r.answers) != 1 || r.answers[0] != "192.0.2.1" {
		t.Errorf("believed %v", r.answers)
	}
}

// docker: with an ndots of the user's a name without a dot gets a search domain
// first.
func TestSingleNameStaysWithNdots(t *testing.T) {
	u := &upstreamServer{reply: always("192.0.2.1")}
	u.listen(t, "", "127.0.0.53")
	host := hostFile(t, "nameserver 127.0.0.53")
	s := newSite(t, func(c *Config) {
		host(c)
		c.KeepSingle = true
	})
	if r := s.ask("udp", "single.", dnsmessage.TypeA); r.code != 0 || len(r.answers) != 0 || u.asked.Load() != 0 {
		t.Errorf("single. = %v %v, asked %d", r.code, r.answers, u.asked.Load())
	}
	if r := s.ask("udp", "two.words.", dnsmessage.TypeA); len(r.answers) != 1 {
		t.Errorf("two.words. = %v", r.code)
	}
}

func TestParseServers(t *testing.T) {
	got := parseServers([]byte("# c\nnameserver 10.0.0.1\nnameserver fe80::1%eth0\nnameserver\nnameserver localhost\nsearch nameserver 1.1.1.1\n nameserver\t2001:db8::1 # x\n"))
	want := []string{"10.0.0.1", "fe80::1%eth0", "2001:db8::1"}
	if len(got) != len(want) {
		t.Fatalf("servers %v, want %v", got, want)
	}
	for i := range want {
		if got[i].String() != want[i] {
			t.Errorf("server %v, want %v", got[i], want[i])
		}
	}
}

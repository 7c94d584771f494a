package nameserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// site is a sandbox with a running server and one network, "net".
type site struct {
	tb      testing.TB
	sandbox string
	dir     string
}

func newSite(tb testing.TB, change func(*Config)) *site {
	s := &site{tb: tb, sandbox: newSandbox(tb), dir: filepath.Join(tb.TempDir(), "endpoints")}
	c := Config{Sandbox: s.sandbox, Networks: func() ([]Network, error) { return []Network{{Name: "net", Dir: s.dir}}, nil }}
	if change != nil {
		change(&c)
	}
	files, err := Listen(s.sandbox)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- Serve(ctx, c, files) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Error(err)
		}
		for _, f := range files {
			f.Close()
		}
	})
	return s
}

func (s *site) join(id, v4, v6 string, names ...string) {
	s.tb.Helper()
	e := Endpoint{Container: id, Names: names}
	if v4 != "" {
		e.IPv4 = netip.MustParseAddr(v4)
	}
	if v6 != "" {
		e.IPv6 = netip.MustParseAddr(v6)
	}
	if err := e.Publish(s.dir); err != nil {
		s.tb.Fatal(err)
	}
}

// reply is what a client sees.
type reply struct {
	dnsmessage.Message
	code    dnsmessage.RCode
	answers []string
}

func (s *site) dial(proto string) net.Conn {
	s.tb.Helper()
	c, err := dialInside(context.Background(), s.sandbox, proto, Address+":53")
	if err != nil {
		s.tb.Fatal(err)
	}
	s.tb.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(30 * time.Second))
	return c
}

func query(name string, kind dnsmessage.Type) dnsmessage.Message {
	return dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 4711, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET}},
	}
}

// ask asks as a resolver library would, by udp or tcp.
func (s *site) ask(proto, name string, kind dnsmessage.Type) reply {
	s.tb.Helper()
	return exchange(s.tb, s.dial(proto), proto, query(name, kind))
}

func exchange(tb testing.TB, c net.Conn, proto string, q dnsmessage.Message) (r reply) {
	tb.Helper()
	msg, err := q.Pack()
	if err != nil {
		tb.Fatal(err)
	}
	var got []byte
	if proto == "tcp" {
		if err = writeMessage(c, msg); err == nil {
			got, err = readMessage(c)
		}
	} else {
		c.Write(msg)
		got = make([]byte, 65535)
		var n int
		n, err = c.Read(got)
		got = got[:n]
	}
	if err != nil {
		tb.Fatalf("%s %s: %v", proto, q.Questions[0].Name, err)
	}
	if err := r.Unpack(got); err != nil {
		tb.Fatalf("%s: reply %x: %v", q.Questions[0].Name, got, err)
	}
	if r.ID != q.ID || !r.Response {
		tb.Errorf("%s: header %v", q.Questions[0].Name, r.Header)
	}
	r.code = r.RCode
	for _, a := range r.Answers {
		switch b := a.Body.(type) {
		case *dnsmessage.AResource:
			r.answers = append(r.answers, netip.AddrFrom4(b.A).String())
		case *dnsmessage.AAAAResource:
			r.answers = append(r.answers, netip.AddrFrom16(b.AAAA).String())
		case *dnsmessage.PTRResource:
			r.answers = append(r.answers, b.PTR.String())
		}
	}
	return r
}

func TestNamesOfTheNetwork(t *testing.T) {
	s := newSite(t, func(c *Config) {
		own := c.Networks
		c.Networks = func() ([]Network, error) {
			n, err := own()
			n[0].Links = map[string]string{"db": "Postgres"}
			return n, err
		}
	})
	s.join("0123456789abcdef", "172.18.0.2", "fd00::2", "web", "0123456789ab", "www")
	s.join("fedcba9876543210", "172.18.0.3", "", "Postgres", "fedcba987654")
	for _, c := range []struct {
		name string
		kind dnsmessage.Type
		want string
	}{
		{"web.", dnsmessage.TypeA, "172.18.0.2"},
		{"WeB.", dnsmessage.TypeA, "172.18.0.2"},
		{"web.net.", dnsmessage.TypeA, "172.18.0.2"},
		{"web.", dnsmessage.TypeAAAA, "fd00::2"},
		{"0123456789ab.", dnsmessage.TypeA, "172.18.0.2"},
		{"www.net.", dnsmessage.TypeA, "172.18.0.2"},
		{"postgres.", dnsmessage.TypeA, "172.18.0.3"},
		{"postgres.", dnsmessage.TypeAAAA, ""}, // docker: the name exists
		{"postgres.", dnsmessage.TypeMX, ""},
		{"db.", dnsmessage.TypeA, "172.18.0.3"},
		{"2.0.18.172.in-addr.arpa.", dnsmessage.TypePTR, "web.net."},
		{"2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.", dnsmessage.TypePTR, "web.net."},
	} {
		for _, proto := range []string{"udp", "tcp"} {
			r := s.ask(proto, c.name, c.kind)
			if got := strings.Join(r.answers, " "); r.code != 0 || got != c.want {
				t.Errorf("%s %s %v = %v %q, want %q", proto, c.name, c.kind, r.code, got, c.want)
			}
			if q := r.Questions[0].Name.String(); q != c.name {
				t.Errorf("%s: the reply's question is %s", c.name, q)
			}
		}
	}
}

func TestNamesComeAndVanish(t *testing.T) {
	s := newSite(t, nil)
	for i := range 50 {
		id := fmt.Sprintf("%064d", i)
		s.join(id, "172.18.0.2", "", "web")
		if r := s.ask("udp", "web.", dnsmessage.TypeA); len(r.answers) != 1 {
			t.Fatalf("round %d: joined, but the answer is %v", i, r.code)
		}
		s.join(id, "172.18.0.9", "", "web")
		if r := s.ask("udp", "web.", dnsmessage.TypeA); len(r.answers) != 1 || r.answers[0] != "172.18.0.9" {
			t.Fatalf("round %d: has another address, but the answer is %v", i, r.answers)
		}
		if err := Withdraw(s.dir, id); err != nil {
			t.Fatal(err)
		}
		if r := s.ask("udp", "web.", dnsmessage.TypeA); r.code != dnsmessage.RCodeServerFailure {
			t.Fatalf("round %d: left, but the answer is %v %v", i, r.code, r.answers)
		}
	}
	if err := Withdraw(s.dir, "never"); err != nil {
		t.Error(err)
	}
}

func TestJoinedNetworksChange(t *testing.T) {
	record := filepath.Join(t.TempDir(), "sandbox.json")
	var mu sync.Mutex
	var joined []Network
	s := newSite(t, func(c *Config) {
		c.Record = record
		c.Networks = func() ([]Network, error) {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(joined), nil
		}
	})
	s.join("a", "172.18.0.2", "", "web")
	if r := s.ask("udp", "web.", dnsmessage.TypeA); len(r.answers) != 0 {
		t.Errorf("not joined, but %v", r.answers)
	}
	mu.Lock()
	joined = []Network{{Name: "net", Dir: s.dir}}
	mu.Unlock()
	if err := os.WriteFile(record, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := s.ask("udp", "web.", dnsmessage.TypeA); len(r.answers) != 1 {
		t.Errorf("joined, but %v", r.code)
	}
}

func TestSharedAliasTakesTurns(t *testing.T) {
	s := newSite(t, nil)
	for i := range 3 {
		s.join(fmt.Sprintf("c%d", i), fmt.Sprintf("172.18.0.%d", 2+i), "", fmt.Sprintf("web%d", i), "web")
	}
	first := map[string]int{}
	for range 30 {
		r := s.ask("udp", "web.", dnsmessage.TypeA)
		if len(r.answers) != 3 {
			t.Fatalf("answers %v, want three", r.answers)
		}
		first[r.answers[0]]++
	}
	for _, a := range []string{"172.18.0.2", "172.18.0.3", "172.18.0.4"} {
		if first[a] < 8 {
			t.Errorf("%s came first %d times of 30", a, first[a])
		}
	}
}

func TestLongAnswerIsCutForUDP(t *testing.T) {
	s := newSite(t, nil)
	for i := range 100 {
		s.join(fmt.Sprintf("c%d", i), fmt.Sprintf("172.18.1.%d", i), "", fmt.Sprintf("w%d", i), "web")
	}
	if r := s.ask("udp", "web.", dnsmessage.TypeA); !r.Truncated || len(r.answers) == 0 {
		t.Errorf("512 bytes: truncated %v with %d answers", r.Truncated, len(r.answers))
	}
	if r := s.ask("tcp", "web.", dnsmessage.TypeA); r.Truncated || len(r.answers) != 100 {
		t.Errorf("tcp: truncated %v with %d answers", r.Truncated, len(r.answers))
	}
	q := query("web.", dnsmessage.TypeA)
	q.Additionals = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: rootName(), Type: dnsmessage.TypeOPT, Class: 4096}, Body: &dnsmessage.OPTResource{}}}
	r := exchange(t, s.dial("udp"), "udp", q)
	if r.Truncated || len(r.answers) != 100 || len(r.Additionals) != 1 {
		t.Errorf("EDNS of 4096 bytes: truncated %v, %d answers, %d additional", r.Truncated, len(r.answers), len(r.Additionals))
	}
}

// A container may be a name server itself: port 53 of all its addresses is its own.
func TestContainerMayHavePort53(t *testing.T) {
	s := newSite(t, nil)
	s.join("a", "172.18.0.2", "", "web")
	err := inside(s.sandbox, func() error {
		pc, err := net.ListenPacket("udp4", "0.0.0.0:53")
		if err != nil {
			return err
		}
		t.Cleanup(func() { pc.Close() })
		l, err := net.Listen("tcp4", "0.0.0.0:53")
		if err != nil {
			return err
		}
		t.Cleanup(func() { l.Close() })
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, proto := range []string{"udp", "tcp"} {
		if r := s.ask(proto, "web.", dnsmessage.TypeA); len(r.answers) != 1 {
			t.Errorf("%s: %v", proto, r.code)
		}
	}
}

func TestServerMayBeginAnewInASandbox(t *testing.T) {
	sandbox := newSandbox(t)
	for range 2 {
		files, err := Listen(sandbox)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			f.Close()
		}
	}
}

// What is asked before Serve runs is answered when it does: the first process of
// a container may be that fast.
func TestQuestionBeforeServe(t *testing.T) {
	sandbox := newSandbox(t)
	files, err := Listen(sandbox)
	if err != nil {
		t.Fatal(err)
	}
	s := &site{tb: t, sandbox: sandbox}
	c := s.dial("udp")
	msg, _ := (&dnsmessage.Message{Header: dnsmessage.Header{ID: 1}, Questions: query("a.", dnsmessage.TypeA).Questions}).Pack()
	if _, err := c.Write(msg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- Serve(ctx, Config{}, files) }()
	if _, err := c.Read(make([]byte, 512)); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestManyIdleStreams(t *testing.T) {
	s := newSite(t, nil)
	s.join("a", "172.18.0.2", "", "web")
	for range 100 {
		s.dial("tcp")
	}
	var took []time.Duration
	c := s.dial("udp")
	for range 500 {
		start := time.Now()
		exchange(t, c, "udp", query("web.", dnsmessage.TypeA))
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	t.Logf("median %v, 99th percentile %v", took[250], took[495])
	if took[250] > 20*time.Millisecond {
		t.Errorf("median %v beside idle connections", took[250])
	}
	for range maxStreams { // over the bound: refused, and nothing else suffers
		s.dial("tcp")
	}
	if r := s.ask("udp", "web.", dnsmessage.TypeA); len(r.answers) != 1 {
		t.Errorf("with too many streams: %v", r.code)
	}
}

func TestMalformedQuestions(t *testing.T) {
	s := newSite(t, nil)
	c := s.dial("udp")
	for _, msg := range []string{"", "x", strings.Repeat("\x00", 11), strings.Repeat("\xff", 12), strings.Repeat("\x00", 12), "\x00\x01\x80\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x00\x00\x01\x00\x01"} {
		c.Write([]byte(msg))
	}
	q := query("a.", dnsmessage.TypeA)
	good, _ := q.Pack()
	c.Write(good)
	for buf := make([]byte, 512); ; { // errors to some, silence to others; then the good one is answered
		n, err := c.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		if n > 12 && buf[1] == byte(q.ID&0xff) {
			return
		}
	}
}

func TestListenInNoSandbox(t *testing.T) {
	if _, err := Listen(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("err = %v, want one of a missing file", err)
	}
}

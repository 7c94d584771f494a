package nameserver

import (
	"encoding/binary"
	"net/netip"
	"path/filepath"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// newQuiet is a server without sockets that knows n names.
func newQuiet(tb testing.TB, n int) *server {
	tb.Helper()
	dir := filepath.Join(tb.TempDir(), "endpoints")
	addr := netip.MustParseAddr("172.18.0.2")
	for i := range n {
		id := string(rune('a'+i%26)) + netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}).String()
		if err := (Endpoint{Container: id, Names: []string{"web" + id, id, "web"}, IPv4: addr}).Publish(dir); err != nil {
			tb.Fatal(err)
		}
		addr = addr.Next()
	}
	s := &server{Config: Config{Networks: func() ([]Network, error) { return []Network{{Name: "net", Dir: dir}}, nil }}}
	s.zone.config = &s.Config
	return s
}

// FuzzAnswer: whatever a container sends, a reply is to its question, fits, and
// is none to a reply.
func FuzzAnswer(f *testing.F) {
	s := newQuiet(f, 60)
	for _, name := range []string{"web.", "WEB.net.", "other.org.", "2.0.18.172.in-addr.arpa.", "."} {
		q := query(name, dnsmessage.TypeA)
		q.Additionals = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: rootName(), Type: dnsmessage.TypeOPT, Class: 1232}, Body: &dnsmessage.OPTResource{}}}
		msg, _ := q.Pack()
		f.Add(msg)
		f.Add(msg[:len(msg)-3])
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		for _, stream := range []bool{false, true} {
			a := s.answer(msg, nil, stream)
			if a.forward && len(a.reply) > 0 {
				t.Error("replied and forwarded")
			}
			if len(a.reply) == 0 {
				continue
			}
			if len(a.reply) < 12 || a.reply[0] != msg[0] || a.reply[1] != msg[1] || a.reply[2]&0x80 == 0 || msg[2]&0x80 != 0 {
				t.Errorf("reply %x to %x", a.reply, msg)
			}
			var r dnsmessage.Message
			if err := r.Unpack(a.reply); err != nil {
				t.Errorf("reply %x: %v", a.reply, err)
			}
			if r0, _ := readRequest(msg); r0 != nil && !stream && len(a.reply) > r0.size {
				t.Errorf("%d bytes where %d fit", len(a.reply), r0.size)
			}
		}
	})
}

// FuzzReply: nothing that a server sends is believed without the question's
// number and the question itself.
func FuzzReply(f *testing.F) {
	q := query("example.org.", dnsmessage.TypeA)
	msg, _ := q.Pack()
	asked, _ := question(msg)
	good, _ := found(&q, "192.0.2.1").Pack()
	f.Add(good)
	f.Add(cut(append([]byte(nil), good...), asked))
	f.Fuzz(func(t *testing.T, got []byte) {
		if !isReply(got, msg, asked) {
			return
		}
		if binary.BigEndian.Uint16(got) != q.ID || got[2]&0x80 == 0 {
			t.Errorf("believed %x", got)
		}
		cut(got, asked)
	})
}

func FuzzReverse(f *testing.F) {
	f.Add([]byte("2.0.18.172.in-addr.arpa"))
	f.Add([]byte("2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa"))
	f.Fuzz(func(t *testing.T, name []byte) {
		if a, ok := reverse(name); ok != a.IsValid() {
			t.Errorf("reverse(%q) = %v, %v", name, a, ok)
		}
	})
}

// BenchmarkAnswer is a question about one of 200 names, without the sockets.
func BenchmarkAnswer(b *testing.B) {
	s := newQuiet(b, 200)
	q := query("webe10.0.0.4.", dnsmessage.TypeA)
	msg, _ := q.Pack()
	buf := make([]byte, 0, maxQuestion)
	if a := s.answer(msg, buf, false); a.forward {
		b.Fatal("not known")
	}
	b.ReportAllocs()
	for b.Loop() {
		s.answer(msg, buf, false)
	}
}

// BenchmarkLookup is the whole of it: client, sandbox, server, 200 names.
func BenchmarkLookup(b *testing.B) {
	s := newSite(b, nil)
	for i := range 200 {
		s.join(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}).String(), "172.18.0.2", "", "web"+string(rune('a'+i%26)))
	}
	c := s.dial("udp")
	q := query("webx.", dnsmessage.TypeA)
	msg, _ := q.Pack()
	buf := make([]byte, 512)
	for b.Loop() {
		c.Write(msg)
		if _, err := c.Read(buf); err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzHostServers(f *testing.F) {
	f.Add([]byte("nameserver 127.0.0.53\nnameserver fe80::1%eth0\nnameserver x\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, a := range parseServers(data) {
			if !a.IsValid() {
				t.Errorf("%q: %v", data, a)
			}
		}
	})
}

package network

import (
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

func FuzzParsePort(f *testing.F) {
	for _, s := range []string{"80", "8080:80/udp", "127.0.0.1::80", "[::1]:8080-8090:80-90/tcp", "1-65535", "0:0", ":", "[]:1:1", "80/sctp"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		list, err := ParsePort(s)
		if err != nil {
			return
		}
		for _, b := range list {
			if b.ContainerPort == 0 || b.Proto != "tcp" && b.Proto != "udp" && b.Proto != "sctp" || b.HostLast != 0 && b.HostLast < b.HostPort {
				t.Errorf("%q: %+v", s, b)
			}
			if _, err := netip.ParseAddr(b.HostIP); b.HostIP != "" && err != nil {
				t.Errorf("%q: host address %q", s, b.HostIP)
			}
		}
	})
}

// What is written of a resolv.conf means the same as what was read.
func FuzzResolvConf(f *testing.F) {
	f.Add([]byte("nameserver 127.0.0.53\nsearch a b\noptions ndots:5 edns0\n"))
	f.Add([]byte("nameserver fe80::1%eth0\n\nnameserver\ndomain x\noptions\n"))
	f.Add([]byte("search .\n"))
	file := filepath.Join(f.TempDir(), "resolv.conf")
	read := func(t *testing.T, data []byte) resolver {
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := readResolver(file)
		if err != nil {
			t.Skip(err)
		}
		return r
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r := read(t, data)
		if len(r.search) == 1 && r.search[0] == "." {
			r.search = nil
		}
		if again := read(t, []byte(r.text())); !reflect.DeepEqual(r, again) {
			t.Errorf("%q: %+v, then %+v", data, r, again)
		}
	})
}

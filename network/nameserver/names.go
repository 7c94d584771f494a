package nameserver

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/kist-containers/kist/internal/state"
)

// An Endpoint is a file DIR/CONTAINER.json of a network: the names of a
// container's leg in it.
type Endpoint struct {
	Version   int    `json:"version"`
	Container string `json:"container"`
	// Names are the container's name first, then its short id, host name, aliases.
	Names []string `json:"names"`
	// IPv4 and IPv6 are invalid where there is none.
	IPv4 netip.Addr `json:"ipv4,omitzero"`
	IPv6 netip.Addr `json:"ipv6,omitzero"`
}

// Publish makes e known in the network whose directory is dir.
func (e Endpoint) Publish(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	e.Version = 1
	return state.WriteVolatileJSON(filepath.Join(dir, e.Container+".json"), e)
}

// Update is Publish if what is known differs.
func (e Endpoint) Update(dir string) error {
	e.Version = 1
	was, ok := readEndpoint(filepath.Join(dir, e.Container+".json"))
	if ok && was.IPv4 == e.IPv4 && was.IPv6 == e.IPv6 && slices.Equal(was.Names, e.Names) {
		return nil
	}
	return e.Publish(dir)
}

// Withdraw makes a container unknown in a network. It succeeds when it is.
func Withdraw(dir, container string) error {
	err := os.Remove(filepath.Join(dir, container+".json"))
	if os.IsNotExist(err) {
		return nil
	}
	return err
}

// host is all that is known of a name.
type host struct {
	v4, v6 []netip.Addr
	turn   atomic.Uint32
}

// next is which of n addresses comes first this time.
func (h *host) next(n int) int {
	if n < 2 {
		return 0
	}
	return int(h.turn.Add(1) % uint32(n))
}

// table is what is known at one time.
type table struct {
	names    map[string]*host
	reverse  map[netip.Addr]dnsmessage.Name
	internal bool // no network leads outside
}

func (t *table) lookup(name []byte) *host { return t.names[string(name)] }

// stamp tells two states of a file or directory apart.
type stamp struct {
	nanoseconds int64
	inode       uint64
}

// fresh is for how long after a change another one may have the same stamp: two
// ticks of the slowest kernel's clock.
const fresh = 20 * time.Millisecond

// settled reports whether a later change is sure to have another stamp.
func (s stamp) settled() bool {
	return s.nanoseconds == 0 || time.Since(time.Unix(0, s.nanoseconds)) > fresh
}

// add puts a network into the table: the first network that has a name
// is the one that counts.
func (t *table) add(n Network, endpoints []Endpoint) {
	mine := map[string]*host{}
	for _, e := range endpoints {
		for _, name := range e.Names {
			name = strings.ToLower(name)
			put(mine, name, e)
			put(mine, name+"."+strings.ToLower(n.Name), e)
		}
		t.addReverse(n, e)
	}
	for alias, name := range n.Links {
		if h := mine[strings.ToLower(name)]; h != nil {
			mine[strings.ToLower(alias)] = h
		}
	}
	for name, h := range mine {
		if t.names[name] == nil {
			t.names[name] = h
		}
	}
}

func put(m map[string]*host, name string, e Endpoint) {
	h := m[name]
	if h == nil {
		h = new(host)
		m[name] = h
	}
	if e.IPv4.IsValid() {
		h.v4 = appendNew(h.v4, e.IPv4)
	}
	if e.IPv6.IsValid() {
		h.v6 = appendNew(h.v6, e.IPv6)
	}
}

func appendNew(list []netip.Addr, a netip.Addr) []netip.Addr {
	for _, b := range list {
		if a == b {
			return list
		}
	}
	return append(list, a)
}

func (t *table) addReverse(n Network, e Endpoint) {
	if len(e.Names) == 0 {
		return
	}
	name, err := dnsmessage.NewName(e.Names[0] + "." + n.Name + ".")
	if err != nil {
		return // too long to be an answer
	}
	for _, a := range []netip.Addr{e.IPv4, e.IPv6} {
		if _, known := t.reverse[a]; a.IsValid() && !known {
			t.reverse[a] = name
		}
	}
}

// reverse reads a name such as 4.3.2.1.in-addr.arpa or that of IPv6 (RFC 1035,
// section 3.5; RFC 3596, section 2.5).
func reverse(name []byte) (netip.Addr, bool) {
	s := string(name)
	if rest, ok := strings.CutSuffix(s, ".in-addr.arpa"); ok {
		parts := strings.Split(rest, ".")
		if len(parts) != 4 {
			return netip.Addr{}, false
		}
		a, err := netip.ParseAddr(parts[3] + "." + parts[2] + "." + parts[1] + "." + parts[0])
		return a, err == nil && a.Is4()
	}
	rest, ok := strings.CutSuffix(s, ".ip6.arpa")
	if !ok || len(rest) != 63 {
		return netip.Addr{}, false
	}
	var b [16]byte
	for i := range 32 {
		n, err := strconv.ParseUint(rest[2*i:2*i+1], 16, 8)
		if err != nil || i < 31 && rest[2*i+1] != '.' {
			return netip.Addr{}, false
		}
		b[15-i/2] |= byte(n) << (4 * (i % 2))
	}
	return netip.AddrFrom16(b), true
}

// readEndpoint reads one file. A file that is gone, or is not one, names nobody.
func readEndpoint(path string) (Endpoint, bool) {
	var e Endpoint
	data, err := os.ReadFile(path)
	if err != nil || json.Unmarshal(data, &e) != nil {
		return e, false
	}
	e.IPv4, e.IPv6 = e.IPv4.Unmap(), e.IPv6.WithZone("")
	return e, true
}

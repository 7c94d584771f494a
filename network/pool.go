package network

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"iter"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
)

// A family is one address family's part of a network.
type family struct {
	v6                       bool
	subnet, gateway, ipRange *string
	chosen                   *bool
}

// families are those that the network has addresses of.
func (n *Network) families() (list []family) {
	if !n.NoIPv4 {
		list = append(list, family{false, &n.Subnet, &n.Gateway, &n.IPRange, &n.Chosen})
	}
	if n.IPv6 {
		list = append(list, family{true, &n.Subnet6, &n.Gateway6, &n.IPRange6, &n.Chosen6})
	}
	return list
}

func (f family) pool() netip.Prefix { return netip.MustParsePrefix(*f.subnet) }

// name is the family's for people.
func (f family) name() string {
	if f.v6 {
		return "IPv6"
	}
	return "IPv4"
}

// prefixes are the network's subnets.
func (n *Network) prefixes() (list []netip.Prefix) {
	if n.ConfigOnly {
		return nil
	}
	for _, f := range n.families() {
		if *f.subnet != "" {
			list = append(list, f.pool())
		}
	}
	return list
}

// A poolRange is addresses that networks without --subnet are cut from, each of
// the given number of bits.
type poolRange struct {
	base netip.Prefix
	bits int
}

// defaultPools are docker's, in its order: /16 from 172.17 to 172.31, then /20 of
// 192.168, and for IPv6 /64 of this host's own unique local addresses (RFC 4193).
func defaultPools() []poolRange {
	var list []poolRange
	for b := byte(17); b <= 31; b++ {
		list = append(list, poolRange{netip.PrefixFrom(netip.AddrFrom4([4]byte{172, b, 0, 0}), 16), 16})
	}
	return append(list, poolRange{netip.MustParsePrefix("192.168.0.0/16"), 20}, poolRange{uniqueLocal(), 64})
}

// uniqueLocal is made of what tells this host from others, as docker does.
func uniqueLocal() netip.Prefix {
	id, err := os.ReadFile("/etc/machine-id")
	if err != nil {
		name, _ := os.Hostname() // without either all hosts are alike, and still right
		id = []byte(name)
	}
	sum := sha256.Sum256(id)
	a := [16]byte{0xfd}
	copy(a[1:6], sum[:])
	return netip.PrefixFrom(netip.AddrFrom16(a), 48)
}

// parsePools reads BASE:SIZE[,BASE:SIZE]…, such as 10.9.0.0/16:24: what docker has
// as default-address-pools. "" is none.
func parsePools(s string) (list []poolRange, err error) {
	for _, w := range strings.FieldsFunc(s, func(r rune) bool { return r == ',' }) {
		i := strings.LastIndexByte(w, ':')
		base, err := netip.ParsePrefix(w[:max(i, 0)])
		bits, err2 := strconv.Atoi(w[i+1:])
		if err != nil || err2 != nil || base.Masked() != base || bits < base.Bits() || bits > base.Addr().BitLen()-2 {
			return nil, fmt.Errorf("address pool %s: want BASE:SIZE such as 10.9.0.0/16:24", w)
		}
		list = append(list, poolRange{base, bits})
	}
	return list, nil
}

// subnets are the pieces of the range, in order.
func (r poolRange) subnets() iter.Seq[netip.Prefix] {
	return func(yield func(netip.Prefix) bool) {
		for p := netip.PrefixFrom(r.base.Addr(), r.bits); r.base.Contains(p.Addr()); {
			if !yield(p) {
				return
			}
			next := last(p).Next()
			if !next.IsValid() {
				return
			}
			p = netip.PrefixFrom(next, r.bits)
		}
	}
}

// freePool is the first pool of the family that no network has and no route of the
// host overlaps: a VPN's, or another engine's.
func (m *Manager) freePool(v6 bool, networks []*Network) (netip.Prefix, error) {
	ranges, err := parsePools(m.o.AddressPools)
	if err != nil {
		return netip.Prefix{}, err
	}
	ofFamily := func(r poolRange) bool { return r.base.Addr().Is6() == v6 }
	if !slices.ContainsFunc(ranges, ofFamily) {
		ranges = defaultPools()
	}
	taken, err := hostPrefixes()
	if err != nil {
		return netip.Prefix{}, err
	}
	for _, n := range networks {
		taken = append(taken, n.prefixes()...)
	}
	for _, r := range ranges {
		if !ofFamily(r) {
			continue
		}
		for p := range r.subnets() {
			if !overlapsAny(p, taken) {
				return p, nil
			}
		}
	}
	return netip.Prefix{}, errors.New("every address pool is in use by a network or a route of this host (give --subnet, or more pools by --address-pools)")
}

func overlapsAny(p netip.Prefix, list []netip.Prefix) bool {
	return slices.ContainsFunc(list, p.Overlaps)
}

// hostPrefixes are the destinations that the host routes specially, and the
// addresses of its links.
func hostPrefixes() ([]netip.Prefix, error) {
	var list []netip.Prefix
	add := func(n *net.IPNet) {
		if n == nil {
			return
		}
		addr, ok := netip.AddrFromSlice(n.IP)
		ones, _ := n.Mask.Size()
		if ok && ones > 0 {
			list = append(list, netip.PrefixFrom(addr.Unmap(), ones).Masked())
		}
	}
	routes, err := whole(func() ([]netlink.Route, error) { return netlink.RouteList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		add(r.Dst)
	}
	addrs, err := whole(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		add(a.IPNet)
	}
	return list, nil
}

// settlePools chooses or checks subnets, gateways and ranges.
func (m *Manager) settlePools(n *Network, others []*Network) error {
	for _, f := range n.families() {
		if *f.subnet == "" {
			if *f.ipRange != "" || *f.gateway != "" {
				return fmt.Errorf("--gateway and --ip-range need an %s --subnet that they are in", f.name())
			}
			pool, err := m.freePool(f.v6, others)
			if err != nil {
				return err
			}
			*f.subnet, *f.chosen = pool.String(), true
		}
		if err := n.checkPool(f, others); err != nil {
			return err
		}
	}
	return n.checkReserved()
}

// checkPool checks one family's addresses.
func (n *Network) checkPool(f family, others []*Network) error {
	pool, err := netip.ParsePrefix(*f.subnet)
	if err != nil || pool.Addr().Is6() != f.v6 || pool.Masked() != pool || pool.Bits() > pool.Addr().BitLen()-2 || pool.Bits() == 0 || pool.Addr().IsLinkLocalUnicast() || pool.Addr().IsMulticast() {
		example := "172.30.0.0/16"
		if f.v6 {
			example = "fd00:30::/64"
		}
		return fmt.Errorf("--subnet %s: want an %s network such as %s", *f.subnet, f.name(), example)
	}
	for _, o := range others {
		for _, theirs := range o.prefixes() {
			if theirs.Overlaps(pool) {
				return fmt.Errorf("--subnet %s: pool overlaps with %s of network %s", *f.subnet, theirs, o.Name)
			}
		}
	}
	// Of what other drivers join, the host may be a part itself. A chosen pool was free
	// a moment ago; who joins it first chooses again if another root took it since.
	if n.driverName() == "bridge" && !*f.chosen {
		taken, err := hostPrefixes()
		if err != nil {
			return err
		}
		if overlapsAny(pool, taken) {
			return fmt.Errorf("--subnet %s: pool overlaps with a route of this host", *f.subnet)
		}
	}
	if *f.gateway == "" {
		*f.gateway = pool.Addr().Next().String()
	}
	if a, err := netip.ParseAddr(*f.gateway); err != nil || !pool.Contains(a) {
		return fmt.Errorf("--gateway %s: not an address of %s", *f.gateway, *f.subnet)
	}
	if r, err := netip.ParsePrefix(*f.ipRange); *f.ipRange != "" && (err != nil || !pool.Overlaps(r) || r.Bits() < pool.Bits()) {
		return fmt.Errorf("--ip-range %s: not a part of %s", *f.ipRange, *f.subnet)
	}
	return nil
}

func (n *Network) checkReserved() error {
	for name, s := range n.Reserved {
		a, err := netip.ParseAddr(s)
		if err != nil || !slices.ContainsFunc(n.prefixes(), func(p netip.Prefix) bool { return p.Contains(a) }) {
			return fmt.Errorf("--aux-address %s %s: not an address of %v", name, s, n.prefixes())
		}
	}
	return nil
}

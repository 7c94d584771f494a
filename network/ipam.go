package network

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
)

// pools are docker's, in its order: /16 from 172.17 to 172.31, then /20 of 192.168.
func pools() []netip.Prefix {
	var list []netip.Prefix
	for b := byte(17); b <= 31; b++ {
		list = append(list, netip.PrefixFrom(netip.AddrFrom4([4]byte{172, b, 0, 0}), 16))
	}
	for b := 0; b < 256; b += 16 {
		list = append(list, netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, byte(b), 0}), 20))
	}
	return list
}

// freePool is the first pool that no route of the host overlaps: a VPN, or
// another engine's bridge.
func freePool(networks []*Network) (netip.Prefix, error) {
	taken, err := hostPrefixes()
	if err != nil {
		return netip.Prefix{}, err
	}
	for _, n := range networks {
		if n.Subnet != "" {
			taken = append(taken, netip.MustParsePrefix(n.Subnet))
		}
	}
	for _, p := range pools() {
		if !overlapsAny(p, taken) {
			return p, nil
		}
	}
	return netip.Prefix{}, errors.New("every address pool overlaps a route of this host")
}

func overlapsAny(p netip.Prefix, list []netip.Prefix) bool {
	for _, o := range list {
		if o.Overlaps(p) {
			return true
		}
	}
	return false
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
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		add(r.Dst)
	}
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		add(a.IPNet)
	}
	return list, nil
}

// lease gives id an address of the network: the wanted one, or the lowest free. A
// lease whose sandbox is not there is of before a reboot, or of a command that was
// killed before it made anything. n is locked.
func (m *Manager) lease(n *Network, id, wanted string) (netip.Prefix, error) {
	m.dropStale(n, id)
	pool := netip.MustParsePrefix(n.Subnet)
	addr, ok := n.lowestFree()
	if wanted != "" {
		var err error
		if addr, err = n.wanted(pool, wanted); err != nil {
			return netip.Prefix{}, err
		}
	} else if !ok {
		return netip.Prefix{}, fmt.Errorf("network %s: no free address in %s", n.Name, n.Subnet)
	}
	if n.Leases == nil {
		n.Leases = map[string]string{}
	}
	n.Leases[addr.String()] = id
	return netip.PrefixFrom(addr, pool.Bits()), m.writeNetwork(n)
}

// wanted is the address of --ip.
func (n *Network) wanted(pool netip.Prefix, s string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(s)
	switch {
	case err != nil:
		return addr, fmt.Errorf("--ip %s: not an IP address", s)
	case n.Name == DefaultBridge:
		return addr, fmt.Errorf("--ip %s: the default bridge gives addresses itself: make a network of your own", s)
	case !pool.Contains(addr):
		return addr, fmt.Errorf("--ip %s: not in %s, the subnet of network %s", s, n.Subnet, n.Name)
	case addr.String() == n.Gateway || addr == pool.Addr() || addr == last(pool) || n.Leases[s] != "" || n.reserved(addr):
		return addr, fmt.Errorf("--ip %s: address is in use in network %s", s, n.Name)
	}
	return addr, nil
}

func (n *Network) reserved(a netip.Addr) bool {
	for _, aux := range n.Reserved {
		if aux == a.String() {
			return true
		}
	}
	return false
}

func (m *Manager) dropStale(n *Network, id string) {
	for addr, holder := range n.Leases {
		if _, err := os.Stat(m.sandboxFile(holder)); holder == id || errors.Is(err, os.ErrNotExist) {
			delete(n.Leases, addr)
		}
	}
}

// lowestFree is the lowest address of the range that is neither the network's own,
// nor its broadcast address, nor the gateway, nor reserved, nor leased.
func (n *Network) lowestFree() (netip.Addr, bool) {
	pool := netip.MustParsePrefix(n.Subnet)
	within := pool
	if n.IPRange != "" {
		within = netip.MustParsePrefix(n.IPRange)
	}
	gateway, _ := netip.ParseAddr(n.Gateway)
	for a := within.Addr(); within.Contains(a); a = a.Next() {
		if _, taken := n.Leases[a.String()]; a != pool.Addr() && a != last(pool) && a != gateway && !taken && !n.reserved(a) {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// last is the broadcast address of an IPv4 pool.
func last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// release gives back the address of id in a network.
func (m *Manager) release(ctx context.Context, network, id string) error {
	l, err := m.lock(ctx, network)
	if err != nil {
		return err
	}
	defer l.Unlock()
	n, err := m.readNetwork(network)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	found := false
	for addr, holder := range n.Leases {
		if holder == id {
			delete(n.Leases, addr)
			found = true
			if n.stored() {
				m.unclaim(ctx, n, addr)
			}
		}
	}
	if !found {
		return nil
	}
	return m.writeNetwork(n)
}

func setMAC(h *netlink.Handle, link netlink.Link, mac string) error {
	hw, err := net.ParseMAC(mac)
	if err == nil && !bytes.Equal(hw, link.Attrs().HardwareAddr) {
		err = h.LinkSetHardwareAddr(link, hw)
	}
	if err != nil {
		return fmt.Errorf("MAC address %s: %w", mac, err)
	}
	return nil
}

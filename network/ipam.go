package network

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// lease gives the endpoint its addresses of the network: the wanted ones, or the
// lowest free. n is locked.
func (m *Manager) lease(n *Network, id string, e *Endpoint) error {
	if n.Leases == nil {
		n.Leases = map[string]string{}
	}
	maps.DeleteFunc(n.Leases, func(_, holder string) bool { return holder == id })
	m.dropStale(n)
	for _, f := range n.families() {
		wanted, address := e.Wish.IPv4, &e.Address
		if f.v6 {
			wanted, address = e.Wish.IPv6, &e.Address6
		}
		addr, err := n.choose(f, wanted)
		if err != nil {
			return err
		}
		n.Leases[addr.String()] = id
		*address = netip.PrefixFrom(addr, f.pool().Bits()).String()
	}
	return m.writeLeases(n)
}

// choose returns a free address, the wanted one unless that is "".
func (n *Network) choose(f family, wanted string) (netip.Addr, error) {
	if wanted != "" {
		addr, err := n.wanted(f, wanted)
		if err != nil {
			flag := "--ip"
			if f.v6 {
				flag = "--ip6"
			}
			err = fmt.Errorf("%s %s: %w", flag, wanted, err)
		}
		return addr, err
	}
	addr, ok := n.lowestFree(f)
	if !ok {
		return addr, fmt.Errorf("network %s: no free address in %s", n.Name, *f.subnet)
	}
	return addr, nil
}

// wanted is the address of --ip or --ip6.
func (n *Network) wanted(f family, s string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(s)
	pool := f.pool()
	switch {
	case err != nil || addr.Is6() != f.v6 || addr.Zone() != "":
		return addr, fmt.Errorf("not an %s address", f.name())
	case n.Name == DefaultBridge:
		return addr, errors.New("the default bridge gives addresses itself: make a network of your own")
	case !pool.Contains(addr):
		return addr, fmt.Errorf("not in %s, the subnet of network %s", *f.subnet, n.Name)
	case addr.String() == *f.gateway || addr == pool.Addr() || !f.v6 && addr == last(pool) || n.Leases[addr.String()] != "" || n.reserved(addr):
		return addr, fmt.Errorf("address is in use in network %s", n.Name)
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

// dropStale drops the leases whose sandbox is not there: of a command that was killed
// before it made anything.
func (m *Manager) dropStale(n *Network) {
	maps.DeleteFunc(n.Leases, func(_, holder string) bool {
		return unix.Access(m.sandboxFile(holder), unix.F_OK) == unix.ENOENT
	})
}

// lowestFree is the lowest address of the range that is neither the network's own,
// nor IPv4's broadcast address, nor the gateway, nor reserved, nor leased.
func (n *Network) lowestFree(f family) (netip.Addr, bool) {
	pool := f.pool()
	within := pool
	if *f.ipRange != "" {
		within = netip.MustParsePrefix(*f.ipRange)
	}
	gateway, _ := netip.ParseAddr(*f.gateway)
	for a := within.Masked().Addr(); within.Contains(a); a = a.Next() {
		if _, taken := n.Leases[a.String()]; a != pool.Addr() && (f.v6 || a != last(pool)) && a != gateway && !taken && !n.reserved(a) {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// last is the highest address of a pool, of IPv4 the broadcast address.
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
	return m.writeLeases(n)
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

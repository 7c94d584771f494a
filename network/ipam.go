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

// lease gives the endpoint its addresses of the network: the wanted ones, or the
// lowest free. A lease whose sandbox is not there is of before a reboot, or of a
// command that was killed before it made anything. n is locked.
func (m *Manager) lease(n *Network, id string, e *Endpoint) error {
	m.dropStale(n, id)
	if n.Leases == nil {
		n.Leases = map[string]string{}
	}
	for _, f := range n.families() {
		wanted, flag, address := e.Wish.IPv4, "--ip", &e.Address
		if f.v6 {
			wanted, flag, address = e.Wish.IPv6, "--ip6", &e.Address6
		}
		addr, ok := n.lowestFree(f)
		if wanted != "" {
			var err error
			if addr, err = n.wanted(f, wanted); err != nil {
				return fmt.Errorf("%s %s: %w", flag, wanted, err)
			}
		} else if !ok {
			return fmt.Errorf("network %s: no free address in %s", n.Name, *f.subnet)
		}
		n.Leases[addr.String()] = id
		*address = netip.PrefixFrom(addr, f.pool().Bits()).String()
	}
	return m.writeLeases(n)
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

func (m *Manager) dropStale(n *Network, id string) {
	for addr, holder := range n.Leases {
		if _, err := os.Stat(m.sandboxFile(holder)); holder == id || errors.Is(err, os.ErrNotExist) {
			delete(n.Leases, addr)
		}
	}
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

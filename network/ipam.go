package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"

	"github.com/kist-containers/kist/internal/state"
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
func freePool() (netip.Prefix, error) {
	taken, err := hostPrefixes()
	if err != nil {
		return netip.Prefix{}, err
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

// lease gives id the lowest free address of the network. A lease whose sandbox
// is not there is of before a reboot, or of a command that was killed before it
// made anything.
func (m *Manager) lease(ctx context.Context, b *bridge, id string) (Endpoint, error) {
	l, err := m.lock(ctx)
	if err != nil {
		return Endpoint{}, err
	}
	defer l.Unlock()
	index := b.index
	if b, err = m.readBridge(); err != nil {
		return Endpoint{}, err
	}
	b.index = index
	m.dropStale(b, id)
	pool := netip.MustParsePrefix(b.Subnet)
	addr, ok := lowestFree(pool, netip.MustParseAddr(b.Gateway), b.Leases)
	if !ok {
		return Endpoint{}, fmt.Errorf("network %s: no free address in %s", b.Name, b.Subnet)
	}
	if b.Leases == nil {
		b.Leases = map[string]string{}
	}
	b.Leases[addr.String()] = id
	// The sandbox's file first: from here on the lease has an owner.
	if err := m.record(&Sandbox{Version: 1, ID: id}); err != nil {
		return Endpoint{}, err
	}
	e := Endpoint{Network: b.Name, Bridge: b.Link, HostLink: hostLink(id), Link: "eth0",
		Address: netip.PrefixFrom(addr, pool.Bits()).String(), Gateway: b.Gateway}
	return e, state.WriteJSON(m.bridgeFile(), b)
}

func (m *Manager) dropStale(b *bridge, id string) {
	for addr, holder := range b.Leases {
		if _, err := os.Stat(m.sandboxFile(holder)); holder == id || errors.Is(err, os.ErrNotExist) {
			delete(b.Leases, addr)
		}
	}
}

// lowestFree is the lowest address that is neither the network's own, nor its
// broadcast address, nor the gateway, nor leased.
func lowestFree(pool netip.Prefix, gateway netip.Addr, leases map[string]string) (netip.Addr, bool) {
	for a := pool.Addr().Next(); pool.Contains(a) && pool.Contains(a.Next()); a = a.Next() {
		if _, taken := leases[a.String()]; a != gateway && !taken {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// release gives back the addresses of id.
func (m *Manager) release(ctx context.Context, id string) error {
	l, err := m.lock(ctx)
	if err != nil {
		return err
	}
	defer l.Unlock()
	b, err := m.readBridge()
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	found := false
	for addr, holder := range b.Leases {
		if holder == id {
			delete(b.Leases, addr)
			found = true
		}
	}
	if !found {
		return nil
	}
	return state.WriteJSON(m.bridgeFile(), b)
}

func setMAC(h *netlink.Handle, link netlink.Link, mac string) error {
	hw, err := net.ParseMAC(mac)
	if err == nil {
		err = h.LinkSetHardwareAddr(link, hw)
	}
	if err != nil {
		return fmt.Errorf("MAC address %s: %w", mac, err)
	}
	return nil
}

package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// An overlay is one switch over several hosts: a bridge on each, joined by VXLAN
// (RFC 7348) to the bridges of its peers. Every host gives addresses of a range of
// its own (--ip-range). The network leads to no other one: a container that wants
// the world joins a bridge network too.
type overlayDriver struct{}

var _ driver = overlayDriver{}

const (
	optPeers = "peers"
	optVNI   = "com.docker.network.driver.overlay.vxlanid_list"
	// vxlanPort is IANA's.
	vxlanPort = 4789
	// vxlanRoom is what the outer headers take of a packet: 20 IPv4, 8 UDP, 8 VXLAN,
	// 14 Ethernet; IPv6's header is 20 longer.
	vxlanRoom = 50
)

func (overlayDriver) check(n *Network) error {
	for key := range n.Options {
		if !slices.Contains([]string{optPeers, optVNI, optMTU, optPrefix, optStore, optAdvertise, optEncrypted, optKey, optPort, "store.cacert", "store.cert", "store.key"}, key) {
			return fmt.Errorf("option %s: an overlay network has none such", key)
		}
	}
	if n.Subnet == "" {
		return errors.New("an overlay needs --subnet: all its hosts say the same one")
	}
	n.Link, n.Internal = "ov-"+n.ID[:12], true
	if _, err := n.vni(); err != nil {
		return err
	}
	if n.stored() {
		if _, err := new(Manager).store(n); err != nil {
			return err
		}
	} else if _, err := n.otherPeers(); err != nil {
		return err
	}
	if err := n.checkEncryption(); err != nil || !n.stored() {
		return err
	}
	_, _, _, err := n.underlay()
	return err
}

// flood is the address that stands for all that is not learned yet.
var flood = make(net.HardwareAddr, 6)

func floodTo(link netlink.Link, peer net.IP) *netlink.Neigh {
	if v4 := peer.To4(); v4 != nil {
		peer = v4
	}
	return &netlink.Neigh{
		LinkIndex: link.Attrs().Index, Family: unix.AF_BRIDGE, State: netlink.NUD_PERMANENT | netlink.NUD_NOARP,
		Flags: netlink.NTF_SELF, IP: peer, HardwareAddr: flood,
	}
}

// vni is the number of the network on the wire.
func (n *Network) vni() (int, error) {
	if n.Options[optVNI] == "" {
		return 0, fmt.Errorf("an overlay needs --opt %s=NUMBER: all its hosts say the same one", optVNI)
	}
	v, err := strconv.Atoi(n.Options[optVNI])
	if err != nil || v < 1 || v >= 1<<24 {
		return 0, fmt.Errorf("option %s=%s: want a number of 1 to 16777215", optVNI, n.Options[optVNI])
	}
	return v, nil
}

// peers are the other hosts' addresses.
func (n *Network) peers() (list []netip.Addr, err error) {
	for _, s := range strings.FieldsFunc(n.Options[optPeers], func(r rune) bool { return r == ',' }) {
		a, err := netip.ParseAddr(s)
		if err != nil || a.IsUnspecified() || a.IsMulticast() {
			return nil, fmt.Errorf("option %s: %q is not a host's address", optPeers, s)
		}
		list = append(list, a)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("option %s: an overlay needs the addresses of its other hosts: %s=IP,IP", optPeers, optPeers)
	}
	return list, nil
}

func (n *Network) vxlan() string { return "vx-" + n.ID[:12] }

// ensure is Like: ip link add ov-… type bridge
// ip link add vx-… type vxlan id VNI local ADDRESS dstport 4789
// bridge fdb append 00:00:00:00:00:00 dev vx-… dst PEER
func (overlayDriver) ensure(_ context.Context, m *Manager, n *Network) error {
	there := n.find()
	if there && (n.stored() || !n.encrypted()) {
		return nil
	}
	vni, err := n.vni()
	if err != nil {
		return err
	}
	peers, local, mtu, err := n.underlay()
	if err != nil {
		return err
	}
	if there {
		return n.sealFixed(peers, local) // with a secret that may have changed
	}
	if n.encrypted() {
		if err := errors.Join(n.sealOff(local), m.newBoot(n)); err != nil {
			return err
		}
	}
	if m := n.mtu(); m == 0 || m > mtu {
		n.Options[optMTU] = strconv.Itoa(mtu)
	}
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: n.Link, MTU: n.mtu()}}
	if err := netlink.LinkAdd(bridge); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("make bridge %s: %w", n.Link, err)
	}
	found, err := netlink.LinkByName(n.Link)
	if err != nil {
		return err
	}
	if err := n.addVXLAN(found.Attrs().Index, vni, local, peers); err != nil {
		return errors.Join(err, removeLink(n.Link))
	}
	n.index = found.Attrs().Index
	if err := errors.Join(setUp(n.vxlan()), setUp(n.Link)); err != nil || !n.encrypted() || n.stored() {
		return err
	}
	return n.sealFixed(peers, local)
}

// underlay is the peers known from the start, the address of ours that they see,
// and what fits through the tunnel.
func (n *Network) underlay() (peers []netip.Addr, local net.IP, mtu int, err error) {
	if !n.stored() {
		if peers, err = n.otherPeers(); err == nil {
			local, mtu, err = n.wayTo(peers[0])
		}
		return peers, local, mtu, err
	}
	self, err := n.advertised()
	if err != nil {
		return nil, nil, 0, err
	}
	index, err := linkWith(self)
	if err == nil && index == 0 {
		err = fmt.Errorf("option %s: %s is not an address of this host", optAdvertise, self)
	}
	if err != nil {
		return nil, nil, 0, err
	}
	link, err := netlink.LinkByIndex(index)
	if err != nil {
		return nil, nil, 0, err
	}
	return nil, self.AsSlice(), link.Attrs().MTU - n.room(self), nil
}

// otherPeers are the listed ones but this host, so that one list serves all.
func (n *Network) otherPeers() (others []netip.Addr, err error) {
	peers, err := n.peers()
	if err != nil {
		return nil, err
	}
	for _, p := range peers {
		index, err := linkWith(p)
		if err != nil {
			return nil, err
		}
		if index == 0 {
			others = append(others, p)
		}
	}
	if len(others) == 0 {
		return nil, fmt.Errorf("option %s=%s: no other host among them", optPeers, n.Options[optPeers])
	}
	return others, nil
}

// linkWith is the index of the link that has an address, 0 for none.
func linkWith(want netip.Addr) (int, error) {
	addrs, err := whole(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return 0, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		if a.IP.Equal(want.AsSlice()) {
			return a.LinkIndex, nil
		}
	}
	return 0, nil
}

// room is what the way to a takes of a packet.
func (n *Network) room(a netip.Addr) int {
	size := vxlanRoom
	if a.Is6() {
		size += 20
	}
	if n.encrypted() {
		size += espRoom
	}
	return size
}

func (n *Network) addVXLAN(master, vni int, local net.IP, peers []netip.Addr) error {
	link := &netlink.Vxlan{
		LinkAttrs: netlink.LinkAttrs{Name: n.vxlan(), MasterIndex: master, MTU: n.mtu()},
		VxlanId:   vni, SrcAddr: local, Port: n.udpPort(), Learning: true,
	}
	err := netlink.LinkAdd(link)
	if errors.Is(err, unix.EEXIST) {
		if _, mine := netlink.LinkByName(n.vxlan()); mine != nil {
			return fmt.Errorf("network %s: another VXLAN of this host has the id %d", n.Name, vni)
		}
		err = nil // of a command that was killed
	}
	if err != nil {
		return fmt.Errorf("make vxlan %s: %w", n.vxlan(), err)
	}
	made, err := netlink.LinkByName(n.vxlan())
	if err != nil {
		return err
	}
	for _, p := range peers {
		if err := netlink.NeighAppend(floodTo(made, p.AsSlice())); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("peer %s: %w", p, err)
		}
	}
	return nil
}

// wayTo is the address of ours that a peer sees, and what fits through the tunnel.
func (n *Network) wayTo(peer netip.Addr) (net.IP, int, error) {
	routes, err := netlink.RouteGet(peer.AsSlice())
	if err != nil || len(routes) == 0 {
		return nil, 0, fmt.Errorf("peer %s: no route to it", peer)
	}
	link, err := netlink.LinkByIndex(routes[0].LinkIndex)
	if err != nil {
		return nil, 0, err
	}
	return routes[0].Src, link.Attrs().MTU - n.room(peer), nil
}

func (overlayDriver) join(ctx context.Context, p plug) error {
	return bridgeDriver{}.join(ctx, p)
}

func (overlayDriver) remove(ctx context.Context, m *Manager, n *Network) error {
	if n.stored() {
		m.leaveStore(ctx, n)
	}
	return errors.Join(n.unseal(true), removeLink(n.vxlan()), removeLink(n.Link), n.unseal(false))
}

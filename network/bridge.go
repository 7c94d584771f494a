package network

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/sys"
)

// bridgeDriver gives every container a cable to a switch of the host's.
type bridgeDriver struct{}

var _ driver = bridgeDriver{}

func (bridgeDriver) check(n *Network) error {
	if n.Link == "" {
		n.Link = n.Options[optBridgeName]
	}
	if n.Link == "" {
		n.Link = "br-" + n.ID[:12]
	}
	if !validLink(n.Link) {
		return fmt.Errorf("option %s=%s: not a name of a link", optBridgeName, n.Link)
	}
	return n.checkBridgeOptions()
}

// find looks the link up. It asks by ioctl(2), which does not wait for others' links
// that are being made, as netlink does. See netdevice(7).
func (n *Network) find() bool {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(s)
	flags, err := unix.NewIfreq(n.Link)
	if err != nil || unix.IoctlIfreq(s, unix.SIOCGIFFLAGS, flags) != nil || flags.Uint16()&unix.IFF_UP == 0 {
		return false
	}
	index, err := unix.NewIfreq(n.Link)
	if err != nil || unix.IoctlIfreq(s, unix.SIOCGIFINDEX, index) != nil {
		return false
	}
	n.index = int(index.Uint32())
	return true
}

// ensure is Like: ip link add kist0 type bridge; ip addr add …; ip link set kist0 up
func (bridgeDriver) ensure(ctx context.Context, m *Manager, n *Network) error {
	if n.find() {
		return m.heal(ctx, n)
	}
	found, err := m.makeBridge(ctx, n)
	if err != nil {
		return err
	}
	if err := m.bridgeRules(ctx, n); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(found); err != nil {
		return fmt.Errorf("bring up %s: %w", n.Link, err)
	}
	n.index = found.Attrs().Index
	return nil
}

// makeBridge makes the bridge with its address. Meanwhile no other root on this
// host does, as it might have chosen the same subnet.
func (m *Manager) makeBridge(ctx context.Context, n *Network) (netlink.Link, error) {
	l, err := lockFirewall(ctx)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	if err := m.chooseAgain(n); err != nil {
		return nil, err
	}
	link := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: n.Link, MTU: n.mtu()}}
	if err := netlink.LinkAdd(link); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("make bridge %s: %w", n.Link, err)
	}
	// No host takes router advertisements from its containers.
	os.WriteFile("/proc/sys/net/ipv6/conf/"+n.Link+"/accept_ra", []byte("0"), 0)
	found, err := netlink.LinkByName(n.Link)
	if err != nil {
		return nil, fmt.Errorf("bridge %s: %w", n.Link, err)
	}
	return found, n.addGateways(found)
}

// addGateways gives the bridge its addresses, but where the host is to have no part
// in the network.
func (n *Network) addGateways(bridge netlink.Link) error {
	for _, f := range n.families() {
		if n.gatewayMode(f) == modeIsolated || !f.v6 && n.set(optInhibit) {
			continue
		}
		list := []string{fmt.Sprintf("%s/%d", *f.gateway, f.pool().Bits())}
		if f.v6 {
			// The kernel asks for the containers' links from an address of the link; its
			// own is not ready for a second.
			list = append(list, "fe80::1/64")
		}
		for _, a := range list {
			if err := n.addGateway(bridge, a); err != nil {
				return err
			}
		}
	}
	return nil
}

func (n *Network) addGateway(bridge netlink.Link, address string) error {
	addr, err := netlink.ParseAddr(address)
	if err != nil {
		return err
	}
	if addr.IP.To4() == nil {
		addr.Flags = unix.IFA_F_NODAD // a bridge without ports would wait for ever
	}
	if err := netlink.AddrAdd(bridge, addr); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("address of %s: %w", n.Link, err)
	}
	return nil
}

// chooseAgain takes another subnet if the host has come to use the one that was
// chosen: by a VPN, or a network of another root.
func (m *Manager) chooseAgain(n *Network) error {
	if m.dropStale(n); !n.Chosen && !n.Chosen6 || len(n.Leases) > 0 {
		return nil
	}
	if _, err := netlink.LinkByName(n.Link); err == nil {
		return nil // half made: the address may be its own
	}
	taken, err := hostPrefixes()
	if err != nil {
		return err
	}
	changed := false
	for _, f := range n.families() {
		if !*f.chosen || !overlapsAny(f.pool(), taken) {
			continue
		}
		others, err := m.List()
		if err != nil {
			return err
		}
		pool, err := m.freePool(f.v6, others)
		if err != nil {
			return err
		}
		*f.subnet, *f.gateway, changed = pool.String(), pool.Addr().Next().String(), true
	}
	if !changed {
		return nil
	}
	return m.writeNetwork(n)
}

// join makes a veth pair, one end up on the bridge, the other directly in the
// sandbox. Like: ip link add veth… up master kist0 type veth peer name eth0 netns …
func (bridgeDriver) join(_ context.Context, p plug) error {
	p.e.noIPv6 = !p.n.IPv6
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	up := nl.NewIfInfomsg(unix.AF_UNSPEC)
	up.Flags, up.Change = unix.IFF_UP, unix.IFF_UP
	kind := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	kind.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("veth"))
	peer := kind.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(nl.VETH_INFO_PEER, nil)
	nl.NewIfInfomsgChild(peer, unix.AF_UNSPEC)
	peer.AddRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(p.e.Link))
	peer.AddRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(p.ns.Fd())))
	req.AddData(up)
	req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(p.e.HostLink)))
	req.AddData(nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(uint32(p.n.index))))
	if mtu := uint32(p.n.mtu()); mtu != 0 {
		req.AddData(nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(mtu)))
		peer.AddRtAttr(unix.IFLA_MTU, nl.Uint32Attr(mtu))
	}
	req.AddData(kind)
	if _, err := req.Execute(unix.NETLINK_ROUTE, 0); err != nil {
		return fmt.Errorf("make veth pair: %w", err)
	}
	return nil
}

func (bridgeDriver) remove(ctx context.Context, m *Manager, n *Network) error {
	if _, err := netlink.LinkByName(n.Link); err != nil {
		return nil // never made, and its rules neither
	}
	return errors.Join(m.removeBridgeRules(ctx, n), removeLink(n.Link))
}

func setUp(name string) error {
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkSetUp(link)
	}
	if err != nil {
		return fmt.Errorf("bring up %s: %w", name, err)
	}
	return nil
}

// addAddress waits for an ipvlan link of a sandbox just removed: the kernel takes
// namespaces apart later, and until then the parent knows its address as used.
func addAddress(h *netlink.Handle, link netlink.Link, addr *netlink.Addr) error {
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		err := h.AddrAdd(link, addr)
		if !errors.Is(err, unix.EADDRINUSE) || time.Now().After(end) {
			return err
		}
	}
}

// inNamespace runs f on a thread in ns.
func inNamespace(ns *os.File, f func() error) error { return sys.InNetwork(ns, f) }

// A namespace is a sandbox's network namespace, with a socket to its links.
type namespace struct {
	*os.File
	links *netlink.Handle
}

// close leaves the namespace to those who are in it. A nil one is of an error.
func (n *namespace) close() {
	if n != nil {
		n.links.Close()
		n.File.Close()
	}
}

// openNamespace returns that of this thread.
func openNamespace() (*namespace, error) {
	f, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	links, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		f.Close()
		return nil, err
	}
	return &namespace{f, links}, nil
}

// makeNamespace makes a network namespace and keeps it by a bind mount on path.
// Like: ip netns add, with lo up.
func makeNamespace(path string) (ns *namespace, err error) {
	err = sys.OnThread(func() error {
		if err := newNamespace(path); err != nil {
			return err
		}
		ns, err = openNamespace()
		return err
	})
	return ns, err
}

// newNamespace moves this thread to a namespace of its own.
func newNamespace(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o600)
	if err != nil {
		return err
	}
	f.Close()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return os.NewSyscallError("unshare network namespace", err)
	}
	if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
		return os.NewSyscallError("keep network namespace", err)
	}
	return prepareNamespace()
}

// prepareNamespace sets docker's parameters of a sandbox and brings lo up.
func prepareNamespace() error {
	for name, value := range map[string]string{"ip_unprivileged_port_start": "0", "ping_group_range": "0 2147483647"} {
		// A kernel without the parameter has nothing to relax.
		os.WriteFile("/proc/sys/net/ipv4/"+name, []byte(value), 0)
	}
	return sys.LoopbackUp()
}

// hostLink is the host's end of a container's i-th endpoint.
func hostLink(id string, i int) string {
	return fmt.Sprintf("veth%s%d", strings.ToLower(id[:min(10, len(id))]), i)
}

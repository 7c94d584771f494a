package network

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A macvlan gives every container an address of its own, Ethernet's too, on a
// link of the host: the parent. The host itself is not reached by it.
type macvlanDriver struct{}

// An ipvlan is like a macvlan whose containers share the parent's Ethernet address.
type ipvlanDriver struct{}

var (
	_ driver = macvlanDriver{}
	_ driver = ipvlanDriver{}
)

func (macvlanDriver) check(n *Network) error {
	if err := n.checkParent("macvlan_mode"); err != nil {
		return err
	}
	_, err := macvlanMode(n.Options["macvlan_mode"])
	return err
}

func macvlanMode(name string) (netlink.MacvlanMode, error) {
	switch name {
	case "", "bridge":
		return netlink.MACVLAN_MODE_BRIDGE, nil
	case "private":
		return netlink.MACVLAN_MODE_PRIVATE, nil
	case "vepa":
		return netlink.MACVLAN_MODE_VEPA, nil
	case "passthru":
		return netlink.MACVLAN_MODE_PASSTHRU, nil
	}
	return 0, fmt.Errorf("option macvlan_mode=%s: want bridge, private, vepa or passthru", name)
}

func (ipvlanDriver) check(n *Network) error {
	if err := n.checkParent("ipvlan_mode", "ipvlan_flag"); err != nil {
		return err
	}
	if _, err := ipvlanMode(n.Options["ipvlan_mode"]); err != nil {
		return err
	}
	_, err := ipvlanFlag(n.Options["ipvlan_flag"])
	return err
}

func ipvlanMode(name string) (netlink.IPVlanMode, error) {
	switch name {
	case "", "l2":
		return netlink.IPVLAN_MODE_L2, nil
	case "l3":
		return netlink.IPVLAN_MODE_L3, nil
	case "l3s":
		return netlink.IPVLAN_MODE_L3S, nil
	}
	return 0, fmt.Errorf("option ipvlan_mode=%s: want l2, l3 or l3s", name)
}

func ipvlanFlag(name string) (netlink.IPVlanFlag, error) {
	switch name {
	case "", "bridge":
		return netlink.IPVLAN_FLAG_BRIDGE, nil
	case "private":
		return netlink.IPVLAN_FLAG_PRIVATE, nil
	case "vepa":
		return netlink.IPVLAN_FLAG_VEPA, nil
	}
	return 0, fmt.Errorf("option ipvlan_flag=%s: want bridge, private or vepa", name)
}

// checkParent settles the parent. Without one the network is a link of its own
// that leads nowhere, as in docker.
func (n *Network) checkParent(own ...string) error {
	for key := range n.Options {
		if !slices.Contains(append(own, "parent", optMTU, optPrefix), key) {
			return fmt.Errorf("option %s: %s networks have none such", key, n.Driver)
		}
	}
	n.Link = n.Options["parent"]
	if n.Link == "" {
		n.Link, n.Internal = "dm-"+n.ID[:min(12, len(n.ID))], true
		return nil
	}
	if !validLink(n.Link) {
		return fmt.Errorf("option parent=%s: not a name of a link", n.Link)
	}
	if _, err := netlink.LinkByName(n.Link); err == nil {
		return nil
	}
	base, _, ok := vlanParent(n.Link)
	if ok {
		if _, err := netlink.LinkByName(base); err == nil {
			return nil
		}
	}
	return fmt.Errorf("option parent=%s: no such link on this host", n.Link)
}

// vlanParent splits eth0.50 into the link and the id of a VLAN.
func vlanParent(name string) (base string, id int, ok bool) {
	i := strings.LastIndexByte(name, '.')
	if i <= 0 {
		return "", 0, false
	}
	id, err := strconv.Atoi(name[i+1:])
	return name[:i], id, err == nil && id >= 1 && id <= 4094
}

func (macvlanDriver) ensure(_ context.Context, m *Manager, n *Network) error {
	return m.ensureParent(n)
}
func (ipvlanDriver) ensure(_ context.Context, m *Manager, n *Network) error { return m.ensureParent(n) }

// ensureParent makes the parent where it is kist's to make: the link of a VLAN, or
// one without a way out. That it is ours is recorded first.
// Like: ip link add link eth0 name eth0.50 type vlan id 50
func (m *Manager) ensureParent(n *Network) error {
	link, err := netlink.LinkByName(n.Link)
	if err != nil {
		var kind netlink.Link = &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: n.Link}}
		if base, id, ok := vlanParent(n.Link); ok && n.Options["parent"] != "" {
			parent, err := netlink.LinkByName(base)
			if err != nil {
				return fmt.Errorf("parent %s: no such link on this host", base)
			}
			kind = &netlink.Vlan{LinkAttrs: netlink.LinkAttrs{Name: n.Link, ParentIndex: parent.Attrs().Index}, VlanId: id}
		} else if n.Options["parent"] != "" {
			return fmt.Errorf("parent %s: no such link on this host", n.Link)
		}
		n.OwnsLink = true
		if err := m.writeNetwork(n); err != nil {
			return err
		}
		if err := netlink.LinkAdd(kind); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("make parent %s (%s): %w", n.Link, kind.Type(), err)
		}
		if link, err = netlink.LinkByName(n.Link); err != nil {
			return fmt.Errorf("parent %s: %w", n.Link, err)
		}
	}
	n.index = link.Attrs().Index
	if link.Attrs().Flags&unix.IFF_UP != 0 {
		return nil
	}
	return setUp(n.Link)
}

// join is Like: ip link add link PARENT name eth0 netns SANDBOX type macvlan mode MODE
func (macvlanDriver) join(_ context.Context, p plug) error {
	mode, err := macvlanMode(p.n.Options["macvlan_mode"])
	if err != nil {
		return err
	}
	return p.n.addChild(&netlink.Macvlan{LinkAttrs: p.child(), Mode: mode})
}

// join is Like: ip link add link PARENT name eth0 netns SANDBOX type ipvlan mode MODE
func (ipvlanDriver) join(_ context.Context, p plug) error {
	if p.e.MAC != "" {
		return fmt.Errorf("network %s: --mac-address %s: an ipvlan has its parent's", p.n.Name, p.e.MAC)
	}
	mode, err := ipvlanMode(p.n.Options["ipvlan_mode"])
	if err != nil {
		return err
	}
	flag, err := ipvlanFlag(p.n.Options["ipvlan_flag"])
	if err != nil {
		return err
	}
	if mode != netlink.IPVLAN_MODE_L2 {
		p.e.OnLink = true // there is no gateway in layer 3: the parent routes
	}
	return p.n.addChild(&netlink.IPVlan{LinkAttrs: p.child(), Mode: mode, Flag: flag})
}

func (p plug) child() netlink.LinkAttrs {
	p.e.HostLink = ""
	return netlink.LinkAttrs{Name: p.e.Link, ParentIndex: p.n.index, MTU: p.n.mtu(), Namespace: netlink.NsFd(int(p.ns.Fd()))}
}

func (n *Network) addChild(link netlink.Link) error {
	err := netlink.LinkAdd(link)
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("network %s: this kernel has no %s", n.Name, link.Type())
	case errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EINVAL) && n.Options["macvlan_mode"] == "passthru":
		return fmt.Errorf("network %s: parent %s is in use by another network or container", n.Name, n.Link)
	case err != nil:
		return fmt.Errorf("make %s on %s: %w", link.Type(), n.Link, err)
	}
	return nil
}

func (macvlanDriver) remove(_ context.Context, _ *Manager, n *Network) error { return n.removeParent() }
func (ipvlanDriver) remove(_ context.Context, _ *Manager, n *Network) error  { return n.removeParent() }

func (n *Network) removeParent() error {
	if !n.OwnsLink {
		return nil
	}
	return removeLink(n.Link)
}

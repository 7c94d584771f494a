package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// An address by DHCP (RFC 2131) is asked for from within the sandbox, when it
// joins; its monitor renews it at half its time.
const (
	// dhcpTry is the wait for the first answer; it doubles with every try.
	dhcpTry   = 2 * time.Second
	dhcpTries = 3
	// dhcpPause is how long after a failure the monitor asks again.
	dhcpPause = 30 * time.Second
)

func (n *Network) checkDHCP() error {
	l2 := n.Driver == "macvlan" || n.Driver == "ipvlan" && (n.Options["ipvlan_mode"] == "" || n.Options["ipvlan_mode"] == "l2")
	switch {
	case !l2 || n.Options["parent"] == "":
		return errors.New("--ipam-driver dhcp: only a macvlan or an ipvlan of mode l2 with a parent hears the servers of the parent's network")
	case n.Subnet != "":
		return errors.New("--ipam-driver dhcp: the server knows the subnet: leave --subnet out")
	case len(n.IPAMOptions) > 0:
		return errors.New("--ipam-opt: dhcp has no options")
	}
	return nil
}

// askDHCP gets the endpoint an address.
func (p plug) askDHCP(ctx context.Context) error {
	c, err := p.dhcpClient()
	if err != nil {
		return err
	}
	defer c.Close()
	lease, err := c.Request(ctx, p.dhcpOptions()...)
	if err != nil {
		return fmt.Errorf("no DHCP server on %s gave an address: %w", p.n.Link, err)
	}
	if err := p.e.adoptACK(lease.ACK); err != nil {
		return err
	}
	return p.e.asWanted()
}

// dhcpClient speaks on the endpoint's link, which needs no address for it.
func (p plug) dhcpClient() (c *nclient4.Client, err error) {
	err = inNamespace(p.ns, func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer h.Close()
		link, err := h.LinkByName(p.e.Link)
		if err != nil {
			return err
		}
		if p.e.MAC != "" {
			if err := setMAC(h, link, p.e.MAC); err != nil {
				return err
			}
		}
		if err := h.LinkSetUp(link); err != nil {
			return fmt.Errorf("bring up %s: %w", p.e.Link, err)
		}
		c, err = nclient4.New(p.e.Link, nclient4.WithTimeout(dhcpTry), nclient4.WithRetry(dhcpTries))
		return err
	})
	return c, err
}

// dhcpOptions tell the containers of one Ethernet address apart, as an ipvlan's
// are, by RFC 2131's client identifier; such a one hears only broadcasts before it
// has an address.
func (p plug) dhcpOptions() []dhcpv4.Modifier {
	id := append([]byte{0}, p.s.ID[:min(12, len(p.s.ID))]+"/"+p.e.Link...)
	list := []dhcpv4.Modifier{
		dhcpv4.WithBroadcast(true),
		dhcpv4.WithOption(dhcpv4.OptClientIdentifier(id)),
		dhcpv4.WithRequestedOptions(dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionDomainNameServer, dhcpv4.OptionDomainName, dhcpv4.OptionDNSDomainSearchList),
	}
	if p.s.Name != "" {
		list = append(list, dhcpv4.WithOption(dhcpv4.OptHostName(p.s.Name)))
	}
	if a, err := netip.ParseAddr(p.e.Wish.IPv4); err == nil {
		list = append(list, dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(a.AsSlice())))
	}
	return list
}

// adoptACK reads a server's word.
func (e *Endpoint) adoptACK(ack *dhcpv4.DHCPv4) error {
	addr, ok := netip.AddrFromSlice(ack.YourIPAddr.To4())
	ones, bits := net.IPMask(ack.SubnetMask()).Size()
	if !ok || addr.IsUnspecified() || addr.IsMulticast() || bits != 32 || ones == 0 {
		return fmt.Errorf("the DHCP server gave no usable address: %s, mask %s", ack.YourIPAddr, net.IP(ack.SubnetMask()))
	}
	e.Address, e.Gateway = netip.PrefixFrom(addr, ones).String(), ""
	for _, r := range ack.Router() {
		if gw, ok := netip.AddrFromSlice(r.To4()); ok && e.Gateway == "" && netip.PrefixFrom(addr, ones).Contains(gw) {
			e.Gateway = gw.String()
		}
	}
	e.OnLink = e.Gateway == ""
	said := types.DNS{Domain: ack.DomainName()}
	for _, s := range ack.DNS() {
		said.Nameservers = append(said.Nameservers, s.String())
	}
	if labels := ack.DomainSearch(); labels != nil {
		said.Search = labels.Labels
	}
	e.DNS = dnsOf(said)
	e.DHCP, e.LeasedAt = ack.ToBytes(), time.Now().UTC()
	return nil
}

// releaseDHCP tells the server that the address is free. A server that does not
// hear it finds out at the end of the lease.
func (p plug) releaseDHCP() {
	ack, err := dhcpv4.FromBytes(p.e.DHCP)
	if err != nil {
		return
	}
	ns, err := os.Open(p.s.Key)
	if err != nil {
		return
	}
	defer ns.Close()
	p.ns = ns
	c, err := p.dhcpClient()
	if err != nil {
		return
	}
	defer c.Close()
	c.Release(&nclient4.Lease{ACK: ack}, p.dhcpOptions()[1])
}

package network

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// docker's options of an endpoint.
const (
	optIfName  = "com.docker.network.endpoint.ifname"
	optSysctls = "com.docker.network.endpoint.sysctls"
)

// ParseEndpoint reads --network: a network's name, docker's name=NETWORK,KEY=VALUE,…
// or podman's NETWORK:KEY=VALUE,….
func ParseEndpoint(s string) (EndpointConfig, error) {
	e := EndpointConfig{Network: s}
	settings := s
	if name, rest, ok := strings.Cut(s, ":"); ok && strings.Contains(rest, "=") && !strings.Contains(name, "=") {
		e.Network, settings = name, rest
	} else if !strings.Contains(s, "=") {
		return e, nil
	}
	for w := range strings.SplitSeq(settings, ",") {
		key, value, ok := strings.Cut(w, "=")
		if !ok || value == "" {
			return e, fmt.Errorf("--network %s: %q is not KEY=VALUE", s, w)
		}
		if err := e.set(strings.ToLower(key), value); err != nil {
			return e, fmt.Errorf("--network %s: %w", s, err)
		}
	}
	if strings.Contains(e.Network, "=") {
		return e, fmt.Errorf("--network %s: it lacks name=NETWORK", s)
	}
	return e, nil
}

// CheckMAC refuses what is not the Ethernet address of one station: others are of
// many, or of other hardware.
func CheckMAC(s string) error {
	if mac, err := net.ParseMAC(s); err != nil || len(mac) != 6 || mac[0]&1 != 0 {
		return fmt.Errorf("%s: not the Ethernet address of one station", s)
	}
	return nil
}

func (e *EndpointConfig) set(key, value string) (err error) {
	switch key {
	case "name":
		e.Network = value
	case "alias":
		e.Aliases = append(e.Aliases, value)
	case "ip":
		e.IPv4 = value
		if a, err := netip.ParseAddr(value); err == nil && a.Is6() { // podman has one key for both
			e.IPv4, e.IPv6 = "", value
		}
	case "ip6":
		e.IPv6 = value
	case "link-local-ip":
		e.LinkLocal = append(e.LinkLocal, value)
	case "mac", "mac-address":
		e.MAC = value
		return CheckMAC(value)
	case "interface_name":
		return e.SetOption(optIfName + "=" + value)
	case "driver-opt":
		return e.SetOption(value)
	case "gw-priority":
		if e.GwPriority, err = strconv.Atoi(value); err != nil {
			return fmt.Errorf("gw-priority %s: not a number", value)
		}
	default:
		return fmt.Errorf("%s: want name, alias, ip, ip6, link-local-ip, mac-address, driver-opt or gw-priority", key)
	}
	return nil
}

// SetOption reads --driver-opt: KEY=VALUE.
func (e *EndpointConfig) SetOption(s string) error {
	key, value, _ := strings.Cut(s, "=")
	switch key {
	case optIfName:
		if !validLink(value) {
			return fmt.Errorf("option %s=%s: not a name of a link", key, value)
		}
	case optSysctls:
		if _, err := sysctls(value, "eth0"); err != nil {
			return err
		}
	default:
		return fmt.Errorf("option %s: want %s or %s", key, optIfName, optSysctls)
	}
	if e.DriverOpts == nil {
		e.DriverOpts = map[string]string{}
	}
	e.DriverOpts[key] = value
	return nil
}

// check refuses wishes that the network cannot grant.
func (e *EndpointConfig) check(n *Network) error {
	if e.IPv6 != "" && !n.IPv6 && n.Driver != "cni" {
		return fmt.Errorf("--ip6 %s: network %s has no IPv6 (network create --ipv6)", e.IPv6, n.Name)
	}
	if e.IPv4 != "" && n.NoIPv4 {
		return fmt.Errorf("--ip %s: network %s has no IPv4", e.IPv4, n.Name)
	}
	for _, s := range e.LinkLocal {
		if a, err := netip.ParseAddr(s); err != nil || !a.IsLinkLocalUnicast() || a.Zone() != "" {
			return fmt.Errorf("--link-local-ip %s: not an address of 169.254.0.0/16 or fe80::/10", s)
		}
	}
	return nil
}

// endpoint is the i-th of a sandbox, before it has an address.
func (n *Network) endpoint(id string, wish EndpointConfig, i int) Endpoint {
	wish.Network = n.Name
	e := Endpoint{
		Network: n.Name, NetworkID: n.ID, Bridge: n.Link, HostLink: hostLink(id, i),
		Link:    cmp.Or(wish.DriverOpts[optIfName], fmt.Sprint(n.prefix(), i)),
		Gateway: n.Gateway, Gateway6: n.Gateway6, MAC: wish.MAC, Index: i, Wish: wish, Internal: n.Internal,
		Mode: n.Options[optMode4], Mode6: n.Options[optMode6], Trusted: n.trusted(), Binding: n.Options[optHostBinding],
		Nameless: n.Nameless, Routes: n.Routes,
	}
	if len(n.Servers) > 0 {
		e.DNS = &DNS{Servers: n.Servers}
	}
	return e
}

// gate is the endpoint that published ports lead to: the one of the default route.
func (s *Sandbox) gate() *Endpoint {
	for i := range s.Endpoints {
		if e := &s.Endpoints[i]; e.Default || e.Default6 {
			return e
		}
	}
	if len(s.Endpoints) == 0 {
		return nil
	}
	return &s.Endpoints[0]
}

// chooseDefault picks the endpoint of the default route of each family: docker's
// order of priority, then name. An internal network leads nowhere.
func (s *Sandbox) chooseDefault() {
	var best, best6 *Endpoint
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		e.Default, e.Default6 = false, false
		if e.Internal {
			continue
		}
		if e.Gateway6 == "" || e.Gateway != "" { // an address may still be asked for
			best = e.before(best)
		}
		if e.Gateway6 != "" {
			best6 = e.before(best6)
		}
	}
	if best != nil {
		best.Default = true
	}
	if best6 != nil {
		best6.Default6 = true
	}
}

func (e *Endpoint) before(o *Endpoint) *Endpoint {
	if o == nil || e.Wish.GwPriority > o.Wish.GwPriority || e.Wish.GwPriority == o.Wish.GwPriority && e.Network < o.Network {
		return e
	}
	return o
}

// configure gives the endpoint's link what was settled for it.
func (e *Endpoint) configure(h *netlink.Handle) error {
	link, err := h.LinkByName(e.Link)
	if err != nil {
		return err
	}
	if e.MAC != "" {
		if err := setMAC(h, link, e.MAC); err != nil {
			return err
		}
	} else {
		e.MAC = link.Attrs().HardwareAddr.String()
	}
	if err := e.addAddresses(h, link); err != nil {
		return err
	}
	if e.noIPv6 {
		// What a link says of an address of its own goes to every container of the
		// network. A kernel without IPv6 refuses.
		h.LinkSetIP6AddrGenMode(link, nl.IN6_ADDR_GEN_MODE_NONE)
	}
	if err := h.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring up %s: %w", e.Link, err)
	}
	return errors.Join(e.route(h, link), e.addRoutes(h, link))
}

func (e *Endpoint) addAddresses(h *netlink.Handle, link netlink.Link) error {
	list := []string{e.Address, e.Address6}
	for _, a := range e.Wish.LinkLocal {
		if strings.Contains(a, ":") {
			list = append(list, a+"/64")
		} else {
			list = append(list, a+"/16")
		}
	}
	for _, s := range list {
		if s == "" {
			continue
		}
		addr, err := netlink.ParseAddr(s)
		if err != nil {
			return err
		}
		if addr.IP.To4() == nil {
			addr.Flags = unix.IFA_F_NODAD // it is leased: nobody else has it
		}
		if err := addAddress(h, link, addr); err != nil {
			return fmt.Errorf("address %s: %w", s, err)
		}
	}
	return nil
}

// route makes the endpoint the sandbox's way to everywhere, if it is to be.
func (e *Endpoint) route(h *netlink.Handle, link netlink.Link) error {
	for _, r := range []struct {
		wanted  bool
		gateway string
		all     *net.IPNet
	}{
		{e.Default, e.Gateway, &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}},
		{e.Default6, e.Gateway6, &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}},
	} {
		if !r.wanted || r.gateway == "" && !e.OnLink {
			continue
		}
		route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: r.all}
		if e.OnLink {
			route.Scope = netlink.SCOPE_LINK
		} else {
			route.Gw = netip.MustParseAddr(r.gateway).AsSlice()
		}
		if err := h.RouteReplace(route); err != nil {
			return fmt.Errorf("default route: %w", err)
		}
	}
	return nil
}

// sysctls reads docker's list of net.ipv4.conf.IFNAME.NAME=VALUE,… into files.
func sysctls(list, link string) (map[string]string, error) {
	files := map[string]string{}
	for w := range strings.SplitSeq(list, ",") {
		name, value, ok := strings.Cut(w, "=")
		parts := strings.Split(name, ".")
		if !ok || len(parts) != 5 || parts[0] != "net" || !slices.Contains([]string{"ipv4", "ipv6", "mpls"}, parts[1]) ||
			!slices.Contains([]string{"conf", "neigh"}, parts[2]) || parts[3] != "IFNAME" || strings.ContainsAny(parts[4], "/") {
			return nil, fmt.Errorf("option %s: %q is not net.ipv4.conf.IFNAME.NAME=VALUE", optSysctls, w)
		}
		files[filepath.Join("/proc/sys/net", parts[1], parts[2], link, parts[4])] = value
	}
	return files, nil
}

func (e *Endpoint) applySysctls() error {
	list := e.Wish.DriverOpts[optSysctls]
	if list == "" {
		return nil
	}
	files, err := sysctls(list, e.Link)
	var errs []error
	for file, value := range files {
		errs = append(errs, os.WriteFile(file, []byte(value), 0))
	}
	return errors.Join(append(errs, err)...)
}

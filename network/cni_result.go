package network

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// DNS is what a network says of name servers; see resolv.conf(5).
type DNS struct {
	Servers []string `json:"servers,omitempty"`
	Search  []string `json:"search,omitempty"`
	Options []string `json:"options,omitempty"`
}

// take makes the endpoint what the plugins say they made.
func (p plug) take(result types.Result) error {
	r, err := types100.NewResultFromResult(result)
	if err != nil {
		return fmt.Errorf("result of the plugins: %w", err)
	}
	wantedMAC := p.e.MAC
	p.e.MAC = ""
	if err := p.e.adopt(r, p.s.Key); err != nil {
		return err
	}
	if err := p.e.asWanted(); err != nil {
		return err
	}
	if wantedMAC != "" && !strings.EqualFold(wantedMAC, p.e.MAC) {
		return fmt.Errorf("--mac-address %s: its plugins gave %s", wantedMAC, p.e.MAC)
	}
	if p.e.Default || p.e.Default6 {
		return nil
	}
	return inNamespace(p.ns, p.e.leadNowhere)
}

// wished are the addresses that the user asked for.
func (e *Endpoint) wished() (list []string) {
	for _, w := range []string{e.Wish.IPv4, e.Wish.IPv6} {
		if w != "" {
			list = append(list, w)
		}
	}
	return list
}

// asWanted refuses addresses that are not those of --ip and --ip6.
func (e *Endpoint) asWanted() error {
	for _, x := range []struct{ flag, wanted, given string }{{"--ip", e.Wish.IPv4, e.Address}, {"--ip6", e.Wish.IPv6, e.Address6}} {
		wanted, err := netip.ParseAddr(x.wanted)
		given, _ := netip.ParsePrefix(x.given)
		if err == nil && wanted != given.Addr() {
			return fmt.Errorf("%s %s: the network gave %s", x.flag, x.wanted, cmp.Or(x.given, "none"))
		}
	}
	return nil
}

// adopt reads the result of ADD: it is of strangers, and parts of it may be absent.
// Of each family the first address is the endpoint's.
func (e *Endpoint) adopt(r *types100.Result, sandbox string) error {
	for _, i := range r.Interfaces {
		if i != nil && i.Name == e.Link && (i.Sandbox == sandbox || sandbox == "") {
			e.MAC = i.Mac
		}
	}
	e.Address, e.Gateway, e.Address6, e.Gateway6 = "", "", "", ""
	for _, ip := range r.IPs {
		if ip == nil {
			continue
		}
		addr, ok := netip.AddrFromSlice(ip.Address.IP)
		ones, _ := ip.Address.Mask.Size()
		if !ok || addr.IsUnspecified() || addr.IsMulticast() {
			continue
		}
		address, gateway := &e.Address, &e.Gateway
		if addr = addr.Unmap(); addr.Is6() {
			address, gateway = &e.Address6, &e.Gateway6
		}
		if *address != "" {
			continue
		}
		*address = netip.PrefixFrom(addr, ones).String()
		if gw, ok := netip.AddrFromSlice(ip.Gateway); ok && gw.Unmap().Is6() == addr.Is6() {
			*gateway = gw.Unmap().String()
		}
	}
	if e.Address == "" && e.Address6 == "" {
		return errors.New("its plugins gave no address")
	}
	e.OnLink = e.OnLink || e.Gateway == "" && e.Gateway6 == ""
	e.Default6 = e.Default && e.Gateway6 != ""
	e.DNS = dnsOf(r.DNS)
	return nil
}

// dnsOf keeps of the plugins' words what may stand in a resolv.conf.
func dnsOf(said types.DNS) *DNS {
	d := new(DNS)
	for _, s := range said.Nameservers {
		if a, err := netip.ParseAddr(s); err == nil {
			d.Servers = append(d.Servers, a.String())
		}
	}
	d.Search = printable(said.Search)
	if len(d.Search) == 0 {
		d.Search = printable([]string{said.Domain})
	}
	d.Options = printable(said.Options)
	if len(d.Servers)+len(d.Search)+len(d.Options) == 0 {
		return nil
	}
	return d
}

func printable(words []string) (kept []string) {
	for _, w := range words {
		if w != "" && !strings.ContainsFunc(w, func(r rune) bool { return r <= ' ' || r > '~' }) {
			kept = append(kept, w)
		}
	}
	return kept
}

// leadNowhere removes the default route that plugins made in a sandbox whose way to
// everywhere is another network.
func (e *Endpoint) leadNowhere() error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	link, err := h.LinkByName(e.Link)
	if err != nil {
		return err
	}
	routes, err := whole(func() ([]netlink.Route, error) { return h.RouteList(link, netlink.FAMILY_ALL) })
	if err != nil {
		return err
	}
	for _, r := range routes {
		if ones := prefixLength(r); ones == 0 {
			if err := h.RouteDel(&r); err != nil {
				return fmt.Errorf("remove default route: %w", err)
			}
		}
	}
	return nil
}

func prefixLength(r netlink.Route) int {
	if r.Dst == nil {
		return 0
	}
	ones, _ := r.Dst.Mask.Size()
	return ones
}

// withDNS is cfg with what the networks say of name servers, where the user says
// nothing.
func (cfg SandboxConfig) withDNS(s *Sandbox) SandboxConfig {
	for _, e := range s.Endpoints {
		if e.DNS == nil {
			continue
		}
		for _, x := range []struct {
			dst  *[]string
			said []string
		}{{&cfg.DNS, e.DNS.Servers}, {&cfg.DNSSearch, e.DNS.Search}, {&cfg.DNSOptions, e.DNS.Options}} {
			if len(*x.dst) == 0 {
				*x.dst = x.said
			}
		}
	}
	return cfg
}

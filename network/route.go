package network

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
)

// A Route is one that a network's containers get beside the default one.
type Route struct {
	Destination netip.Prefix `json:"destination"`
	Gateway     netip.Addr   `json:"gateway"`
	// Metric is the kernel's choice when 0.
	Metric int `json:"metric,omitempty"`
}

// parseRoutes reads podman's --route: CIDR,GATEWAY[,METRIC].
func parseRoutes(list []string) (routes []Route, err error) {
	for _, s := range list {
		w := strings.Split(s, ",")
		if len(w) != 2 && len(w) != 3 {
			return nil, fmt.Errorf("--route %s: want CIDR,GATEWAY[,METRIC]", s)
		}
		var r Route
		if r.Destination, err = netip.ParsePrefix(w[0]); err != nil || r.Destination != r.Destination.Masked() {
			return nil, fmt.Errorf("--route %s: %q is not the address of a network", s, w[0])
		}
		if r.Gateway, err = netip.ParseAddr(w[1]); err != nil || r.Gateway.Is6() != r.Destination.Addr().Is6() || r.Gateway.Zone() != "" {
			return nil, fmt.Errorf("--route %s: %q is not an address of that family", s, w[1])
		}
		if len(w) == 3 {
			metric, err := strconv.ParseUint(w[2], 10, 31)
			if err != nil {
				return nil, fmt.Errorf("--route %s: metric %q is not a number", s, w[2])
			}
			r.Metric = int(metric)
		}
		routes = append(routes, r)
	}
	return routes, nil
}

// checkRoutes refuses gateways that no container would reach.
func (n *Network) checkRoutes() error {
	for _, r := range n.Routes {
		if n.Driver == "cni" {
			return fmt.Errorf("--route %s: the routes of a cni network are its plugins' to give", r.Destination)
		}
		if n.pooled() && !slices.ContainsFunc(n.prefixes(), func(p netip.Prefix) bool { return p.Contains(r.Gateway) }) {
			return fmt.Errorf("--route %s: the gateway %s is not in the network", r.Destination, r.Gateway)
		}
	}
	return nil
}

// addRoutes gives the sandbox the network's routes.
// Like: ip route replace 10.9.0.0/16 via 172.18.0.7 dev eth0
func (e *Endpoint) addRoutes(h *netlink.Handle, link netlink.Link) error {
	for _, r := range e.Routes {
		dst := &net.IPNet{IP: r.Destination.Addr().AsSlice(), Mask: net.CIDRMask(r.Destination.Bits(), r.Destination.Addr().BitLen())}
		route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: dst, Gw: r.Gateway.AsSlice(), Priority: r.Metric}
		if err := h.RouteReplace(route); err != nil {
			return fmt.Errorf("route to %s by %s: %w", r.Destination, r.Gateway, err)
		}
	}
	return nil
}

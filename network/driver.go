package network

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"

	"github.com/vishvananda/netlink"
)

// A driver is a kind of network.
type driver interface {
	// check completes a new network's settings and refuses wrong ones. It makes
	// nothing.
	check(n *Network) error
	// ensure makes what the host needs for n, unless it is there. n is locked.
	ensure(ctx context.Context, m *Manager, n *Network) error
	// join makes the endpoint's link in the sandbox. The address comes later, but
	// from a driver that gives addresses itself.
	join(ctx context.Context, p plug) error
	// remove undoes ensure. It succeeds when there is nothing to undo.
	remove(ctx context.Context, m *Manager, n *Network) error
}

// A plug is an endpoint with all that it is plugged into.
type plug struct {
	m *Manager
	n *Network
	s *Sandbox
	e *Endpoint
	// ns is the sandbox's namespace, nil once it is gone, links a socket in it.
	ns    *os.File
	links *netlink.Handle
}

// driverOf returns the driver that docker knows by name; "" is bridge.
func driverOf(name string) (driver, error) {
	switch name {
	case "", "bridge":
		return bridgeDriver{}, nil
	case "macvlan":
		return macvlanDriver{}, nil
	case "ipvlan":
		return ipvlanDriver{}, nil
	case "overlay":
		return overlayDriver{}, nil
	case "cni":
		return cniDriver{}, nil
	}
	return nil, fmt.Errorf("driver %q: want bridge, macvlan, ipvlan, overlay or cni", name)
}

// docker's names of options.
const (
	optBridgeName = "com.docker.network.bridge.name"
	optInhibit    = "com.docker.network.bridge.inhibit_ipv4"
	optICC        = "com.docker.network.bridge.enable_icc"
	optMasquerade = "com.docker.network.bridge.enable_ip_masquerade"
	optMTU        = "com.docker.network.driver.mtu"
	optPrefix     = "com.docker.network.container_iface_prefix"
)

// flag is a truth among the options; absent means yes.
func (n *Network) flag(key string) bool {
	on, err := strconv.ParseBool(n.Options[key])
	return err != nil || on
}

// set is a truth among the options; absent means no.
func (n *Network) set(key string) bool {
	on, _ := strconv.ParseBool(n.Options[key])
	return on
}

func (n *Network) mtu() int {
	v, _ := strconv.Atoi(n.Options[optMTU])
	return v
}

// checkCommon refuses values that no driver takes.
func (n *Network) checkCommon() error {
	for _, key := range []string{optICC, optMasquerade, optInhibit} {
		if v, ok := n.Options[key]; ok {
			if _, err := strconv.ParseBool(v); err != nil {
				return fmt.Errorf("option %s=%s: want true or false", key, v)
			}
		}
	}
	if v, ok := n.Options[optMTU]; ok {
		if mtu, err := strconv.Atoi(v); err != nil || mtu < 68 || mtu > 65535 {
			return fmt.Errorf("option %s=%s: want a number of 68 to 65535", optMTU, v)
		}
	}
	if n.IPv6 && n.mtu() != 0 && n.mtu() < 1280 {
		return fmt.Errorf("option %s=%d: IPv6 needs 1280", optMTU, n.mtu())
	}
	if n.IPv6 && (n.outside() || !slices.Contains([]string{"bridge", "macvlan", "ipvlan"}, n.driverName())) {
		return errors.New("--ipv6: addresses of plugins, of DHCP and of overlays are theirs to give")
	}
	if n.NoIPv4 && !n.IPv6 {
		return errors.New("--ipv4=false: a network without IPv4 needs --ipv6")
	}
	if p, ok := n.Options[optPrefix]; ok && !validLink(p+"0") {
		return fmt.Errorf("option %s=%s: not the beginning of a link's name", optPrefix, p)
	}
	return nil
}

// validLink reports whether the kernel takes the name; see dev_valid_name.
func validLink(name string) bool {
	if name == "" || len(name) > 15 || name == "." || name == ".." {
		return false
	}
	for _, c := range []byte(name) {
		if c <= ' ' || c == '/' || c == ':' || c > '~' {
			return false
		}
	}
	return true
}

// prefix begins the names of links in the sandbox.
func (n *Network) prefix() string {
	if p := n.Options[optPrefix]; p != "" {
		return p
	}
	return "eth"
}

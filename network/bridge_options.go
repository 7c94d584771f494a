package network

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// docker's names of the options that only bridges have.
const (
	optHostBinding = "com.docker.network.bridge.host_binding_ipv4"
	optMode4       = "com.docker.network.bridge.gateway_mode_ipv4"
	optMode6       = "com.docker.network.bridge.gateway_mode_ipv6"
	optTrusted     = "com.docker.network.bridge.trusted_host_interfaces"
	optSource4     = "com.docker.network.host_ipv4"
	optSource6     = "com.docker.network.host_ipv6"
	optEnable4     = "com.docker.network.enable_ipv4"
	optEnable6     = "com.docker.network.enable_ipv6"
)

// A gateway mode is what becomes of packets between a family of the network and
// the world.
const (
	// modeNAT hides the containers: only published ports are reached, by the host's
	// addresses.
	modeNAT = "nat"
	// modeUnprotected is NAT, but who routes to the containers reaches all of them.
	modeUnprotected = "nat-unprotected"
	// modeRouted shows the containers' own addresses: published ports are reached there.
	modeRouted = "routed"
	// modeIsolated gives the host no address in an internal network.
	modeIsolated = "isolated"
)

func (n *Network) gatewayMode(f family) string {
	mode := n.Options[optMode4]
	if f.v6 {
		mode = n.Options[optMode6]
	}
	if mode == "" {
		return modeNAT
	}
	return mode
}

// trusted are the links of the host from which containers' ports are reached directly.
func (n *Network) trusted() []string {
	return strings.FieldsFunc(n.Options[optTrusted], func(r rune) bool { return r == ':' })
}

// checkBridgeOptions refuses what a bridge network does not have.
func (n *Network) checkBridgeOptions() error {
	known := []string{optBridgeName, optICC, optMasquerade, optMTU, optPrefix, optInhibit, optHostBinding, optMode4, optMode6, optTrusted, optSource4, optSource6, optEnable4, optEnable6}
	for key, value := range n.Options {
		if !slices.Contains(known, key) {
			return fmt.Errorf("option %s: a bridge network has none such", key)
		}
		if err := n.checkBridgeOption(key, value); err != nil {
			return fmt.Errorf("option %s=%s: %w", key, value, err)
		}
	}
	return nil
}

func (n *Network) checkBridgeOption(key, value string) error {
	switch key {
	case optMode4, optMode6:
		if !slices.Contains([]string{modeNAT, modeUnprotected, modeRouted, modeIsolated}, value) {
			return fmt.Errorf("want %s, %s, %s or %s", modeNAT, modeUnprotected, modeRouted, modeIsolated)
		}
		if value == modeIsolated && !n.Internal {
			return fmt.Errorf("only an --internal network is isolated")
		}
	case optHostBinding, optSource4, optSource6:
		a, err := netip.ParseAddr(value)
		if err != nil || a.Is6() != (key == optSource6) {
			return fmt.Errorf("not an address of that family")
		}
	case optTrusted:
		for _, link := range n.trusted() {
			if !validLink(link) {
				return fmt.Errorf("%q is not a name of a link", link)
			}
		}
	case optEnable4, optEnable6:
		if _, err := strconv.ParseBool(value); err != nil {
			return fmt.Errorf("want true or false")
		}
	}
	return nil
}

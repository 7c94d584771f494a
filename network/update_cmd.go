package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/kist-containers/kist/internal/ui"
)

// UpdateCmd is `kist network update`, which is podman's.
type UpdateCmd struct {
	DnsAdd  []string `sep:"," help:"DNS servers that containers ask from now on." placeholder:"IP,…"`
	DnsDrop []string `sep:"," help:"DNS servers not to ask any more." placeholder:"IP,…"`
	Network string   `arg:"" help:"Name or ID of a network."`
}

// Run changes the network's record and prints its name.
func (c *UpdateCmd) Run(ctx context.Context, m *Manager, out *ui.Output) error {
	n, err := m.setServers(ctx, c.Network, c.DnsAdd, c.DnsDrop)
	if err != nil {
		return fmt.Errorf("network update %s: %w", c.Network, err)
	}
	out.Print(n.Name)
	return nil
}

// setServers changes whom the containers of a network ask, once they join it.
func (m *Manager) setServers(ctx context.Context, name string, add, drop []string) (*Network, error) {
	if len(add)+len(drop) == 0 {
		return nil, errors.New("nothing to change: give --dns-add or --dns-drop")
	}
	if err := checkServers("--dns-add", add); err != nil {
		return nil, err
	}
	if slices.Contains([]string{"none", "host", DefaultBridge}, name) {
		return nil, errors.New("a pre-defined network has no name server (kist run --dns)")
	}
	name, err := m.resolve(name)
	if err != nil {
		return nil, err
	}
	l, err := m.lock(ctx, name)
	if err != nil {
		return nil, err
	}
	defer l.Unlock()
	n, err := m.readNetwork(name)
	if err != nil {
		return nil, err
	}
	for _, s := range drop {
		if !slices.Contains(n.Servers, s) {
			return nil, fmt.Errorf("--dns-drop %s: the network does not ask that server", s)
		}
	}
	n.Servers = slices.DeleteFunc(unique(append(n.Servers, add...)), func(s string) bool { return slices.Contains(drop, s) })
	if err := n.checkServed(); err != nil {
		return nil, err
	}
	return n, m.writeNetwork(n)
}

// checkServed refuses DNS servers where others say them.
func (n *Network) checkServed() error {
	if len(n.Servers) > 0 && n.outside() {
		return errors.New("--dns: the DNS servers of this network are its plugins' or its DHCP server's to say")
	}
	return nil
}

// checkServers refuses what is not an address.
func checkServers(flag string, list []string) error {
	for _, s := range list {
		if _, err := netip.ParseAddr(s); err != nil {
			return fmt.Errorf("%s %s: not an IP address", flag, s)
		}
	}
	return nil
}

package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"

	"github.com/containernetworking/cni/libcni"
	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// pooled reports whether the network has a subnet of kist's or the user's choice.
func (n *Network) pooled() bool {
	return n.Driver != "cni" && (!n.outside() || n.Subnet != "" || n.driverName() == "bridge")
}

// settleIPAM readies a network whose addresses others give.
func (m *Manager) settleIPAM(n *Network) error {
	switch {
	case n.IPAM == "" && len(n.IPAMOptions) > 0:
		return errors.New("--ipam-opt: the default driver of addresses has no options")
	case n.IPAM == "":
		return nil
	case n.Driver == "overlay":
		return fmt.Errorf("--ipam-driver %s: an overlay's hosts give its addresses", n.IPAM)
	case n.Subnet == "" && (n.Gateway != "" || n.IPRange != "" || len(n.Reserved) > 0):
		return errors.New("--gateway, --ip-range and --aux-address need --subnet")
	case n.IPAM == "dhcp":
		return n.checkDHCP()
	}
	config := n.rangeOf()
	config["dataDir"] = m.pluginData(n) // host-local's
	for key, value := range n.IPAMOptions {
		var v any
		if json.Unmarshal([]byte(value), &v) != nil {
			v = value
		}
		config[key] = v
	}
	config["type"] = n.IPAM
	var err error
	if n.CNI, err = json.Marshal(map[string]any{
		"cniVersion": "1.0.0", "name": "kist-" + n.ID[:12], "plugins": []any{map[string]any{"type": n.IPAM, "ipam": config}},
	}); err != nil {
		return err
	}
	n.PluginPath = pluginPath()
	if err := n.checkPlugins(); err != nil {
		return fmt.Errorf("--ipam-driver %s: %w", n.IPAM, err)
	}
	return nil
}

// pluginData is the folder where host-local keeps its leases.
func (m *Manager) pluginData(n *Network) string {
	return filepath.Join(m.roots.Data, "network", ".plugin", n.Name)
}

// rangeOf is the network's pool as plugins have it.
func (n *Network) rangeOf() map[string]any {
	if n.Subnet == "" {
		return map[string]any{}
	}
	r := map[string]any{"subnet": n.Subnet, "gateway": n.Gateway}
	if n.IPRange != "" {
		within := netip.MustParsePrefix(n.IPRange)
		r["rangeStart"], r["rangeEnd"] = within.Masked().Addr().String(), last(within).String()
	}
	return map[string]any{"ranges": [][]any{{r}}}
}

// askPlugin gets an address by the plugin's ADD.
func (p plug) askPlugin(ctx context.Context) error {
	list, err := libcni.NetworkConfFromBytes(p.n.CNI)
	if err != nil {
		return err
	}
	result, err := p.cni().AddNetworkList(ctx, list, p.runtimeConf())
	if err != nil {
		return err
	}
	r, err := types100.NewResultFromResult(result)
	if err != nil {
		return fmt.Errorf("result of plugin %s: %w", p.n.IPAM, err)
	}
	gateway := p.e.Gateway
	if err := p.e.adopt(r, p.s.Key); err != nil {
		return err
	}
	if p.e.Gateway == "" && gateway != "" {
		p.e.Gateway, p.e.OnLink = gateway, false
	}
	if p.n.Subnet != "" {
		a, err := netip.ParsePrefix(p.e.Address)
		if pool := netip.MustParsePrefix(p.n.Subnet); err != nil || !pool.Contains(a.Addr()) || a.Bits() != pool.Bits() {
			return fmt.Errorf("plugin %s gave %s, not an address of %s", p.n.IPAM, p.e.Address, p.n.Subnet)
		}
	}
	return p.e.asWanted()
}

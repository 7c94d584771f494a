package network

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/kist-containers/kist/internal/ui"
)

// CreateCmd is `kist network create`.
type CreateCmd struct {
	Driver        string   `short:"d" default:"bridge" help:"bridge, macvlan, ipvlan, overlay or cni."`
	Subnet        []string `sep:"none" help:"Addresses of the network; one of each family." placeholder:"CIDR"`
	Gateway       []string `sep:"none" help:"Address of the way out: the subnet's first." placeholder:"IP"`
	IpRange       []string `name:"ip-range" sep:"none" help:"Part of the subnet that containers get addresses of." placeholder:"CIDR"`
	AuxAddress    []string `name:"aux-address" sep:"none" help:"Address that no container gets." placeholder:"NAME=IP"`
	Ipv4          bool     `name:"ipv4" negatable:"" default:"true" help:"Give IPv4 addresses."`
	Ipv6          bool     `name:"ipv6" help:"Give IPv6 addresses too."`
	IpamDriver    string   `name:"ipam-driver" default:"default" help:"Who gives addresses: default, dhcp, or a plugin of CNI." placeholder:"NAME"`
	IpamOpt       []string `name:"ipam-opt" sep:"none" help:"Option of the address plugin; the value may be JSON." placeholder:"KEY=VALUE"`
	Internal      bool     `help:"Lead to no other network."`
	Attachable    bool     `help:"For docker's sake: every network is."`
	Ingress       bool     `hidden:""`
	Scope         string   `help:"local: kist has no swarm." placeholder:"SCOPE"`
	ConfigOnly    bool     `help:"Keep the settings for other networks' --config-from."`
	ConfigFrom    string   `help:"Take the settings of a network made by --config-only." placeholder:"NETWORK"`
	InterfaceName string   `help:"Name of the bridge, or of the parent of a macvlan or ipvlan." placeholder:"LINK"`
	DisableDns    bool     `help:"Give containers no names: they ask the host's DNS servers."`
	Dns           []string `sep:"none" help:"DNS server that containers ask about other names." placeholder:"IP"`
	Route         []string `sep:"none" help:"Another route of the containers." placeholder:"CIDR,GATEWAY[,METRIC]"`
	Opt           []string `short:"o" sep:"none" help:"Option of the driver." placeholder:"KEY=VALUE"`
	Label         []string `sep:"none" help:"Label of the network." placeholder:"KEY=VALUE"`
	Ignore        bool     `help:"Do not mind that the network is there, whatever it is."`
	Name          string   `arg:"" help:"Name of the network."`
}

// Run makes the network and prints its ID.
func (c *CreateCmd) Run(ctx context.Context, m *Manager, out *ui.Output) error {
	if n, err := m.readNetwork(c.Name); c.Ignore && err == nil {
		out.Print(n.ID)
		return nil
	}
	n, err := c.network()
	if err == nil {
		err = m.Create(ctx, n)
	}
	if err != nil {
		return fmt.Errorf("network create: %w", err)
	}
	out.Print(n.ID)
	return nil
}

// swarm refuses what only a swarm has.
func (c *CreateCmd) swarm() error {
	if c.Ingress {
		return errors.New("--ingress: kist has no swarm, whose mesh that is (publish a port by kist run -p)")
	}
	if c.Scope != "" && c.Scope != "local" {
		return fmt.Errorf("--scope %s: kist has no swarm (local; a network of several hosts is --driver overlay)", c.Scope)
	}
	return nil
}

func (c *CreateCmd) network() (*Network, error) {
	if err := c.swarm(); err != nil {
		return nil, err
	}
	n := &Network{
		Name: c.Name, Driver: c.Driver, Internal: c.Internal, IPAM: c.IpamDriver, NoIPv4: !c.Ipv4, IPv6: c.Ipv6,
		ConfigOnly: c.ConfigOnly, ConfigFrom: c.ConfigFrom, Labels: map[string]string{},
	}
	for i, o := range c.Opt {
		if !strings.Contains(o, "=") { // docker: -o encrypted
			c.Opt[i] = o + "="
		}
	}
	var err error
	for _, p := range []struct {
		flag string
		list []string
		to   *map[string]string
	}{{"--aux-address", c.AuxAddress, &n.Reserved}, {"--opt", c.Opt, &n.Options}, {"--ipam-opt", c.IpamOpt, &n.IPAMOptions}} {
		if *p.to, err = pairs(p.flag, p.list); err != nil {
			return nil, err
		}
	}
	for key, off := range map[string]*bool{optEnable4: &n.NoIPv4, optEnable6: &n.IPv6} {
		if v, ok := n.Options[key]; ok {
			on, _ := strconv.ParseBool(v)
			*off = on == (key == optEnable6)
		}
	}
	if err := c.extras(n); err != nil {
		return nil, err
	}
	for _, l := range c.Label {
		key, value, _ := strings.Cut(l, "=")
		n.Labels[key] = value
	}
	return n, c.addresses(n)
}

// extras are podman's settings.
func (c *CreateCmd) extras(n *Network) (err error) {
	n.Nameless, n.Servers = c.DisableDns, c.Dns
	if n.Routes, err = parseRoutes(c.Route); err != nil || c.InterfaceName == "" {
		return errors.Join(err, checkServers("--dns", c.Dns))
	}
	option := "parent"
	if n.driverName() == "bridge" {
		option = optBridgeName
	}
	if other, ok := n.Options[option]; ok {
		return fmt.Errorf("--interface-name %s: --opt %s=%s says so too", c.InterfaceName, option, other)
	}
	n.Options[option] = c.InterfaceName
	return checkServers("--dns", c.Dns)
}

// addresses gives every address to its family.
func (c *CreateCmd) addresses(n *Network) error {
	for _, a := range []struct {
		flag   string
		list   []string
		v4, v6 *string
	}{{"--subnet", c.Subnet, &n.Subnet, &n.Subnet6}, {"--gateway", c.Gateway, &n.Gateway, &n.Gateway6}, {"--ip-range", c.IpRange, &n.IPRange, &n.IPRange6}} {
		for _, s := range a.list {
			to := a.v4
			if strings.Contains(s, ":") {
				to = a.v6
			}
			if to == a.v6 && !n.IPv6 {
				return fmt.Errorf("%s %s: the network has no IPv6 without --ipv6", a.flag, s)
			}
			if to == a.v4 && n.NoIPv4 {
				return fmt.Errorf("%s %s: the network has no IPv4", a.flag, s)
			}
			if *to != "" {
				return fmt.Errorf("%s %s: a network has one of each family, and this one %s", a.flag, s, *to)
			}
			*to = s
		}
	}
	return nil
}

func pairs(flag string, list []string) (map[string]string, error) {
	m := map[string]string{}
	for _, w := range list {
		key, value, ok := strings.Cut(w, "=")
		if !ok || key == "" {
			return nil, fmt.Errorf("%s %s: want KEY=VALUE", flag, w)
		}
		m[key] = value
	}
	return m, nil
}

// RmCmd is `kist network rm`.
type RmCmd struct {
	Force bool     `short:"f" help:"Say nothing about networks that are not there."`
	Time  int      `short:"t" hidden:"" help:"A network that is in use is not removed: nothing is stopped."`
	Names []string `arg:"" name:"network" help:"Name or ID of a network."`
}

// Run removes the networks and prints their names.
func (c *RmCmd) Run(ctx context.Context, m *Manager, out *ui.Output) error {
	var errs []error
	for _, name := range c.Names {
		err := m.Remove(ctx, name)
		switch {
		case err == nil:
			out.Print(name)
		case !c.Force || !errors.Is(err, ErrNotFound):
			errs = append(errs, fmt.Errorf("network rm: %w", err))
		}
	}
	return errors.Join(errs...)
}

// PruneCmd is `kist network prune`.
type PruneCmd struct {
	Filter []string `sep:"none" help:"Remove those that match: until, label, label!." placeholder:"KEY=VALUE"`
	Force  bool     `short:"f" help:"Do not ask."`
}

// Run removes what no container is in.
func (c *PruneCmd) Run(ctx context.Context, m *Manager, out *ui.Output) error {
	f, err := ui.ParseFilters(c.Filter, "until", "label", "label!")
	if err != nil {
		return fmt.Errorf("network prune: %w", err)
	}
	if !c.Force && !out.Confirm("WARNING! This will remove all custom networks not used by at least one container.") {
		return nil
	}
	removed, err := m.Prune(ctx, f)
	if len(removed) > 0 {
		out.Printf("Deleted Networks:\n%s\n\n", strings.Join(removed, "\n"))
	}
	if err != nil {
		return fmt.Errorf("network prune: %w", err)
	}
	return nil
}

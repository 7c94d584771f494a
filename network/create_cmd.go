package network

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/kist-containers/kist/internal/ui"
)

// CreateCmd is `kist network create`.
type CreateCmd struct {
	Driver     string   `short:"d" default:"bridge" help:"bridge, macvlan, ipvlan, overlay or cni."`
	Subnet     string   `help:"Addresses of the network." placeholder:"CIDR"`
	Gateway    string   `help:"Address of the way out: the subnet's first." placeholder:"IP"`
	IpRange    string   `name:"ip-range" help:"Part of the subnet that containers get addresses of." placeholder:"CIDR"`
	AuxAddress []string `name:"aux-address" sep:"none" help:"Address that no container gets." placeholder:"NAME=IP"`
	IpamDriver string   `name:"ipam-driver" default:"default" help:"Who gives addresses: default, dhcp, or a plugin of CNI." placeholder:"NAME"`
	IpamOpt    []string `name:"ipam-opt" sep:"none" help:"Option of the address plugin; the value may be JSON." placeholder:"KEY=VALUE"`
	Internal   bool     `help:"Lead to no other network."`
	Attachable bool     `help:"For docker's sake: every network is."`
	Opt        []string `short:"o" sep:"none" help:"Option of the driver." placeholder:"KEY=VALUE"`
	Label      []string `sep:"none" help:"Label of the network." placeholder:"KEY=VALUE"`
	Ipv6       bool     `help:"Give IPv6 addresses too (not there yet: refused)."`
	Name       string   `arg:"" help:"Name of the network."`
}

// Run makes the network and prints its ID.
func (c *CreateCmd) Run(ctx context.Context, m *Manager, out *ui.Output) error {
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

func (c *CreateCmd) network() (*Network, error) {
	if c.Ipv6 {
		return nil, errors.New("--ipv6: networks have IPv4 addresses only")
	}
	aux, err := pairs("--aux-address", c.AuxAddress)
	if err != nil {
		return nil, err
	}
	for i, o := range c.Opt {
		if !strings.Contains(o, "=") { // docker: -o encrypted
			c.Opt[i] = o + "="
		}
	}
	options, err := pairs("--opt", c.Opt)
	if err != nil {
		return nil, err
	}
	addressing, err := pairs("--ipam-opt", c.IpamOpt)
	if err != nil {
		return nil, err
	}
	n := &Network{
		IPAM: c.IpamDriver, IPAMOptions: addressing,
		Name: c.Name, Driver: c.Driver, Subnet: c.Subnet, Gateway: c.Gateway, IPRange: c.IpRange,
		Reserved: aux, Internal: c.Internal, Options: options, Labels: map[string]string{},
	}
	for _, l := range c.Label {
		key, value, _ := strings.Cut(l, "=")
		n.Labels[key] = value
	}
	return n, nil
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
	Force bool `short:"f" help:"For docker's sake: nothing is asked."`
}

// Run removes what no container is in.
func (c *PruneCmd) Run(ctx context.Context, m *Manager, out *ui.Output) error {
	removed, err := m.Prune(ctx)
	for _, name := range removed {
		out.Print(name)
	}
	return err
}

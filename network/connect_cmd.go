package network

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// Containers are what a container's wishes for networks are kept in.
type Containers interface {
	// EditNetworks changes the networks that a container joins at its starts and
	// returns its ID.
	EditNetworks(ctx context.Context, container string, change func([]EndpointConfig) ([]EndpointConfig, error)) (id string, err error)
}

// ConnectCmd is `kist network connect`.
type ConnectCmd struct {
	Alias       []string `sep:"none" help:"Another name of the container in this network." placeholder:"NAME"`
	Ip          string   `help:"IPv4 address." placeholder:"IP"`
	Ip6         string   `name:"ip6" help:"IPv6 address." placeholder:"IP"`
	MacAddress  string   `help:"Hardware address." placeholder:"MAC"`
	LinkLocalIp []string `sep:"none" help:"Another address, link-local." placeholder:"IP"`
	DriverOpt   []string `sep:"none" help:"Option of the endpoint." placeholder:"KEY=VALUE"`
	GwPriority  int      `help:"The highest is the way to everywhere." placeholder:"N"`
	Link        []string `hidden:"" sep:"none"`
	Network     string   `arg:"" help:"Name or ID of a network."`
	Container   string   `arg:"" help:"Name or ID of a container."`
}

// Run joins the container to the network, now if it runs, and at its starts.
func (c *ConnectCmd) Run(ctx context.Context, m *Manager, all Containers) error {
	if err := c.connect(ctx, m, all); err != nil {
		return fmt.Errorf("network connect %s %s: %w", c.Network, c.Container, err)
	}
	return nil
}

func (c *ConnectCmd) connect(ctx context.Context, m *Manager, all Containers) error {
	name := c.Network
	if name != DefaultBridge {
		n, err := m.Network(name)
		if err != nil {
			return err
		}
		name = n.Name
	}
	e, err := c.wish(name)
	if err != nil {
		return err
	}
	id, err := all.EditNetworks(ctx, c.Container, func(list []EndpointConfig) ([]EndpointConfig, error) {
		if slices.ContainsFunc(list, e.same) {
			return nil, errors.New("it is in that network already")
		}
		return append(list, e), nil
	})
	if err != nil {
		return err
	}
	err = m.Connect(ctx, id, e)
	if err == nil || errors.Is(err, ErrNotFound) {
		return nil // it does not run
	}
	_, undo := all.EditNetworks(context.WithoutCancel(ctx), id, func(list []EndpointConfig) ([]EndpointConfig, error) {
		return slices.DeleteFunc(list, e.same), nil
	})
	return errors.Join(err, undo)
}

func (c *ConnectCmd) wish(network string) (EndpointConfig, error) {
	e := EndpointConfig{Network: network, Aliases: c.Alias, IPv4: c.Ip, IPv6: c.Ip6, MAC: c.MacAddress, LinkLocal: c.LinkLocalIp, GwPriority: c.GwPriority}
	if len(c.Link) > 0 {
		return e, errors.New("--link: containers of one network know each other's names; give another by --alias")
	}
	if c.MacAddress != "" {
		if err := CheckMAC(c.MacAddress); err != nil {
			return e, fmt.Errorf("--mac-address %w", err)
		}
	}
	for _, o := range c.DriverOpt {
		if err := e.SetOption(o); err != nil {
			return e, err
		}
	}
	return e, nil
}

func (e EndpointConfig) same(o EndpointConfig) bool { return o.Network == e.Network }

// DisconnectCmd is `kist network disconnect`.
type DisconnectCmd struct {
	Force     bool   `short:"f" help:"For docker's sake."`
	Network   string `arg:"" help:"Name or ID of a network."`
	Container string `arg:"" help:"Name or ID of a container."`
}

// Run takes the container out of the network, now if it runs, and at its starts.
func (c *DisconnectCmd) Run(ctx context.Context, m *Manager, all Containers) error {
	name := c.Network
	if n, err := m.Network(name); err == nil {
		name = n.Name
	}
	e := EndpointConfig{Network: name}
	id, err := all.EditNetworks(ctx, c.Container, func(list []EndpointConfig) ([]EndpointConfig, error) {
		if !slices.ContainsFunc(list, e.same) {
			return nil, errors.New("it is not in that network")
		}
		return slices.DeleteFunc(list, e.same), nil
	})
	if err == nil {
		err = m.Disconnect(ctx, id, name)
	}
	if err != nil && !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("network disconnect %s %s: %w", c.Network, c.Container, err)
	}
	return nil
}

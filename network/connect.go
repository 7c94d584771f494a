package network

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/state"
	"github.com/kist-containers/kist/network/nameserver"
)

// Connect joins a running container's sandbox to another network.
func (m *Manager) Connect(ctx context.Context, id string, e EndpointConfig) (err error) {
	l, s, err := m.lockSandbox(ctx, id)
	if err != nil {
		return err
	}
	defer l.Unlock()
	if s.Key == "" {
		return errors.New("the container has no sandbox of its own to join networks")
	}
	n, err := m.Network(e.Network)
	if err != nil {
		return err
	}
	e.Network = n.Name
	if slices.ContainsFunc(s.Endpoints, func(o Endpoint) bool { return o.Network == n.Name }) {
		return fmt.Errorf("the container is in network %s already", n.Name)
	}
	if n, err = m.join(ctx, s, e, s.freeIndex()); err != nil {
		return errors.Join(err, m.release(context.WithoutCancel(ctx), e.Network, id))
	}
	added := &s.Endpoints[len(s.Endpoints)-1]
	added.Default = !n.Internal && !slices.ContainsFunc(s.Endpoints, func(o Endpoint) bool { return o.Default })
	if s.Resolver == nil {
		s.Resolver = &Resolver{Names: map[string][]string{}}
	}
	s.Resolver.Names[n.Name] = unique(append([]string{s.Name, id[:min(12, len(id))]}, e.Aliases...))
	if err := m.record(s); err != nil {
		return err
	}
	if err := m.connect(ctx, s, n, added); err != nil {
		return errors.Join(err, m.leave(context.WithoutCancel(ctx), s, n.Name))
	}
	return errors.Join(m.record(s), m.announce(s), m.share(ctx, s))
}

func (m *Manager) connect(ctx context.Context, s *Sandbox, n *Network, e *Endpoint) error {
	ns, err := os.Open(s.Key)
	if err != nil {
		return err
	}
	defer ns.Close()
	return plug{m, n, s, e, ns}.connect(ctx)
}

// lockSandbox keeps other commands from the sandbox's record.
func (m *Manager) lockSandbox(ctx context.Context, id string) (*state.Lock, *Sandbox, error) {
	l, err := state.AcquireLock(ctx, m.roots.Lock("sandboxes"))
	if err != nil {
		return nil, nil, err
	}
	s, err := m.Sandbox(id)
	if err != nil {
		l.Unlock()
		return nil, nil, err
	}
	return l, s, nil
}

// freeIndex is the lowest number that no link of the sandbox has.
func (s *Sandbox) freeIndex() int {
	for i := 0; ; i++ {
		taken := func(e Endpoint) bool { return e.Index == i }
		if !slices.ContainsFunc(s.Endpoints, taken) {
			return i
		}
	}
}

// Disconnect takes a running container's sandbox out of a network.
func (m *Manager) Disconnect(ctx context.Context, id, network string) error {
	l, s, err := m.lockSandbox(ctx, id)
	if err != nil {
		return err
	}
	defer l.Unlock()
	return m.leave(ctx, s, network)
}

func (m *Manager) leave(ctx context.Context, s *Sandbox, network string) error {
	i := slices.IndexFunc(s.Endpoints, func(e Endpoint) bool { return e.Network == network })
	if i < 0 {
		return fmt.Errorf("the container is not in network %s", network)
	}
	e := s.Endpoints[i]
	if i == 0 && len(s.Ports) > 0 { // they lead to this address
		if err := m.removeRules(ctx, s.portBlocks()); err != nil {
			return err
		}
	}
	if err := nameserver.Withdraw(m.endpointDir(network), s.ID); err != nil {
		return err
	}
	ns, err := os.Open(s.Key)
	if err != nil {
		return err
	}
	defer ns.Close()
	if err := m.unplugOutside(ctx, s, &e); err != nil {
		return err
	}
	if err := inNamespace(ns, e.removeInside); err != nil {
		return err
	}
	if err := removeLink(e.HostLink); err != nil {
		return err
	}
	if err := m.release(ctx, network, s.ID); err != nil {
		return err
	}
	s.Endpoints = slices.Delete(s.Endpoints, i, i+1)
	if i == 0 && len(s.Ports) > 0 {
		err = m.addRules(ctx, s.portBlocks())
	}
	if e.Default {
		err = errors.Join(err, m.reroute(s, ns))
	}
	return errors.Join(err, m.record(s))
}

// removeInside removes the link from within the sandbox, its other end with it.
func (e *Endpoint) removeInside() error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	link, err := h.LinkByName(e.Link)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return nil
	}
	if err == nil {
		err = h.LinkDel(link)
	}
	if err != nil {
		return fmt.Errorf("remove link %s of the sandbox: %w", e.Link, err)
	}
	return nil
}

// reroute gives the sandbox another default route after it lost its own.
func (m *Manager) reroute(s *Sandbox, ns *os.File) error {
	var networks []*Network
	for _, e := range s.Endpoints {
		n, err := m.readNetwork(e.Network)
		if err != nil {
			return fmt.Errorf("network %s: %w", e.Network, err)
		}
		networks = append(networks, n)
	}
	s.chooseDefault(networks)
	i := slices.IndexFunc(s.Endpoints, func(e Endpoint) bool { return e.Default })
	if i < 0 {
		return nil
	}
	return inNamespace(ns, func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer h.Close()
		link, err := h.LinkByName(s.Endpoints[i].Link)
		if err != nil {
			return err
		}
		return s.Endpoints[i].route(h, link)
	})
}

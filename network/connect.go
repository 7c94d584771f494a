package network

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
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
	s.name(n.Name, e.Aliases)
	if err := m.record(s); err != nil {
		return err
	}
	if err := m.connect(ctx, s, n); err != nil {
		return errors.Join(err, m.leave(context.WithoutCancel(ctx), s, n.Name))
	}
	m.event(n, "connect", id)
	return errors.Join(s.tellContainer(), m.record(s), m.announce(s), m.share(ctx, s))
}

// connect makes the sandbox's newest endpoint.
func (m *Manager) connect(ctx context.Context, s *Sandbox, n *Network) error {
	ns, err := os.Open(s.Key)
	if err != nil {
		return err
	}
	defer ns.Close()
	var inside *namespace
	err = inNamespace(ns, func() (err error) {
		inside, err = openNamespace()
		return err
	})
	if err != nil {
		return err
	}
	defer inside.close()
	if err := (plug{m, n, s, &s.Endpoints[len(s.Endpoints)-1], ns, inside.links}).connect(ctx); err != nil {
		return err
	}
	return m.reroute(ctx, s, ns, s.portBlocks())
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
	ports := s.portBlocks()
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
	m.left(&e, s.ID)
	s.Endpoints = slices.Delete(s.Endpoints, i, i+1)
	return errors.Join(m.reroute(ctx, s, ns, ports), s.tellContainer(), m.record(s))
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

// reroute settles the way to everywhere after the endpoints changed, and leads the
// published ports, whose rules were those of before, there too.
func (m *Manager) reroute(ctx context.Context, s *Sandbox, ns *os.File, before []block) error {
	s.chooseDefault()
	err := inNamespace(ns, func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer h.Close()
		for _, e := range s.Endpoints {
			if !e.Default && !e.Default6 {
				continue
			}
			link, err := h.LinkByName(e.Link)
			if err != nil {
				return err
			}
			if err := e.route(h, link); err != nil {
				return err
			}
		}
		return nil
	})
	after := s.portBlocks()
	if err != nil || len(s.Ports) == 0 || reflect.DeepEqual(before, after) {
		return err
	}
	return errors.Join(m.removeRules(ctx, before), m.addRules(ctx, after))
}

// Rename makes a running container known by another name.
func (m *Manager) Rename(ctx context.Context, id, name string) error {
	l, s, err := m.lockSandbox(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer l.Unlock()
	old := s.Name
	s.Name = name
	if s.Resolver != nil {
		for network, names := range s.Resolver.Names {
			names = slices.DeleteFunc(names, func(n string) bool { return n == old })
			s.Resolver.Names[network] = unique(append([]string{name}, names...))
		}
	}
	return errors.Join(m.record(s), m.announce(s), m.share(ctx, s))
}

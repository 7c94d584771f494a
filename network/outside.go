package network

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// outside reports whether plugins or servers give the addresses of the network.
func (n *Network) outside() bool { return n.Driver == "cni" || n.IPAM != "" }

// leaseOutside records that the sandbox's newest endpoint is about to be made, so
// that it will be undone even if neither the command nor the host lives on.
func (m *Manager) leaseOutside(ctx context.Context, n *Network, s *Sandbox) error {
	if err := m.dropStaleOutside(ctx, n); err != nil {
		return err
	}
	if n.Leases == nil {
		n.Leases = map[string]string{}
	}
	n.Leases[s.Endpoints[len(s.Endpoints)-1].Link+"@"+s.ID] = s.ID
	return m.writeLeases(n)
}

// dropStaleOutside undoes the endpoints of sandboxes that are not there: of before a
// reboot. n is locked.
func (m *Manager) dropStaleOutside(ctx context.Context, n *Network) error {
	if !n.outside() {
		return nil
	}
	for key, id := range n.Leases {
		if _, err := os.Stat(m.sandboxFile(id)); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		link, _, _ := strings.Cut(key, "@")
		gone := plug{m: m, n: n, s: &Sandbox{ID: id}, e: &Endpoint{Network: n.Name, Link: link}}
		if err := gone.leaveOutside(ctx); err != nil {
			return err
		}
		delete(n.Leases, key)
		if err := m.writeLeases(n); err != nil {
			return err
		}
	}
	return nil
}

// ask gets the endpoint its address.
func (p plug) ask(ctx context.Context) error {
	if p.n.IPAM == "dhcp" {
		return p.askDHCP(ctx)
	}
	return p.askPlugin(ctx)
}

// leaveOutside tells those who made the endpoint that it ends.
func (p plug) leaveOutside(ctx context.Context) error {
	if p.n.IPAM == "dhcp" {
		p.releaseDHCP()
		return nil
	}
	return p.del(ctx)
}

// leaveOutside does so for all endpoints of a sandbox whose namespace may be gone.
func (m *Manager) leaveOutside(ctx context.Context, s *Sandbox) error {
	var errs []error
	for i := range s.Endpoints {
		errs = append(errs, m.unplugOutside(ctx, s, &s.Endpoints[i]))
	}
	return errors.Join(errs...)
}

func (m *Manager) unplugOutside(ctx context.Context, s *Sandbox, e *Endpoint) error {
	n, err := m.readNetwork(e.Network)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil || !n.outside() {
		return err
	}
	return plug{m: m, n: n, s: s, e: e}.leaveOutside(ctx)
}

// checkOutside asks the plugins of all sandboxes whether what they made is still
// there. A plugin repairs nothing: only a restart of the container does.
func (m *Manager) checkOutside(ctx context.Context) error {
	sandboxes, err := m.sandboxes()
	if err != nil {
		return err
	}
	var errs []error
	for _, s := range sandboxes {
		for i := range s.Endpoints {
			e := &s.Endpoints[i]
			n, err := m.readNetwork(e.Network)
			if err != nil || n.Driver != "cni" {
				continue
			}
			if err := (plug{m: m, n: n, s: s, e: e}).checkCNI(ctx); err != nil {
				errs = append(errs, fmt.Errorf("container %s in network %s: %w", s.Name, n.Name, err))
			}
		}
	}
	return errors.Join(errs...)
}

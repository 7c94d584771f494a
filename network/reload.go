package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// heal makes the network's rules again if someone flushed them, and then those of
// all others too.
func (m *Manager) heal(ctx context.Context, n *Network) error {
	if m.o.Firewall == FirewallNone {
		return nil
	}
	for _, f := range n.families() {
		have, err := m.loadRules(ctx, f.v6)
		if err != nil {
			return err
		}
		have.close()
		missing := func(r rule) bool { return !have.rule(r) }
		for _, b := range ofFamily(n.blocks(), f.v6) {
			if !have.complete(f.v6) || slices.ContainsFunc(b.rules, missing) {
				return m.Reload(ctx)
			}
		}
	}
	if n.Internal {
		return nil
	}
	return m.forwarding(n)
}

// Reload makes all rules that are missing: of the networks whose bridge is there,
// and of the published ports.
func (m *Manager) Reload(ctx context.Context) error {
	if m.o.Firewall == FirewallNone {
		return nil
	}
	list, err := m.List()
	if err != nil {
		return err
	}
	var blocks []block
	var errs []error
	for _, n := range list {
		if n.driverName() == "bridge" && n.find() {
			blocks = append(blocks, n.blocks()...)
			if !n.Internal {
				errs = append(errs, m.forwarding(n))
			}
		}
	}
	sandboxes, err := m.sandboxes()
	if err != nil {
		return err
	}
	for _, s := range sandboxes {
		blocks = append(blocks, s.portBlocks()...)
	}
	if len(blocks) == 0 {
		return nil
	}
	return errors.Join(append(errs, m.addRules(ctx, blocks))...)
}

// sandboxes are all that have a file.
func (m *Manager) sandboxes() ([]*Sandbox, error) {
	files, err := filepath.Glob(filepath.Join(m.roots.Run, "network", "*.json"))
	if err != nil {
		return nil, err
	}
	var list []*Sandbox
	for _, f := range files {
		id := sandboxID(f)
		s, err := m.Sandbox(id)
		if errors.Is(err, ErrNotFound) {
			continue // removed meanwhile
		}
		if isDamaged(err) {
			s, err = m.recalled(id), nil
		}
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}

// warnFirewall tells that published ports go past another firewall.
func (m *Manager) warnFirewall(ports []PublishedPort) {
	open := slices.ContainsFunc(ports, func(p PublishedPort) bool {
		a, err := netip.ParseAddr(p.HostIP)
		return err != nil || !a.IsLoopback()
	})
	if name := otherFirewall("/"); open && name != "" && m.o.Warn != nil {
		m.o.Warn("%s is active: published ports go past it (publish on 127.0.0.1, or close them in chain %s)", name, chainUser)
	}
}

// otherFirewall names the firewall manager that is active on the host below root.
func otherFirewall(root string) string {
	if data, err := os.ReadFile(filepath.Join(root, "etc/ufw/ufw.conf")); err == nil {
		for line := range strings.Lines(string(data)) {
			if strings.EqualFold(strings.TrimSpace(line), "enabled=yes") {
				return "ufw"
			}
		}
	}
	if _, err := os.Stat(filepath.Join(root, "run/firewalld")); err == nil {
		return "firewalld"
	}
	return ""
}

// ReloadCmd is `kist network reload`.
type ReloadCmd struct {
	All        bool     `short:"a" help:"All containers, as without a name."`
	Latest     bool     `short:"l" help:"For podman's sake: the rules of all are looked at."`
	Containers []string `arg:"" optional:"" name:"container" help:"For podman's sake: the rules of all are looked at."`
}

// Run puts back the rules that a restart of a firewall took away.
func (c *ReloadCmd) Run(ctx context.Context, m *Manager) error {
	if err := errors.Join(m.Reload(ctx), m.reseal(ctx), m.checkOutside(ctx)); err != nil {
		return fmt.Errorf("network reload: %w", err)
	}
	return nil
}

package network

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// isDamaged tells a record that does not parse from one that cannot be read.
func isDamaged(err error) bool {
	var path *fs.PathError
	return err != nil && !errors.Is(err, ErrNotFound) && !errors.As(err, &path)
}

func (m *Manager) namespaceFile(id string) string {
	return filepath.Join(m.roots.Run, "netns", id[:min(12, len(id))])
}

// recalled is a sandbox with a damaged record, as far as its ID and its leases tell of
// it: enough to undo it. Who has it is not known, so it is nobody's to Check.
func (m *Manager) recalled(id string) *Sandbox {
	s := &Sandbox{Version: 1, ID: id, Dir: m.sandboxFile(id), Key: m.namespaceFile(id)}
	list, _ := m.List() // those that can be read
	for _, n := range list {
		for address, holder := range n.Leases {
			if holder == id {
				i := len(s.Endpoints)
				s.Endpoints = append(s.Endpoints, Endpoint{Network: n.Name, NetworkID: n.ID, Address: address, HostLink: hostLink(id, i)})
			}
		}
	}
	return s
}

// forget undoes a sandbox with a damaged record.
func (m *Manager) forget(ctx context.Context, id string) error {
	s := m.recalled(id)
	var errs []error
	for _, e := range s.Endpoints {
		errs = append(errs, removeLink(e.HostLink))
		if address, err := netip.ParseAddr(e.Address); err == nil {
			errs = append(errs, m.removeRulesTo(ctx, address))
		}
	}
	errs = append(errs, removeNamespace(s.Key), m.freePortsOf(id))
	for _, e := range s.Endpoints {
		errs = append(errs, m.release(ctx, e.Network, id))
	}
	return errors.Join(errs...)
}

// freePortsOf gives back the ports of the host that are marked as id's.
func (m *Manager) freePortsOf(id string) error {
	files, err := filepath.Glob(filepath.Join(m.roots.Run, "port", "*"))
	for _, file := range files {
		if data, bad := os.ReadFile(file); bad == nil && string(data) == id {
			err = errors.Join(err, os.Remove(file))
		}
	}
	return err
}

// removeRulesTo removes the rules of the ports that lead to an address.
func (m *Manager) removeRulesTo(ctx context.Context, to netip.Addr) error {
	family := []block{{rules: []rule{{v6: to.Is6()}}}}
	return m.eachFamily(ctx, family, func(ctx context.Context, v6 bool, _ []block) error {
		have, err := m.loadRules(ctx, v6)
		if err != nil {
			return err
		}
		defer have.close()
		s := script{}
		s.remove(have.present, block{rules: have.leadingTo(to)})
		return m.change(ctx, have, s)
	})
}

func (p present) leadingTo(to netip.Addr) (rules []rule) {
	for _, c := range chains() {
		if c[1] != chainPorts && c[1] != chainDNAT && c[1] != chainMasq {
			continue
		}
		for _, line := range p.inChain(c[0], c[1]) {
			spec := words(line)[2:]
			there := slices.ContainsFunc(spec, func(w string) bool {
				at, err := netip.ParseAddrPort(w)
				return w == single(to) || err == nil && at.Addr() == to
			})
			if there {
				rules = append(rules, rule{to.Is6(), c[0], c[1], spec})
			}
		}
	}
	return rules
}

// sandboxID is the ID that a record's file is named after.
func sandboxID(file string) string { return strings.TrimSuffix(filepath.Base(file), ".json") }

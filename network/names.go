package network

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kist-containers/kist/network/nameserver"
)

// Resolver is what a sandbox's name server is told at its making.
type Resolver struct {
	// Names are the container's in each network of its own: name, short id, aliases
	// by network.
	Names map[string][]string `json:"names,omitempty"`
	// Hostname is the container's, FullName with its domain.
	Hostname string `json:"hostname,omitempty"`
	FullName string `json:"fullName,omitempty"`
	// Servers are those of --dns.
	Servers []string `json:"servers,omitempty"`
	// Ndots says that the user chose the option ndots.
	Ndots bool `json:"ndots,omitempty"`
}

// endpointDir is where a network's endpoints are known to the name servers.
func (m *Manager) endpointDir(network string) string {
	return filepath.Join(m.roots.Run, "network", network, "endpoints")
}

// named reports whether the sandbox has a name server: it is in a network that
// has one.
func (s *Sandbox) named() bool {
	return s.Key != "" && slices.ContainsFunc(s.Endpoints, Endpoint.named)
}

// named reports whether the network of the endpoint has a name server.
func (e Endpoint) named() bool { return e.Network != DefaultBridge && !e.Nameless }

// resolver is what the name server of cfg's sandbox is to know.
func (cfg SandboxConfig) resolver() *Resolver {
	r := &Resolver{Names: map[string][]string{}, Servers: cfg.DNS, Hostname: cfg.Hostname}
	if cfg.Domainname != "" {
		r.FullName = cfg.Hostname + "." + cfg.Domainname
	}
	for _, o := range cfg.DNSOptions {
		r.Ndots = r.Ndots || strings.HasPrefix(o, "ndots:")
	}
	for _, e := range cfg.Endpoints {
		names := []string{cfg.Name, cfg.ID[:min(12, len(cfg.ID))], cfg.Hostname}
		r.Names[e.Network] = unique(append(names, e.Aliases...))
	}
	return r
}

// name gives the sandbox its names in a network that it joins later.
func (s *Sandbox) name(network string, aliases []string) {
	if s.Resolver == nil {
		s.Resolver = new(Resolver)
	}
	if s.Resolver.Names == nil {
		s.Resolver.Names = map[string][]string{}
	}
	s.Resolver.Names[network] = unique(append([]string{s.Name, s.ID[:min(12, len(s.ID))], s.Resolver.Hostname}, aliases...))
}

// unique is list without empty and repeated words, in its order.
func unique(list []string) []string {
	var out []string
	for _, w := range list {
		if w != "" && !slices.Contains(out, w) {
			out = append(out, w)
		}
	}
	return out
}

// announce makes the sandbox's endpoints known to the name servers of their networks.
func (m *Manager) announce(s *Sandbox) error {
	for _, e := range s.Endpoints {
		if !e.named() || s.Resolver == nil {
			continue
		}
		known := nameserver.Endpoint{Container: s.ID, Names: s.Resolver.Names[e.Network]}
		if p, err := netip.ParsePrefix(e.Address); err == nil {
			known.IPv4 = p.Addr()
		}
		if p, err := netip.ParsePrefix(e.Address6); err == nil {
			known.IPv6 = p.Addr()
		}
		if err := known.Publish(m.endpointDir(e.Network)); err != nil {
			return err
		}
	}
	return nil
}

// withdraw takes the endpoints out of the name servers' sight.
func (m *Manager) withdraw(s *Sandbox) error {
	var errs []error
	for _, e := range s.Endpoints {
		if e.named() {
			errs = append(errs, nameserver.Withdraw(m.endpointDir(e.Network), s.ID))
		}
	}
	return errors.Join(errs...)
}

// Listen makes the sockets that Serve answers on: those of the name server, none
// for a sandbox without one.
func (m *Manager) Listen(id string) ([]*os.File, error) {
	s, err := m.Sandbox(id)
	if errors.Is(err, ErrNotFound) || err == nil && !s.named() {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return nameserver.Listen(s.Key)
}

// nameServer is the configuration of a sandbox's name server.
func (m *Manager) nameServer(s *Sandbox) nameserver.Config {
	c := nameserver.Config{Record: m.sandboxFile(s.ID), Sandbox: s.Key, HostFile: "/etc/resolv.conf"}
	if s.Resolver != nil {
		c.KeepSingle = s.Resolver.Ndots
		for _, server := range s.Resolver.Servers {
			if a, err := netip.ParseAddr(server); err == nil {
				c.Servers = append(c.Servers, a)
			}
		}
	}
	c.Networks = func() (list []nameserver.Network, err error) {
		now, err := m.Sandbox(s.ID)
		if err != nil {
			return nil, err
		}
		for _, e := range now.Endpoints {
			if e.named() {
				n, err := m.readNetwork(e.Network)
				list = append(list, nameserver.Network{Name: e.Network, Dir: m.endpointDir(e.Network), Internal: err == nil && n.Internal})
			}
		}
		return list, nil
	}
	return c
}

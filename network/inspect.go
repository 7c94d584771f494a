package network

import (
	"fmt"
	"net/netip"
)

// Settings is docker's NetworkSettings of a container.
type Settings struct {
	SandboxID, SandboxKey string
	Ports                 map[string][]HostPort
	Networks              map[string]EndpointSettings
	// The default bridge's endpoint again, as docker did until API 1.52.
	Gateway, IPAddress, MacAddress string
	IPPrefixLen                    int
	IPv6Gateway, GlobalIPv6Address string
	GlobalIPv6PrefixLen            int
}

// HostPort is one host side of a published port.
type HostPort struct{ HostIp, HostPort string }

// EndpointSettings is docker's entry of Networks.
type EndpointSettings struct {
	IPAMConfig                                            *IPAMConfig
	Links, Aliases                                        []string
	DriverOpts                                            map[string]string
	GwPriority                                            int
	NetworkID, EndpointID, Gateway, IPAddress, MacAddress string
	IPPrefixLen                                           int
	IPv6Gateway, GlobalIPv6Address                        string
	GlobalIPv6PrefixLen                                   int
	DNSNames                                              []string
	// DNS is not docker's: what a plugin said of name servers.
	DNS *DNS `json:",omitempty"`
}

// IPAMConfig is what the user asked for.
type IPAMConfig struct {
	IPv4Address  string   `json:",omitempty"`
	IPv6Address  string   `json:",omitempty"`
	LinkLocalIPs []string `json:",omitempty"`
}

// settings is docker's description of the endpoint.
func (e *Endpoint) settings(s *Sandbox) EndpointSettings {
	w := e.Wish
	set := EndpointSettings{
		Aliases: w.Aliases, DriverOpts: w.DriverOpts, GwPriority: w.GwPriority, NetworkID: e.NetworkID, EndpointID: s.ID,
		Gateway: e.Gateway, IPv6Gateway: e.Gateway6, MacAddress: e.MAC, DNS: e.DNS,
	}
	if w.IPv4 != "" || w.IPv6 != "" || len(w.LinkLocal) > 0 {
		set.IPAMConfig = &IPAMConfig{w.IPv4, w.IPv6, w.LinkLocal}
	}
	if p, err := netip.ParsePrefix(e.Address); err == nil {
		set.IPAddress, set.IPPrefixLen = p.Addr().String(), p.Bits()
	}
	if p, err := netip.ParsePrefix(e.Address6); err == nil {
		set.GlobalIPv6Address, set.GlobalIPv6PrefixLen = p.Addr().String(), p.Bits()
	}
	if s.Resolver != nil && e.named() {
		set.DNSNames = s.Resolver.Names[e.Network]
	}
	return set
}

// Predefined reports whether a mode is a network that no sandbox is made for: docker
// counts containers among those in it all the same.
func Predefined(mode string) bool { return mode == "none" || mode == "host" }

// InspectPredefined describes a container's part in such a network: no addresses.
func InspectPredefined(mode, endpoint string) EndpointSettings {
	return EndpointSettings{NetworkID: predefined(mode).ID, EndpointID: endpoint}
}

// JoinedPredefined and LeftPredefined note it as an event.
func (m *Manager) JoinedPredefined(mode, container string) {
	m.event(predefined(mode), "connect", container)
}

func (m *Manager) LeftPredefined(mode, container string) {
	m.event(predefined(mode), "disconnect", container)
}

// InspectContainer describes a container's sandbox; empty when it has none.
func (m *Manager) InspectContainer(id string) *Settings {
	set := &Settings{Ports: map[string][]HostPort{}, Networks: map[string]EndpointSettings{}}
	s, err := m.Sandbox(id)
	if err != nil {
		return set
	}
	set.SandboxID, set.SandboxKey = id, s.Key
	for _, p := range s.Ports {
		key := fmt.Sprintf("%d/%s", p.ContainerPort, p.Proto)
		for _, host := range p.hosts() {
			set.Ports[key] = append(set.Ports[key], HostPort{host, fmt.Sprint(p.HostPort)})
		}
	}
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		es := e.settings(s)
		set.Networks[e.Network] = es
		if e.Network == DefaultBridge {
			set.Gateway, set.IPAddress, set.MacAddress, set.IPPrefixLen = es.Gateway, es.IPAddress, es.MacAddress, es.IPPrefixLen
			set.IPv6Gateway, set.GlobalIPv6Address, set.GlobalIPv6PrefixLen = es.IPv6Gateway, es.GlobalIPv6Address, es.GlobalIPv6PrefixLen
		}
	}
	return set
}

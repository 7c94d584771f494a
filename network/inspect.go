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
}

// HostPort is one host side of a published port.
type HostPort struct{ HostIp, HostPort string }

// EndpointSettings is docker's entry of Networks.
type EndpointSettings struct {
	NetworkID, EndpointID, Gateway, IPAddress, MacAddress string
	IPPrefixLen                                           int
	Aliases                                               []string
	// DNS is not docker's: what a plugin said of name servers.
	DNS *DNS `json:",omitempty"`
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
		ip := p.HostIP
		if ip == "" {
			ip = "0.0.0.0"
		}
		set.Ports[key] = append(set.Ports[key], HostPort{ip, fmt.Sprint(p.HostPort)})
	}
	for _, e := range s.Endpoints {
		prefix, err := netip.ParsePrefix(e.Address)
		if err != nil {
			continue
		}
		es := EndpointSettings{NetworkID: e.NetworkID, EndpointID: id, Gateway: e.Gateway, IPAddress: prefix.Addr().String(), MacAddress: e.MAC, IPPrefixLen: prefix.Bits(), DNS: e.DNS}
		set.Networks[e.Network] = es
		if e.Network == DefaultBridge {
			set.Gateway, set.IPAddress, set.MacAddress, set.IPPrefixLen = es.Gateway, es.IPAddress, es.MacAddress, es.IPPrefixLen
		}
	}
	return set
}

package network

import (
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

// The tests of this file are attacks of SECURITY.md on networks. Each must fail.

// CVE-2020-13401: a container does not become the host's router.
func TestBridgeTakesNoRouterAdvertisements(t *testing.T) {
	m := newManager(t)
	bridge(t, m, &Network{Name: "six", IPv6: true})
	joined(t, m, SandboxConfig{Name: "a", Mode: "six"})
	n, err := m.readNetwork("six")
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + n.Link + "/accept_ra")
	if err != nil || strings.TrimSpace(string(data)) != "0" {
		t.Errorf("accept_ra of %s is %q, %v", n.Link, data, err)
	}
}

// CVE-2020-8558, CVE-2025-54388: a port published on loopback is the host's own, also
// for a neighbour who sends packets to 127.0.0.1 or to the container itself.
func TestNeighbourReachesNoLoopbackPort(t *testing.T) {
	m := newManager(t)
	run(t, "ip", "link", "set", "lo", "up")
	out := neighbour(t)
	bridge(t, m, &Network{Name: "net"})
	s := joined(t, m, SandboxConfig{Name: "a", Mode: "net", Ports: []PortBinding{{HostIP: "127.0.0.1", HostPort: 18091, ContainerPort: 80, Proto: "tcp"}}})
	echo(t, s.Key, "80")
	if err := inNamespace(out, func() error {
		if err := os.WriteFile("/proc/sys/net/ipv4/conf/eth0/route_localnet", []byte("1"), 0); err != nil {
			return err
		}
		_, host, _ := net.ParseCIDR("127.0.0.1/32")
		return netlink.RouteAdd(&netlink.Route{Dst: host, Gw: net.ParseIP("10.99.0.1")})
	}); err != nil {
		t.Fatal(err)
	}
	own := netip.MustParsePrefix(s.Endpoints[0].Address).Addr().String()
	for _, to := range []string{"127.0.0.1:18091", "10.99.0.1:18091", net.JoinHostPort(own, "80"), net.JoinHostPort(own, "18091")} {
		if got := unheard(t, out, to); got != "" {
			t.Errorf("%s is reached from outside: %q", to, got)
		}
	}
	if rules := s.portBlocks(); len(rules) != 1 || len(rules[0].rules) > 0 {
		t.Errorf("rules lead packets to it: %v", rules)
	}
	for _, file := range []string{"all", "default", "wire0", "lo"} {
		if data, _ := os.ReadFile("/proc/sys/net/ipv4/conf/" + file + "/route_localnet"); strings.TrimSpace(string(data)) != "0" {
			t.Errorf("route_localnet of %s is %q", file, data)
		}
	}
}

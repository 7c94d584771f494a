package network

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// neighbour is a host next to the one that the tests play: fd99::2 and 10.99.0.2.
func neighbour(t *testing.T) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ns")
	keep(t, path)
	t.Cleanup(func() { removeNamespace(path) })
	ns, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "wire0"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(ns.Fd()))}
	if err := netlink.LinkAdd(veth); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeLink("wire0") })
	for _, a := range []string{"10.99.0.1/24", "fd99::1/64"} {
		run(t, "ip", "addr", "add", a, "dev", "wire0", "nodad")
	}
	run(t, "ip", "link", "set", "wire0", "up")
	for _, argv := range []string{"addr add 10.99.0.2/24 dev eth0", "addr add fd99::2/64 dev eth0 nodad", "link set eth0 up", "route add default via 10.99.0.1", "route add default via fd99::1"} {
		run(t, append([]string{"nsenter", "--net=" + path, "ip"}, strings.Fields(argv)...)...)
	}
	return ns
}

// echo answers who asks on a port in the sandbox with the asker's address.
func echo(t *testing.T, key string, port string) {
	t.Helper()
	ns, err := os.Open(key)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	var l net.Listener
	if err := inNamespace(ns, func() (err error) {
		l, err = net.Listen("tcp", ":"+port)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, c.RemoteAddr().String())
			c.Close()
		}
	}()
}

// ask is what an echo says to the namespace.
func ask(t *testing.T, ns *os.File, address string) string {
	return dial(t, ns, address, 10*time.Second)
}

// unheard is ask where no answer is expected.
func unheard(t *testing.T, ns *os.File, address string) string {
	return dial(t, ns, address, 300*time.Millisecond)
}

func dial(t *testing.T, ns *os.File, address string, patience time.Duration) (answer string) {
	t.Helper()
	inNamespace(ns, func() error {
		c, err := net.DialTimeout("tcp", address, patience)
		if err != nil {
			if patience > time.Second {
				t.Log(err)
			}
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(5 * time.Second))
		data, err := io.ReadAll(c)
		answer = string(data)
		return err
	})
	return answer
}

func bridge(t *testing.T, m *Manager, n *Network) {
	t.Helper()
	if err := m.Create(context.Background(), n); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Remove(context.Background(), n.Name); err != nil {
			t.Error(err)
		}
	})
}

func joined(t *testing.T, m *Manager, cfg SandboxConfig) *Sandbox {
	t.Helper()
	cfg.ID, cfg.Dir = strings.Repeat(cfg.Name, 64)[:64], t.TempDir()
	s, err := m.Setup(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Teardown(context.Background(), cfg.ID); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestIPv6BridgeIsPublishedTranslatedAndIsolated(t *testing.T) {
	m := newManager(t)
	run(t, "ip", "link", "set", "lo", "up")
	out := neighbour(t)
	bridge(t, m, &Network{Name: "six", IPv6: true})
	bridge(t, m, &Network{Name: "other", IPv6: true, Subnet6: "fd77::/64"})
	port := PortBinding{HostPort: 18086, ContainerPort: 80, Proto: "tcp"}
	s := joined(t, m, SandboxConfig{Name: "a", Hostname: "web", Mode: "six", Ports: []PortBinding{port}})
	e := s.Endpoints[0]
	if n, _ := m.readNetwork("six"); !strings.HasPrefix(n.Subnet6, "fd") || !strings.HasSuffix(n.Subnet6, "::/64") || !strings.HasPrefix(e.Address6, strings.TrimSuffix(n.Subnet6, "/64")+"2/") {
		t.Errorf("%s of %s, want the second of a /64 of fd00::/8", e.Address6, n.Subnet6)
	}
	hosts, _ := os.ReadFile(filepath.Join(s.Dir, "hosts"))
	own, _, _ := strings.Cut(e.Address6, "/")
	if !strings.Contains(string(hosts), own+"\tweb\n") {
		t.Errorf("hosts lack %s:\n%s", own, hosts)
	}
	echo(t, s.Key, "80")
	for _, host := range []string{"10.99.0.1", "fd99::1"} {
		if got := ask(t, out, net.JoinHostPort(host, "18086")); !strings.Contains(got, "99") {
			t.Errorf("through %s: %q, want the client's own address", host, got)
		}
	}
	if got := unheard(t, out, net.JoinHostPort(own, "80")); got != "" {
		t.Errorf("the container's own address is reached from outside: %q", got)
	}
	b := joined(t, m, SandboxConfig{Name: "b", Mode: "six"})
	c := joined(t, m, SandboxConfig{Name: "c", Mode: "other"})
	for _, x := range []struct {
		from *Sandbox
		ask  func(*testing.T, *os.File, string) string
		want bool
	}{{b, ask, true}, {c, unheard, false}} {
		ns, err := os.Open(x.from.Key)
		if err != nil {
			t.Fatal(err)
		}
		if got := x.ask(t, ns, net.JoinHostPort(own, "80")); (got != "") != x.want {
			t.Errorf("from %s: %q", x.from.Name, got)
		}
		if got := ask(t, ns, "[fd99::1]:18086"); got == "" {
			t.Errorf("%s does not reach the port through the host's address", x.from.Name)
		}
		ns.Close()
	}
}

func TestRoutedNetworkShowsItsAddresses(t *testing.T) {
	m := newManager(t)
	out := neighbour(t)
	bridge(t, m, &Network{Name: "routed", IPv6: true, Subnet6: "fd55::/64", Options: map[string]string{optMode4: "routed", optMode6: "routed"}})
	s := joined(t, m, SandboxConfig{Name: "a", Mode: "routed", Ports: []PortBinding{{HostPort: 18088, ContainerPort: 80, Proto: "tcp"}}})
	echo(t, s.Key, "80")
	echo(t, s.Key, "81")
	for _, address := range []string{s.Endpoints[0].Address, s.Endpoints[0].Address6} {
		own := netip.MustParsePrefix(address).Addr().String()
		if got := ask(t, out, net.JoinHostPort(own, "80")); got == "" {
			t.Errorf("%s is not reached from outside", own)
		}
		if got := unheard(t, out, net.JoinHostPort(own, "81")); got != "" {
			t.Errorf("%s is reached at a port that is not published: %q", own, got)
		}
	}
	if s.Ports[0].HostPort != 0 {
		t.Errorf("port %d of the host is taken", s.Ports[0].HostPort)
	}
}

func TestUnprotectedNetworkIsReachedAtEveryPort(t *testing.T) {
	m := newManager(t)
	out := neighbour(t)
	bridge(t, m, &Network{Name: "open", NoIPv4: true, IPv6: true, Subnet6: "fd56::/64", Options: map[string]string{optMode6: "nat-unprotected"}})
	s := joined(t, m, SandboxConfig{Name: "a", Mode: "open"})
	echo(t, s.Key, "81")
	if got := ask(t, out, "[fd56::2]:81"); got == "" {
		t.Error("not reached")
	}
	if e := s.Endpoints[0]; e.Address != "" || e.Default || !e.Default6 {
		t.Errorf("%+v, want IPv6 alone", e)
	}
}

func TestIsolatedNetworkHasNoAddressOfTheHost(t *testing.T) {
	m := newManager(t)
	bridge(t, m, &Network{Name: "alone", IPv6: true, Internal: true, Options: map[string]string{optMode4: "isolated", optMode6: "isolated"}})
	s := joined(t, m, SandboxConfig{Name: "a", Mode: "alone"})
	link, err := netlink.LinkByName(s.Endpoints[0].Bridge)
	if err != nil {
		t.Fatal(err)
	}
	addrs, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	for _, a := range addrs {
		if !a.IP.IsLinkLocalUnicast() {
			t.Errorf("address %s, %v", a, err)
		}
	}
}

func TestPortsAndRouteFollowTheGateway(t *testing.T) {
	m := newManager(t)
	ctx := context.Background()
	out := neighbour(t)
	bridge(t, m, &Network{Name: "first", Subnet: "10.71.0.0/24"})
	bridge(t, m, &Network{Name: "second", Subnet: "10.72.0.0/24"})
	s := joined(t, m, SandboxConfig{Name: "a", Hostname: "web", Mode: "first", Ports: []PortBinding{{HostPort: 18089, ContainerPort: 80, Proto: "tcp"}}})
	echo(t, s.Key, "80")
	check := func(subnet string) {
		t.Helper()
		if got := ask(t, out, "10.99.0.1:18089"); got == "" {
			t.Error("the port is not reached")
		}
		if rules := rulesNow(t); strings.Count(rules, "--dport 18089 -j DNAT") != 1 || !strings.Contains(rules, "--to-destination "+subnet) {
			t.Errorf("want one rule to %s:\n%s", subnet, rules)
		}
		now, err := m.Sandbox(s.ID)
		if err != nil || !strings.HasPrefix(now.target(now.Ports[0]), subnet) {
			t.Errorf("the listener leads to %s, %v", now.target(now.Ports[0]), err)
		}
		hosts, _ := os.ReadFile(filepath.Join(s.Dir, "hosts"))
		if strings.Count(string(hosts), "\tweb\n") != len(now.Endpoints) || !strings.Contains(string(hosts), subnet) {
			t.Errorf("hosts:\n%s", hosts)
		}
	}
	check("10.71.0.")
	if err := m.Connect(ctx, s.ID, EndpointConfig{Network: "second", GwPriority: 1}); err != nil {
		t.Fatal(err)
	}
	check("10.72.0.")
	if err := m.Disconnect(ctx, s.ID, "second"); err != nil {
		t.Fatal(err)
	}
	check("10.71.0.")
}

func TestJoiningLaterBringsTheNameServer(t *testing.T) {
	m := newManager(t)
	ctx := context.Background()
	bridge(t, m, &Network{Name: "named", Subnet: "10.73.0.0/24"})
	other := joined(t, m, SandboxConfig{Name: "b", Mode: "named"})
	t.Cleanup(func() { m.Prune(ctx, nil) }) // the default bridge stays otherwise
	s := joined(t, m, SandboxConfig{Name: "a", Mode: DefaultBridge})
	serving, stop := context.WithCancel(ctx)
	done := make(chan error)
	go func() { done <- m.Serve(serving, s.ID, nil) }()
	defer func() { stop(); <-done }()
	if err := m.Connect(ctx, s.ID, EndpointConfig{Network: "named"}); err != nil {
		t.Fatal(err)
	}
	if text, _ := os.ReadFile(filepath.Join(s.Dir, "resolv.conf")); !strings.Contains(string(text), "nameserver 127.0.0.11\n") {
		t.Errorf("resolv.conf:\n%s", text)
	}
	lookup := func(name string) string {
		ns, err := os.Open(s.Key)
		if err != nil {
			t.Fatal(err)
		}
		defer ns.Close()
		var found []string
		inNamespace(ns, func() (err error) {
			r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (c net.Conn, err error) {
				err = inNamespace(ns, func() error { c, err = net.Dial(network, "127.0.0.11:53"); return err })
				return c, err
			}}
			found, err = r.LookupHost(ctx, name)
			return err
		})
		return strings.Join(found, " ")
	}
	want, _, _ := strings.Cut(other.Endpoints[0].Address, "/")
	for end := time.Now().Add(20 * time.Second); lookup("b") != want; {
		if time.Now().After(end) {
			t.Fatalf("b is %q, want %s", lookup("b"), want)
		}
	}
	if err := m.Rename(ctx, other.ID, "bee"); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); lookup("bee") != want; {
		if time.Now().After(end) {
			t.Fatalf("bee is %q, want %s", lookup("bee"), want)
		}
	}
}

func TestEndpointWishes(t *testing.T) {
	for s, want := range map[string]string{
		"net":                                   "net [] [] 0",
		"name=net,alias=a,alias=b":              "net [a b] [] 0",
		"net:ip=10.0.0.9,mac=02:02:02:02:02:02": "net [] [10.0.0.9 ] 0",
		"name=net,ip=10.0.0.9,ip6=fd00::9,gw-priority=7": "net [] [10.0.0.9 fd00::9] 7",
		"net:ip=fd00::9": "net [] [ fd00::9] 0",
	} {
		e, err := ParseEndpoint(s)
		got := strings.TrimSpace(e.IPv4 + " " + e.IPv6)
		if got != "" {
			got = e.IPv4 + " " + e.IPv6
		}
		text := e.Network + " [" + strings.Join(e.Aliases, " ") + "] [" + got + "] " + string(rune('0'+e.GwPriority))
		if err != nil || text != want {
			t.Errorf("ParseEndpoint(%q) = %s, %v, want %s", s, text, err, want)
		}
	}
	for _, bad := range []string{"name=net,ip", "alias=a", "name=net,driver-opt=x=y", "name=net,gw-priority=high", "net:colour=red", "name=net,driver-opt=" + optIfName + "=a/b"} {
		if e, err := ParseEndpoint(bad); err == nil {
			t.Errorf("ParseEndpoint(%q) = %+v", bad, e)
		}
	}
}

func TestAddressPools(t *testing.T) {
	for _, bad := range []string{"10.0.0.0/8", "10.0.0.1/8:24", "10.0.0.0/16:8", "10.0.0.0/24:31", "x:24", ":"} {
		if list, err := parsePools(bad); err == nil {
			t.Errorf("parsePools(%q) = %v", bad, list)
		}
	}
	list, err := parsePools("10.0.0.0/30:30,fd00:1::/32:64")
	if err != nil || len(list) != 2 {
		t.Fatal(list, err)
	}
	var all []string
	for p := range (poolRange{netip.MustParsePrefix("255.255.255.0/24"), 26}).subnets() {
		all = append(all, p.String())
	}
	if strings.Join(all, " ") != "255.255.255.0/26 255.255.255.64/26 255.255.255.128/26 255.255.255.192/26" {
		t.Errorf("%v", all)
	}
}

func TestPoolsAvoidTheHostsRoutes(t *testing.T) {
	m := newManager(t)
	run(t, "ip", "link", "add", "vpn0", "type", "bridge")
	t.Cleanup(func() { removeLink("vpn0") })
	run(t, "ip", "addr", "add", "10.250.0.1/32", "dev", "vpn0")
	run(t, "ip", "link", "set", "vpn0", "up")
	run(t, "ip", "route", "add", "172.16.0.0/12", "dev", "vpn0")
	n := &Network{Name: "x"}
	bridge(t, m, n)
	if !strings.HasPrefix(n.Subnet, "192.168.") {
		t.Errorf("%s, want one that the VPN leaves", n.Subnet)
	}
	run(t, "ip", "route", "add", "192.168.0.0/16", "dev", "vpn0")
	if err := m.Create(context.Background(), &Network{Name: "y"}); err == nil || !strings.Contains(err.Error(), "--address-pools") {
		t.Errorf("error %v", err)
	}
	m.o.AddressPools = "10.200.0.0/16:28"
	y := &Network{Name: "y"}
	bridge(t, m, y)
	if y.Subnet != "10.200.0.0/28" {
		t.Errorf("%s", y.Subnet)
	}
}

func TestManyNetworksInSmallPools(t *testing.T) {
	m := newManager(t)
	m.o.AddressPools = "10.200.0.0/20:28"
	taken := map[string]bool{}
	for i := range 256 {
		n := &Network{Name: fmt.Sprint("n", i)}
		if err := m.Create(context.Background(), n); err != nil || taken[n.Subnet] {
			t.Fatal(n.Name, n.Subnet, err)
		}
		taken[n.Subnet] = true
	}
	if err := m.Create(context.Background(), &Network{Name: "more"}); err == nil {
		t.Error("a network beyond the pools")
	}
	if err := m.Remove(context.Background(), "n77"); err != nil {
		t.Fatal(err)
	}
	again := &Network{Name: "again"}
	if err := m.Create(context.Background(), again); err != nil || !taken[again.Subnet] {
		t.Error(again.Subnet, err)
	}
	if removed, err := m.Prune(context.Background(), nil); err != nil || len(removed) != 256 {
		t.Error(len(removed), err)
	}
}

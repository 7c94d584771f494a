package network

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/state"
	"github.com/kist-containers/kist/internal/sys"
)

// TestMain runs the tests in a network namespace of their own, which plays the host.
func TestMain(m *testing.M) {
	host := os.Getenv("KIST_TEST_HOST") != ""
	if host {
		sys.LoopbackUp() // Go asks once, and of ::1, whether there is IPv6
	}
	if host || os.Geteuid() != 0 {
		os.Exit(m.Run())
	}
	runtime.LockOSThread()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), "KIST_TEST_HOST=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if cmd.Run() != nil {
		os.Exit(1)
	}
}

func newManager(t *testing.T) *Manager {
	t.Helper()
	if os.Getenv("KIST_TEST_HOST") == "" {
		t.Skip("needs root, to make network namespaces")
	}
	dir := t.TempDir()
	m := Open(state.Roots{Data: filepath.Join(dir, "data"), Run: filepath.Join(dir, "run")}, Options{})
	t.Cleanup(func() {
		if err := m.retire(context.Background()); err != nil { // rules would be in the next test's way
			t.Error(err)
		}
	})
	return m
}

// sandbox joins a sandbox to a network and returns what runs a command in it.
func sandbox(t *testing.T, m *Manager, id, network string) (*Sandbox, func(argv ...string) error) {
	t.Helper()
	cfg := SandboxConfig{ID: strings.Repeat(id, 64)[:64], Name: id, Mode: network, Dir: t.TempDir()}
	s, err := m.Setup(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Teardown(context.Background(), cfg.ID); err != nil {
			t.Error(err)
		}
	})
	return s, func(argv ...string) error {
		out, err := exec.Command("nsenter", append([]string{"--net=" + s.Key}, argv...)...).CombinedOutput()
		if err != nil {
			t.Logf("%v: %s", argv, out)
		}
		return err
	}
}

func TestBadNetworks(t *testing.T) {
	m := newManager(t)
	if err := m.Create(context.Background(), &Network{Name: "taken", Subnet: "10.1.0.0/16"}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		n    Network
		want string
	}{
		{Network{Name: "taken"}, "already exists"},
		{Network{Name: "host"}, "not allowed"},
		{Network{Name: "a/b"}, "not allowed"},
		{Network{Name: "x", Subnet: "10.1.2.0/24"}, "overlaps with 10.1.0.0/16 of network taken"},
		{Network{Name: "x", Subnet: "10.2.0.1/16"}, "--subnet"},
		{Network{Name: "x", Subnet: "nonsense"}, "--subnet"},
		{Network{Name: "x", Subnet: "10.2.0.0/16", Gateway: "10.3.0.1"}, "--gateway 10.3.0.1: not an address of"},
		{Network{Name: "x", Subnet: "10.2.0.0/16", IPRange: "10.0.0.0/8"}, "--ip-range"},
		{Network{Name: "x", Driver: "magic"}, "driver"},
		{Network{Name: "x", Options: map[string]string{"parent": "eth0"}}, "option parent"},
		{Network{Name: "x", Options: map[string]string{optMTU: "big"}}, optMTU},
		{Network{Name: "x", Options: map[string]string{optICC: "perhaps"}}, optICC},
		{Network{Name: "x", Driver: "macvlan", Options: map[string]string{"parent": "none0"}}, "no such link"},
		{Network{Name: "x", Driver: "macvlan", Options: map[string]string{"parent": "lo", "macvlan_mode": "best"}}, "macvlan_mode=best"},
		{Network{Name: "x", Driver: "ipvlan", Options: map[string]string{"parent": "lo", "ipvlan_mode": "l4"}}, "ipvlan_mode=l4"},
	} {
		if err := m.Create(context.Background(), &c.n); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.n, err, c.want)
		}
	}
	list, err := m.List()
	if err != nil || len(list) != 1 {
		t.Errorf("%d networks, %v; want the one", len(list), err)
	}
}

func TestAddressesInOrder(t *testing.T) {
	n := &Network{Name: "x", Subnet: "10.0.0.0/29", Gateway: "10.0.0.1", Reserved: map[string]string{"router": "10.0.0.3"}, Leases: map[string]string{"10.0.0.2": "a"}}
	for _, want := range []string{"10.0.0.4", "10.0.0.5", "10.0.0.6"} {
		a, ok := n.lowestFree(n.families()[0])
		if !ok || a.String() != want {
			t.Fatalf("%v %v, want %s", a, ok, want)
		}
		n.Leases[want] = "b"
	}
	if a, ok := n.lowestFree(n.families()[0]); ok {
		t.Errorf("%v of an exhausted pool", a)
	}
	n = &Network{Name: "x", Subnet: "10.0.0.0/24", IPRange: "10.0.0.128/25", Gateway: "10.0.0.1"}
	if a, _ := n.lowestFree(n.families()[0]); a.String() != "10.0.0.128" {
		t.Errorf("%v, want the range's first (docker)", a)
	}
	for _, bad := range []string{"10.0.1.5", "10.0.0.1", "10.0.0.0", "10.0.0.255", "x"} {
		if a, err := n.wanted(n.families()[0], bad); err == nil {
			t.Errorf("--ip %s gave %v", bad, a)
		}
	}
}

func TestRulesOfBridges(t *testing.T) {
	text := func(n *Network) string {
		gates, ways := n.rules(n.families()[0])
		var b strings.Builder
		for _, r := range append(gates, ways...) {
			b.WriteString(r.chain + " " + strings.Join(r.spec, " ") + "\n")
		}
		return b.String()
	}
	for _, c := range []struct {
		n    Network
		want string
	}{
		{Network{Link: "b", Subnet: "S"}, "KIST-FORWARD -o b -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\nKIST-FORWARD -o b -j KIST-PORTS\nKIST-FORWARD ! -i b -o b -j DROP\nKIST-FORWARD -i b -o b -j ACCEPT\nKIST-FORWARD -i b ! -o b -j ACCEPT\nKIST-MASQ -s S ! -o b -j MASQUERADE\n"},
		{Network{Link: "b", Subnet: "S", Internal: true}, "KIST-FORWARD ! -s S -o b -j DROP\nKIST-FORWARD ! -d S -i b -j DROP\nKIST-FORWARD -i b -o b -j ACCEPT\n"},
		{Network{Link: "b", Subnet: "S", Options: map[string]string{optICC: "false", optMasquerade: "false"}}, "KIST-FORWARD -o b -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\nKIST-FORWARD -o b -j KIST-PORTS\nKIST-FORWARD ! -i b -o b -j DROP\nKIST-FORWARD -i b -o b -j DROP\nKIST-FORWARD -i b ! -o b -j ACCEPT\n"},
	} {
		if got := text(&c.n); got != c.want {
			t.Errorf("rules\n%swant\n%s", got, c.want)
		}
	}
}

func TestVLANOfAName(t *testing.T) {
	for name, want := range map[string]int{"eth0.50": 50, "a.b.1": 1, "eth0.4094": 4094, "eth0": 0, "eth0.0": 0, "eth0.4095": 0, ".5": 0, "eth0.x": 0} {
		if _, id, ok := vlanParent(name); ok != (want > 0) || ok && id != want {
			t.Errorf("vlanParent(%q) = %d, %v", name, id, ok)
		}
	}
}

// keep makes a namespace that plays a host.
func keep(t *testing.T, path string) {
	t.Helper()
	ns, err := makeNamespace(path)
	if err != nil {
		t.Fatal(err)
	}
	ns.close()
}

// wire is a cable of the host's, the far end in a namespace that plays the network.
func wire(t *testing.T, name, far string) (sandbox string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "far")
	ns, err := makeNamespace(path)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.close()
	t.Cleanup(func() { removeNamespace(path) })
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "far0", PeerNamespace: netlink.NsFd(int(ns.Fd()))}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeLink(name) })
	if err := errors.Join((&Endpoint{Link: "far0", Address: far}).configure(ns.links), setUp(name)); err != nil {
		t.Fatal(err)
	}
	return path
}

// supports makes the link once, and skips where the kernel has none such.
func supports(t *testing.T, link netlink.Link) {
	t.Helper()
	err := netlink.LinkAdd(link)
	if errors.Is(err, unix.EOPNOTSUPP) {
		t.Skipf("needs %s in the kernel", link.Type())
	}
	if err != nil {
		t.Fatal(err)
	}
	netlink.LinkDel(link)
}

func index(t *testing.T, name string) int {
	t.Helper()
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return l.Attrs().Index
}

func TestMacvlan(t *testing.T) {
	if _, err := exec.LookPath("busybox"); err != nil {
		t.Skip("needs busybox, for ping")
	}
	m := newManager(t)
	wire(t, "wire0", "10.77.0.1/24")
	supports(t, &netlink.Macvlan{LinkAttrs: netlink.LinkAttrs{Name: "probe0", ParentIndex: index(t, "wire0")}, Mode: netlink.MACVLAN_MODE_BRIDGE})
	for mode, among := range map[string]bool{"bridge": true, "private": false, "vepa": false} {
		t.Run(mode, func(t *testing.T) {
			n := &Network{Name: "mac-" + mode, Driver: "macvlan", Subnet: "10.77.0.0/24", Options: map[string]string{"parent": "wire0", "macvlan_mode": mode}}
			if err := m.Create(context.Background(), n); err != nil {
				t.Fatal(err)
			}
			one, run := sandbox(t, m, "1", n.Name)
			two, _ := sandbox(t, m, "2", n.Name)
			if err := run("busybox", "ping", "-c1", "-W5", "10.77.0.1"); err != nil {
				t.Errorf("from %s to the parent's network: %v", one.Endpoints[0].Address, err)
			}
			addr := netip.MustParsePrefix(two.Endpoints[0].Address).Addr().String()
			if err := run("busybox", "ping", "-c1", "-W1", addr); (err == nil) != among {
				t.Errorf("among containers: %v, want reachable %v", err, among)
			}
			for _, s := range []*Sandbox{one, two} {
				if err := m.Teardown(context.Background(), s.ID); err != nil {
					t.Error(err)
				}
			}
			if err := m.Remove(context.Background(), n.Name); err != nil {
				t.Error(err)
			}
		})
	}
	if _, err := netlink.LinkByName("wire0"); err != nil {
		t.Error("the parent, which is not kist's, was removed")
	}
}

func TestIpvlan(t *testing.T) {
	if _, err := exec.LookPath("busybox"); err != nil {
		t.Skip("needs busybox, for ping")
	}
	m := newManager(t)
	wire(t, "wire1", "10.78.0.1/24")
	supports(t, &netlink.IPVlan{LinkAttrs: netlink.LinkAttrs{Name: "probe1", ParentIndex: index(t, "wire1")}})
	n := &Network{Name: "l2", Driver: "ipvlan", Subnet: "10.78.0.0/24", Options: map[string]string{"parent": "wire1"}}
	if err := m.Create(context.Background(), n); err != nil {
		t.Fatal(err)
	}
	s, run := sandbox(t, m, "3", "l2")
	if err := run("busybox", "ping", "-c1", "-W5", "10.78.0.1"); err != nil {
		t.Error(err)
	}
	if err := errors.Join(m.Teardown(context.Background(), s.ID), m.Remove(context.Background(), "l2")); err != nil {
		t.Error(err)
	}
}

// In layer 3 the parent's network has a route to the containers by this host.
func TestIpvlanRoutes(t *testing.T) {
	m := newManager(t)
	far := wire(t, "wire3", "10.76.0.1/24")
	supports(t, &netlink.IPVlan{LinkAttrs: netlink.LinkAttrs{Name: "probe3", ParentIndex: index(t, "wire3")}})
	if err := (&Endpoint{Link: "wire3", Address: "10.76.0.2/24"}).configure(&netlink.Handle{}); err != nil {
		t.Fatal(err)
	}
	inFar(t, far, func() error {
		return netlink.RouteAdd(&netlink.Route{Dst: &net.IPNet{IP: net.IPv4(10, 88, 0, 0), Mask: net.CIDRMask(24, 32)}, Gw: net.IPv4(10, 76, 0, 2)})
	})
	for _, mode := range []string{"l3", "l3s"} {
		n := &Network{Name: mode, Driver: "ipvlan", Subnet: "10.88.0.0/24", Options: map[string]string{"parent": "wire3", "ipvlan_mode": mode}}
		if err := m.Create(context.Background(), n); err != nil {
			t.Fatal(err)
		}
		one, run := sandbox(t, m, "5", mode)
		two, _ := sandbox(t, m, "6", mode)
		addr, _, _ := strings.Cut(two.Endpoints[0].Address, "/")
		if err := errors.Join(run("busybox", "ping", "-c1", "-W5", "10.76.0.1"), run("busybox", "ping", "-c1", "-W5", addr)); err != nil {
			t.Errorf("%s: %v", mode, err)
		}
		if err := errors.Join(m.Teardown(context.Background(), one.ID), m.Teardown(context.Background(), two.ID), m.Remove(context.Background(), mode)); err != nil {
			t.Error(err)
		}
	}
}

func inFar(t *testing.T, path string, f func() error) {
	t.Helper()
	ns, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if err := inNamespace(ns, f); err != nil {
		t.Fatal(err)
	}
}

func TestVLANParentIsMadeAndRemoved(t *testing.T) {
	m := newManager(t)
	far := wire(t, "wire2", "10.79.0.1/24")
	supports(t, &netlink.Vlan{LinkAttrs: netlink.LinkAttrs{Name: "probe2", ParentIndex: index(t, "wire2")}, VlanId: 9})
	inFar(t, far, func() error {
		link, err := netlink.LinkByName("far0")
		if err == nil {
			err = netlink.LinkAdd(&netlink.Vlan{LinkAttrs: netlink.LinkAttrs{Name: "far0.50", ParentIndex: link.Attrs().Index}, VlanId: 50})
		}
		return errors.Join(err, (&Endpoint{Link: "far0.50", Address: "10.80.0.1/24"}).configure(&netlink.Handle{}))
	})
	n := &Network{Name: "v", Driver: "macvlan", Subnet: "10.80.0.0/24", Options: map[string]string{"parent": "wire2.50"}}
	if err := m.Create(context.Background(), n); err != nil {
		t.Fatal(err)
	}
	s, run := sandbox(t, m, "4", "v")
	if err := run("busybox", "ping", "-c1", "-W5", "10.80.0.1"); err != nil {
		t.Errorf("through the VLAN: %v", err)
	}
	if _, err := netlink.LinkByName("wire2.50"); err != nil {
		t.Error(err)
	}
	if err := errors.Join(m.Teardown(context.Background(), s.ID), m.Remove(context.Background(), "v")); err != nil {
		t.Error(err)
	}
	if _, err := netlink.LinkByName("wire2.50"); err == nil {
		t.Error("the VLAN's link stays")
	}
}

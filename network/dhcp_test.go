package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/vishvananda/netlink"
)

// dhcpServer serves 10.81.0.FIRST and its two next on a wire's far end.
func dhcpServer(t *testing.T, far string, first int) (stop func()) {
	t.Helper()
	dir := t.TempDir()
	conf := filepath.Join(dir, "udhcpd.conf")
	text := fmt.Sprintf("start 10.81.0.%d\nend 10.81.0.%d\ninterface far0\nlease_file %s/leases\npidfile %s/pid\n"+
		"option subnet 255.255.255.0\noption router 10.81.0.1\noption dns 10.81.0.53\noption domain dhcp.example\noption lease 60\nmin_lease 30\n", first, first+2, dir, dir)
	if err := errors.Join(os.WriteFile(conf, []byte(text), 0o600), os.WriteFile(dir+"/leases", nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("nsenter", "--net="+far, "busybox", "udhcpd", "-f", "-a", "100", conf)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = func() {
		cmd.Process.Kill()
		cmd.Wait()
	}
	t.Cleanup(stop)
	return stop
}

func TestDHCP(t *testing.T) {
	if out, _ := exec.Command("busybox", "--list").Output(); !strings.Contains(string(out), "udhcpd") {
		t.Skip("needs busybox with udhcpd")
	}
	m, ctx := newManager(t), context.Background()
	for _, driver := range []string{"macvlan", "ipvlan"} {
		t.Run(driver, func(t *testing.T) {
			parent := driver + "8"
			far := wire(t, parent, "10.81.0.1/24")
			attrs := netlink.LinkAttrs{Name: "probe8", ParentIndex: index(t, parent)}
			supports(t, map[string]netlink.Link{"macvlan": &netlink.Macvlan{LinkAttrs: attrs, Mode: netlink.MACVLAN_MODE_BRIDGE}, "ipvlan": &netlink.IPVlan{LinkAttrs: attrs}}[driver])
			stop := dhcpServer(t, far, 100)
			n := &Network{Name: "lan-" + driver, Driver: driver, IPAM: "dhcp", Options: map[string]string{"parent": parent}}
			if err := m.Create(ctx, n); err != nil {
				t.Fatal(err)
			}
			one, run := sandbox(t, m, "1", n.Name)
			e := one.Endpoints[0]
			if !strings.HasPrefix(e.Address, "10.81.0.10") || !strings.HasSuffix(e.Address, "/24") || e.Gateway != "10.81.0.1" || e.DNS == nil || e.DNS.Servers[0] != "10.81.0.53" {
				t.Errorf("endpoint %+v", e)
			}
			if driver == "macvlan" { // udhcpd does not tell the clients of one MAC apart
				two, _ := sandbox(t, m, "2", n.Name)
				if err := m.Teardown(ctx, two.ID); err != nil || two.Endpoints[0].Address == e.Address {
					t.Errorf("both have %s, %v", e.Address, err)
				}
			}
			if err := run("busybox", "ping", "-c1", "-W5", "10.81.0.1"); err != nil {
				t.Error(err)
			}
			if err := m.renewLease(ctx, one.ID, n.Name); err != nil {
				t.Errorf("renew: %v", err)
			}
			if now, _ := m.Sandbox(one.ID); !now.Endpoints[0].LeasedAt.After(e.LeasedAt) || now.Endpoints[0].Address != e.Address {
				t.Errorf("renewed to %+v", now.Endpoints[0])
			}
			// Another server, which refuses the address: the endpoint moves.
			stop()
			dhcpServer(t, far, 200)
			expire(t, m, one.ID)
			if err := m.renewLease(ctx, one.ID, n.Name); err != nil {
				t.Fatalf("ask again: %v", err)
			}
			now, _ := m.Sandbox(one.ID)
			out, _ := exec.Command("nsenter", "--net="+one.Key, "ip", "-4", "addr").Output()
			if addr := now.Endpoints[0].Address; !strings.HasPrefix(addr, "10.81.0.20") || !strings.Contains(string(out), addr) || strings.Contains(string(out), e.Address) {
				t.Errorf("moved to %s:\n%s", addr, out)
			}
			if err := run("busybox", "ping", "-c1", "-W5", "10.81.0.1"); err != nil {
				t.Error(err)
			}
			if err := errors.Join(m.Teardown(ctx, one.ID), m.Remove(ctx, n.Name)); err != nil {
				t.Error(err)
			}
		})
	}
}

// expire makes the lease of a sandbox one that ended long ago.
func expire(t *testing.T, m *Manager, id string) {
	t.Helper()
	s, err := m.Sandbox(id)
	if err != nil {
		t.Fatal(err)
	}
	s.Endpoints[0].LeasedAt = s.Endpoints[0].LeasedAt.AddDate(0, 0, -1)
	if err := m.record(s); err != nil {
		t.Fatal(err)
	}
}

func TestPluginGivesAddresses(t *testing.T) {
	m, ctx := newManager(t), context.Background()
	cniConf(t, "{}")
	n := &Network{Name: "plugged", Subnet: "10.95.0.0/24", IPRange: "10.95.0.128/25", IPAM: "host-local"}
	if err := m.Create(ctx, n); err != nil {
		t.Fatal(err)
	}
	s, run := sandbox(t, m, "h", "plugged")
	if a := s.Endpoints[0].Address; !strings.HasPrefix(a, "10.95.0.12") {
		t.Errorf("address %s, want the first of %s", a, n.IPRange)
	}
	if err := run("busybox", "ping", "-c1", "-W5", "10.95.0.1"); err != nil {
		t.Error(err)
	}
	cfg := SandboxConfig{ID: strings.Repeat("i", 64), Name: "i", Dir: t.TempDir(), Endpoints: []EndpointConfig{{Network: "plugged", IPv4: "10.95.0.200"}}}
	two, err := m.Setup(ctx, cfg)
	if err != nil || two.Endpoints[0].Address != "10.95.0.200/24" {
		t.Errorf("%v %v, want the address of --ip", two, err)
	}
	cfg.ID = strings.Repeat("j", 64)
	if _, err := m.Setup(ctx, cfg); err == nil || !strings.Contains(err.Error(), "10.95.0.200") {
		t.Errorf("an address given twice: %v", err)
	}
	if err := errors.Join(m.Teardown(ctx, s.ID), m.Teardown(ctx, two.ID), m.Remove(ctx, "plugged")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(m.pluginData(n)); err == nil {
		t.Error("the plugin's leases stay")
	}
}

func TestBadAddressDrivers(t *testing.T) {
	m := newManager(t)
	for _, c := range []struct {
		n    Network
		want string
	}{
		{Network{IPAM: "nosuch"}, "--ipam-driver nosuch: plugin nosuch: not in"},
		{Network{IPAM: "../sh"}, "--ipam-driver ../sh"},
		{Network{IPAM: "dhcp"}, "only a macvlan"},
		{Network{IPAM: "dhcp", Driver: "macvlan"}, "only a macvlan"},
		{Network{IPAM: "dhcp", Driver: "macvlan", Subnet: "10.0.0.0/24", Options: map[string]string{"parent": "lo"}}, "leave --subnet out"},
		{Network{IPAM: "dhcp", Driver: "ipvlan", Options: map[string]string{"parent": "lo", "ipvlan_mode": "l3"}}, "only a macvlan"},
		{Network{IPAM: "host-local", Driver: "macvlan", Gateway: "10.0.0.1"}, "need --subnet"},
		{Network{IPAM: "host-local", Driver: "overlay", Subnet: "10.0.0.0/24", Options: map[string]string{optPeers: "192.0.2.1", optVNI: "5"}}, "an overlay's hosts"},
		{Network{IPAMOptions: map[string]string{"a": "b"}}, "has no options"},
	} {
		c.n.Name = "x"
		if err := m.Create(context.Background(), &c.n); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%+v: %v, want %q", c.n, err, c.want)
		}
	}
	if list, _ := m.List(); len(list) > 0 {
		t.Errorf("refused networks are there: %v", list)
	}
}

func FuzzDHCPACK(f *testing.F) {
	ack, err := dhcpv4.New(dhcpv4.WithYourIP(net.IPv4(10, 0, 0, 9)), dhcpv4.WithNetmask(net.CIDRMask(24, 32)), dhcpv4.WithRouter(net.IPv4(10, 0, 0, 1)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(ack.ToBytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		ack, err := dhcpv4.FromBytes(data)
		if err != nil {
			return
		}
		e := new(Endpoint)
		if e.adoptACK(ack) != nil {
			return
		}
		if _, err := netlink.ParseAddr(e.Address); err != nil {
			t.Errorf("address %q: %v", e.Address, err)
		}
		if _, _, err := e.leaseTimes(); err != nil {
			t.Error(err)
		}
	})
}

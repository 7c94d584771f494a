package network

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

// cable joins the host of the tests and a second one, 192.0.2.1 and .2.
func cable(t *testing.T) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "host2")
	keep(t, path)
	ns, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "cable0", MTU: 1400}, PeerName: "cable0", PeerNamespace: netlink.NsFd(int(ns.Fd())), PeerMTU: 1400}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		removeLink("cable0")
		ns.Close()
		removeNamespace(path)
	})
	far := func() error { return (&Endpoint{Link: "cable0", Address: "192.0.2.2/24"}).configure(&netlink.Handle{}) }
	if err := errors.Join((&Endpoint{Link: "cable0", Address: "192.0.2.1/24"}).configure(&netlink.Handle{}), inNamespace(ns, far)); err != nil {
		t.Fatal(err)
	}
	return ns
}

func TestOverlayOfTwoHosts(t *testing.T) {
	if _, err := exec.LookPath("busybox"); err != nil {
		t.Skip("needs busybox, for ping")
	}
	m1, m2 := newManager(t), newManager(t)
	host2 := cable(t)
	create := func(m *Manager, peer, ips string) error {
		return m.Create(context.Background(), &Network{Name: "over", Driver: "overlay", Subnet: "10.66.0.0/24", IPRange: ips,
			Options: map[string]string{optPeers: peer, optVNI: "4242"}})
	}
	if err := errors.Join(create(m1, "192.0.2.2", "10.66.0.0/25"), inNamespace(host2, func() error { return create(m2, "192.0.2.1", "10.66.0.128/25") })); err != nil {
		t.Fatal(err)
	}
	one, run := sandbox(t, m1, "a", "over")
	cfg := SandboxConfig{ID: strings.Repeat("b", 64), Name: "b", Mode: "over", Dir: t.TempDir()}
	var two *Sandbox
	err := inNamespace(host2, func() (err error) {
		two, err = m2.Setup(context.Background(), cfg)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := two.Endpoints[0].Address; got != "10.66.0.128/24" {
		t.Errorf("the second host gave %s", got)
	}
	// 1400 less the tunnel's 50: the largest packet that may not be split.
	if err := run("busybox", "ping", "-c1", "-W5", "-s", "1322", "10.66.0.128"); err != nil {
		t.Errorf("from %s: %v", one.Endpoints[0].Address, err)
	}
	out, err := exec.Command("nsenter", "--net="+one.Key, "ip", "link", "show", "eth0").Output()
	if err != nil || !strings.Contains(string(out), "mtu 1350") {
		t.Errorf("%s %v, want an MTU of 1350", out, err)
	}
	err = inNamespace(host2, func() error {
		return errors.Join(m2.Teardown(context.Background(), cfg.ID), m2.Remove(context.Background(), "over"))
	})
	if err := errors.Join(err, m1.Teardown(context.Background(), one.ID), m1.Remove(context.Background(), "over")); err != nil {
		t.Error(err)
	}
	links, _ := netlink.LinkList()
	for _, l := range links {
		if strings.HasPrefix(l.Attrs().Name, "ov-") || strings.HasPrefix(l.Attrs().Name, "vx-") {
			t.Errorf("%s stays", l.Attrs().Name)
		}
	}
}

func TestBadOverlays(t *testing.T) {
	m := newManager(t)
	for want, o := range map[string]map[string]string{
		"vxlanid_list=0":   {optPeers: "192.0.2.1", optVNI: "0"},
		"addresses of its": {optVNI: "5"},
		"no other host":    {optPeers: "127.0.0.1", optVNI: "5"},
		"not an address":   {optStore: "http://192.0.2.9:1", optAdvertise: "198.51.100.7", optVNI: "5"},
		"vxlanid_list=NUM": {optPeers: "192.0.2.1"},
		"option mode":      {optPeers: "192.0.2.1", optVNI: "5", "mode": "l9"},
		"not a host's":     {optPeers: "192.0.2.1,there", optVNI: "5"},
	} {
		err := m.Create(context.Background(), &Network{Name: "x", Driver: "overlay", Subnet: "10.66.0.0/24", Options: o})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", o, err, want)
		}
	}
}

// A link or a store that is missing, or an id that is taken, is found when a
// container joins: it fails in one line, and no sandbox stays.
func TestJoinsThatFail(t *testing.T) {
	m, ctx := newManager(t), context.Background()
	cable(t)
	if err := setUp("lo"); err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "gone0"}}); err != nil {
		t.Fatal(err)
	}
	overlay := func(name, subnet, vni string, more ...string) *Network {
		o := map[string]string{optPeers: "192.0.2.1,192.0.2.2", optVNI: vni}
		for i := 0; i < len(more); i += 2 {
			o[more[i]] = more[i+1]
		}
		return &Network{Name: name, Driver: "overlay", Subnet: subnet, Options: o}
	}
	for _, n := range []*Network{
		{Name: "mac", Driver: "macvlan", Subnet: "10.70.0.0/24", Options: map[string]string{"parent": "gone0"}},
		{Name: "ip", Driver: "ipvlan", Subnet: "10.71.0.0/24", Options: map[string]string{"parent": "gone0"}},
		{Name: "vlan", Driver: "macvlan", Subnet: "10.72.0.0/24", Options: map[string]string{"parent": "gone0.7"}},
		overlay("first", "10.73.0.0/24", "7"), overlay("second", "10.74.0.0/24", "7"),
		overlay("away", "10.75.0.0/24", "8", optStore, "http://192.0.2.1:1", optAdvertise, "192.0.2.1"),
	} {
		if err := m.Create(ctx, n); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { m.Remove(ctx, n.Name) })
	}
	removeLink("gone0")
	sandbox(t, m, "1", "first")
	for network, want := range map[string]string{
		"mac":    "parent gone0: no such link on this host",
		"ip":     "parent gone0: no such link on this host",
		"vlan":   "parent gone0: no such link on this host",
		"second": "another VXLAN of this host has the id 7",
		"away":   `store: Post "http://192.0.2.1:1`,
	} {
		cfg := SandboxConfig{ID: strings.Repeat("2", 64), Name: "2", Mode: network, Dir: t.TempDir()}
		_, err := m.Setup(ctx, cfg)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %q", network, err, want)
		}
		if _, err := m.Sandbox(cfg.ID); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: the sandbox stays: %v", network, err)
		}
	}
}

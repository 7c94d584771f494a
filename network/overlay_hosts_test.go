package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/state"
	"github.com/kist-containers/kist/network/etcd"
	"github.com/kist-containers/kist/network/etcd/etcdtest"
)

// overlayHost is a host of the tests: 192.0.2.N in a namespace of its own. The
// first is the one that the tests run in.
type overlayHost struct {
	m  *Manager
	ns *os.File
	at string
}

func (h *overlayHost) do(f func() error) error { return inNamespace(h.ns, f) }

// lan makes hosts that a switch joins.
func lan(t *testing.T, count int) (hosts []*overlayHost) {
	t.Helper()
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "lan0"}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeLink("lan0") })
	if err := (&Endpoint{Link: "lan0", Address: "192.0.2.1/24"}).configure(&netlink.Handle{}); err != nil {
		t.Fatal(err)
	}
	for i := range count {
		h := &overlayHost{m: newManager(t), at: fmt.Sprintf("192.0.2.%d", i+1)}
		hosts = append(hosts, h)
		path := "/proc/thread-self/ns/net"
		if i > 0 {
			path = filepath.Join(t.TempDir(), "host")
			keep(t, path)
			t.Cleanup(func() { removeNamespace(path) })
		}
		var err error
		if h.ns, err = os.Open(path); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { h.ns.Close() })
		if i == 0 {
			continue
		}
		port := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: fmt.Sprintf("lan%d", i), MasterIndex: index(t, "lan0")}, PeerName: "lan0", PeerNamespace: netlink.NsFd(int(h.ns.Fd()))}
		far := func() error { return (&Endpoint{Link: "lan0", Address: h.at + "/24"}).configure(&netlink.Handle{}) }
		if err := errors.Join(netlink.LinkAdd(port), setUp(port.Name), h.do(far)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { removeLink(port.Name) })
	}
	return hosts
}

// floods are the hosts that the overlay's broadcasts go to.
func (h *overlayHost) floods(t *testing.T, n *Network) (list []string) {
	t.Helper()
	if err := h.do(func() error {
		link, err := netlink.LinkByName(n.vxlan())
		if err != nil {
			return err
		}
		known, err := netlink.NeighList(link.Attrs().Index, unix.AF_BRIDGE)
		for _, e := range known {
			if e.HardwareAddr.String() == flood.String() {
				list = append(list, e.IP.String())
			}
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	slices.Sort(list)
	return list
}

// TestOverlayOfThreeHosts has its store behind TLS with certificates of the hosts,
// and is encrypted where the kernel can.
func TestOverlayOfThreeHosts(t *testing.T) {
	if _, err := exec.LookPath("busybox"); err != nil {
		t.Skip("needs busybox, for ping")
	}
	if os.Getenv("KIST_TEST_VM") != "" {
		needsESP(t)
	}
	hosts, ctx := lan(t, 3), context.Background()
	cert, key := etcdtest.Certificate(t, net.IPv4(192, 0, 2, 1))
	at := "https://192.0.2.1:" + etcdServer(t, "--cert-file", cert, "--key-file", key, "--client-cert-auth", "--trusted-ca-file", cert)
	c, err := etcd.Open(etcd.Config{URL: at, CAFile: cert, CertFile: cert, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the store answers", func() bool { _, err := c.List(ctx, "/"); return err == nil })

	// What the elected monitors do, one round at a time.
	round := func(hosts ...*overlayHost) {
		t.Helper()
		for _, h := range hosts {
			if err := h.do(func() error { return h.m.syncStore(ctx, "over") }); err != nil {
				t.Errorf("%s: %v", h.at, err)
			}
		}
	}
	join := func(h *overlayHost, id string) *Sandbox {
		t.Helper()
		cfg := SandboxConfig{ID: strings.Repeat(id, 64), Name: "on-" + id, Mode: "over", Dir: t.TempDir()}
		var s *Sandbox
		if err := h.do(func() (err error) { s, err = h.m.Setup(ctx, cfg); return err }); err != nil {
			t.Fatalf("%s: %v", h.at, err)
		}
		return s
	}
	reach := func(from, to *Sandbox) error {
		addr, _, _ := strings.Cut(to.Endpoints[0].Address, "/")
		out, err := exec.Command("nsenter", "--net="+from.Key, "busybox", "ping", "-c1", "-W5", addr).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s to %s: %w: %s", from.Name, to.Name, err, out)
		}
		return nil
	}
	var boxes []*Sandbox
	for i, h := range hosts {
		o := map[string]string{optStore: at, optVNI: "4244", optAdvertise: h.at, "store.cacert": cert, "store.cert": cert, "store.key": key}
		if h.do(probeESP) == nil {
			o[optEncrypted] = ""
		}
		if err := h.do(func() error {
			return h.m.Create(ctx, &Network{Name: "over", Driver: "overlay", Subnet: "10.68.0.0/24", Options: o})
		}); err != nil {
			t.Fatal(err)
		}
		boxes = append(boxes, join(h, string("abc"[i])))
	}
	if a, b, c := boxes[0].Endpoints[0].Address, boxes[1].Endpoints[0].Address, boxes[2].Endpoints[0].Address; a == b || b == c || c == a {
		t.Errorf("the hosts gave %s, %s and %s", a, b, c)
	}
	round(hosts...)
	stop := captured(t, "lan1")
	if err := errors.Join(reach(boxes[0], boxes[1]), reach(boxes[1], boxes[2]), reach(boxes[2], boxes[0])); err != nil {
		t.Error(err)
	}
	if seen := stop(); must(hosts[0].m.Network("over")).encrypted() && (seen[50] == 0 || seen[17] > 0) {
		t.Errorf("packets on the wire by protocol: %v, want no UDP (17) but ESP (50)", seen)
	}

	// The third host dies: the others forget it and its names at the end of its lease.
	dead, n := hosts[2], must(hosts[2].m.Network("over"))
	if err := dead.do(func() error {
		return errors.Join(removeNamespace(boxes[2].Key), removeLink(n.vxlan()), removeLink(n.Link))
	}); err != nil {
		t.Fatal(err)
	}
	first := must(hosts[0].m.Network("over"))
	if got := hosts[0].floods(t, first); !slices.Equal(got, []string{"192.0.2.2", "192.0.2.3"}) {
		t.Errorf("broadcasts of the first host go to %v", got)
	}
	eventually(t, "a dead host is forgotten", func() bool {
		round(hosts[0], hosts[1])
		return slices.Equal(hosts[0].floods(t, first), []string{"192.0.2.2"})
	})
	if files, _ := filepath.Glob(hosts[0].m.endpointDir("over") + "/*.json"); len(files) != 2 {
		t.Errorf("names of %v, want those of two", files)
	}
	// It returns after a reboot, with the files that reboots leave.
	dead.m = Open(state.Roots{Data: dead.m.roots.Data, Run: t.TempDir()}, Options{})
	boxes[2] = join(dead, "c")
	round(hosts...)
	if err := errors.Join(reach(boxes[0], boxes[2]), reach(boxes[2], boxes[1])); err != nil {
		t.Errorf("after its return: %v", err)
	}
	for i, h := range hosts {
		if err := h.do(func() error { return errors.Join(h.m.Teardown(ctx, boxes[i].ID), h.m.Remove(ctx, "over")) }); err != nil {
			t.Error(err)
		}
	}
	if left, err := c.List(ctx, "/kist/"); err != nil || len(left) != 0 {
		t.Errorf("the store still has %v, %v", left, err)
	}
}

// A monitor that had nothing to do for its container's networks keeps the overlay
// that the container joins later, until it leaves.
func TestOverlayJoinedLaterIsKept(t *testing.T) {
	hosts, ctx := lan(t, 1), context.Background()
	m := hosts[0].m
	at := "http://192.0.2.1:" + etcdServer(t)
	c, err := etcd.Open(etcd.Config{URL: at})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the store answers", func() bool { _, err := c.List(ctx, "/"); return err == nil })
	n := &Network{Name: "x", Driver: "overlay", Subnet: "10.69.0.0/24", Options: map[string]string{optStore: at, optVNI: "4245", optAdvertise: "192.0.2.1"}}
	if err := m.Create(ctx, n); err != nil {
		t.Fatal(err)
	}
	s, _ := sandbox(t, m, "d", DefaultBridge)
	serving, cancel := context.WithCancel(ctx)
	ended := make(chan error)
	go func() { ended <- m.Serve(serving, s.ID, nil) }()
	if err := m.Connect(ctx, s.ID, EndpointConfig{Network: "x"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the overlay is kept", func() bool { return locked(m) })
	if err := m.Disconnect(ctx, s.ID, "x"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is kept no more", func() bool { return !locked(m) })
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := m.Remove(ctx, "x"); err != nil {
		t.Error(err)
	}
}

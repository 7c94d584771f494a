package network

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func rulesNow(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("iptables-save").Output()
	if err != nil {
		t.Skip("needs iptables-save")
	}
	var rules []string
	for line := range strings.Lines(string(out)) {
		if !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, ":") {
			rules = append(rules, line)
		}
		if name, _, _ := strings.Cut(line, " "); strings.HasPrefix(line, ":") {
			rules = append(rules, name+"\n") // without its counters
		}
	}
	return strings.Join(rules, "")
}

func published(t *testing.T, m *Manager, id string, port PortBinding) *Sandbox {
	t.Helper()
	cfg := SandboxConfig{ID: strings.Repeat(id, 64)[:64], Name: id, Mode: DefaultBridge, Dir: t.TempDir(), Ports: []PortBinding{port}}
	s, err := m.Setup(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Teardown(context.Background(), cfg.ID) })
	return s
}

func TestFlushedRulesAreMadeAgainByReloadAndByEveryStart(t *testing.T) {
	m := newManager(t)
	ctx := context.Background()
	run(t, "ip", "link", "set", "lo", "up")
	for _, table := range []string{"filter", "nat"} { // the first rule of all makes the table
		run(t, "iptables", "-t", table, "-N", "FIRST")
		run(t, "iptables", "-t", table, "-X", "FIRST")
	}
	before := rulesNow(t)
	a := published(t, m, "a1", PortBinding{HostPort: 18080, ContainerPort: 80, Proto: "tcp"})
	want := rulesNow(t)
	for _, rule := range []string{"-A KIST-DNAT -p tcp -m tcp --dport 18080 -j DNAT --to-destination ", "-A FORWARD -j KIST-USER\n-A FORWARD -j KIST-FORWARD"} {
		if !strings.Contains(want, rule) {
			t.Errorf("rules lack %q:\n%s", rule, want)
		}
	}
	flush := func() {
		run(t, "iptables", "-F")
		run(t, "iptables", "-t", "nat", "-F")
	}
	flush()
	if err := m.Reload(ctx); err != nil {
		t.Fatal(err)
	}
	if got := rulesNow(t); got != want {
		t.Errorf("after reload:\n%s\nwant:\n%s", got, want)
	}
	flush()
	b := published(t, m, "b2", PortBinding{HostIP: "127.0.0.1", HostPort: 18081, ContainerPort: 80, Proto: "tcp"})
	if got := rulesNow(t); got != want {
		t.Errorf("after a start:\n%s\nwant:\n%s", got, want)
	}
	// A gate that came back behind the door it precedes would shut it.
	run(t, "iptables", "-D", chainForward, "1")
	if err := m.Reload(ctx); err != nil {
		t.Fatal(err)
	}
	if got := rulesNow(t); got != want {
		t.Errorf("after the first gate was taken away:\n%s\nwant:\n%s", got, want)
	}
	for _, s := range []*Sandbox{a, b} {
		if err := m.Teardown(ctx, s.ID); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.Prune(ctx, nil); err != nil {
		t.Fatal(err)
	}
	if got := rulesNow(t); got != before {
		t.Errorf("after all is gone:\n%s\nwant:\n%s", got, before)
	}
}

func run(t *testing.T, argv ...string) {
	t.Helper()
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", argv, err, out)
	}
}

func TestAdministratorsRulesOutliveTheNetworks(t *testing.T) {
	m := newManager(t)
	ctx := context.Background()
	s := published(t, m, "c3", PortBinding{HostPort: 18082, ContainerPort: 80, Proto: "udp"})
	run(t, "iptables", "-A", chainUser, "-p", "udp", "--dport", "80", "-j", "DROP")
	defer run(t, "iptables", "-F", chainUser)
	if err := m.Teardown(ctx, s.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Prune(ctx, nil); err != nil {
		t.Fatal(err)
	}
	got := rulesNow(t)
	if !strings.Contains(got, "-A KIST-USER -p udp") || !strings.Contains(got, "-j KIST-USER") || strings.Contains(got, m.bridgeName()) {
		t.Errorf("rules:\n%s", got)
	}
}

func TestFirewallNoneTouchesNoRule(t *testing.T) {
	m := newManager(t)
	m.o.Firewall = FirewallNone
	before := rulesNow(t)
	published(t, m, "d4", PortBinding{HostPort: 18083, ContainerPort: 80, Proto: "tcp"})
	if got := rulesNow(t); got != before {
		t.Errorf("rules:\n%s\nwant:\n%s", got, before)
	}
}

func TestPublishAddressAndRange(t *testing.T) {
	m := newManager(t)
	run(t, "ip", "link", "set", "lo", "up")
	m.o.PublishAddress = "127.0.0.1"
	list, err := ParsePort("18090-18092:80")
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	for i, want := range []string{"127.0.0.1:18090", "127.0.0.1:18091"} {
		s := published(t, m, []string{"e5", "f6"}[i], list[0])
		if got := s.Ports[0].Hosts()[0]; got != want {
			t.Errorf("published on %s, want %s", got, want)
		}
	}
	m.o.PublishAddress = "localhost"
	if _, err := m.claimPorts(context.Background(), &Sandbox{ID: "x"}, list); err == nil || !strings.Contains(err.Error(), "KIST_PUBLISH_ADDRESS") {
		t.Errorf("error %v", err)
	}
}

func TestTakenPortLeavesNoLease(t *testing.T) {
	m := newManager(t)
	port := PortBinding{HostPort: 18095, ContainerPort: 80, Proto: "tcp"}
	a := published(t, m, "a9", port)
	cfg := SandboxConfig{ID: strings.Repeat("b9", 32), Name: "b9", Mode: DefaultBridge, Dir: t.TempDir(), Ports: []PortBinding{port}}
	if _, err := m.Setup(context.Background(), cfg); !errors.Is(err, errPortTaken) {
		t.Errorf("error %v, want %v", err, errPortTaken)
	}
	n, err := m.readNetwork(DefaultBridge)
	if err != nil || len(n.Leases) != 1 {
		t.Errorf("leases %v, %v, want that of %s alone", n.Leases, err, a.Name)
	}
	if err := m.Teardown(context.Background(), a.ID); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(m.leaseFile(DefaultBridge)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after the last: %v", err)
	}
}

func TestOtherFirewall(t *testing.T) {
	root := t.TempDir()
	if got := otherFirewall(root); got != "" {
		t.Errorf("none is %q", got)
	}
	os.MkdirAll(filepath.Join(root, "etc/ufw"), 0o755)
	os.WriteFile(filepath.Join(root, "etc/ufw/ufw.conf"), []byte("# x\nENABLED=yes\n"), 0o644)
	if got := otherFirewall(root); got != "ufw" {
		t.Errorf("ufw is %q", got)
	}
	os.Remove(filepath.Join(root, "etc/ufw/ufw.conf"))
	os.MkdirAll(filepath.Join(root, "run/firewalld"), 0o755)
	if got := otherFirewall(root); got != "firewalld" {
		t.Errorf("firewalld is %q", got)
	}
}

func TestSubnetIsChosenAgainWhenAnotherRootTookIt(t *testing.T) {
	a, b := newManager(t), newManager(t)
	for _, m := range []*Manager{a, b} {
		if err := m.defaultNetwork(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	first, _ := sandbox(t, a, "a7", DefaultBridge)
	second, _ := sandbox(t, b, "b7", DefaultBridge)
	if first.Endpoints[0].Gateway == second.Endpoints[0].Gateway {
		t.Errorf("both have gateway %s", first.Endpoints[0].Gateway)
	}
}

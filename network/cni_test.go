package network

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
)

// cniConf writes a configuration of Debian's plugins; LEASES in it is a folder of
// this test's, for host-local.
func cniConf(t *testing.T, text string, plugins ...string) (file, leases string) {
	t.Helper()
	for _, p := range append(plugins, "host-local") {
		if _, err := os.Stat("/usr/lib/cni/" + p); err != nil {
			t.Skipf("needs the CNI plugin %s (Debian: containernetworking-plugins)", p)
		}
	}
	leases = filepath.Join(t.TempDir(), "leases")
	file = filepath.Join(t.TempDir(), "net.conflist")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(text, "LEASES", leases)), 0o600); err != nil {
		t.Fatal(err)
	}
	return file, leases
}

const bridgeChain = `{"cniVersion":"1.0.0","name":"chained","plugins":[
 {"type":"bridge","bridge":"cni9","isGateway":true,"isDefaultGateway":true,"capabilities":{"mac":true},
  "ipam":{"type":"host-local","dataDir":"LEASES","ranges":[[{"subnet":"10.91.0.0/24"}]]},
  "dns":{"nameservers":["192.0.2.53","not an address"],"domain":"cni.example","search":["cni.example","two\nnameserver 6.6.6.6"]}},
 {"type":"portmap","capabilities":{"portMappings":true}},
 {"type":"tuning"}]}`

func cniNetwork(t *testing.T, m *Manager, name, file string) *Network {
	t.Helper()
	n := &Network{Name: name, Driver: "cni", Options: map[string]string{optConfig: file, optPath: "/usr/lib/cni"}}
	if err := m.Create(context.Background(), n); err != nil {
		t.Fatal(err)
	}
	return n
}

func held(leases string) int {
	files, _ := filepath.Glob(leases + "/*/10.*")
	return len(files)
}

func TestCNIChain(t *testing.T) {
	m := newManager(t)
	file, leases := cniConf(t, bridgeChain, "bridge", "portmap", "tuning")
	cniNetwork(t, m, "third", file)
	t.Cleanup(func() { removeLink("cni9") })
	keepRules(t)
	dir := t.TempDir()
	cfg := SandboxConfig{ID: strings.Repeat("c", 64), Name: "web", Mode: "third", Dir: dir, Ports: []PortBinding{{HostPort: 18080, ContainerPort: 80, Proto: "tcp"}},
		Endpoints: []EndpointConfig{{Network: "third", IPv4: "10.91.0.77", MAC: "02:00:00:00:00:77"}}}
	s, err := m.Setup(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	e := s.Endpoints[0]
	if e.Address != "10.91.0.77/24" || e.Gateway != "10.91.0.1" || e.MAC != "02:00:00:00:00:77" {
		t.Errorf("endpoint %+v", e)
	}
	if set := m.InspectContainer(cfg.ID); set.Networks["third"].IPAddress != "10.91.0.77" || !slices.Equal(set.Networks["third"].DNS.Servers, []string{"192.0.2.53"}) {
		t.Errorf("inspect: %+v", set.Networks["third"])
	}
	if resolv, _ := os.ReadFile(filepath.Join(dir, "resolv.conf")); !strings.Contains(string(resolv), "search cni.example\n") || strings.Contains(string(resolv), "6.6.6.6") {
		t.Errorf("resolv.conf:\n%s", resolv)
	}
	if rules, _ := exec.Command(tool("iptables-save"), "-t", "nat").Output(); !strings.Contains(string(rules), "10.91.0.77:80") {
		t.Errorf("the port is not led in:\n%s", rules)
	}
	if got := m.inspect(must(m.Network("third"))).Containers[cfg.ID].IPv4Address; got != e.Address {
		t.Errorf("network inspect shows %q", got)
	}
	if err := m.Remove(context.Background(), "third"); !errors.Is(err, ErrInUse) {
		t.Errorf("remove: %v, want %v", err, ErrInUse)
	}
	if err := errors.Join(m.Teardown(context.Background(), cfg.ID), m.Remove(context.Background(), "third")); err != nil {
		t.Fatal(err)
	}
	if rules, _ := exec.Command(tool("iptables-save"), "-t", "nat").Output(); held(leases) > 0 || strings.Contains(string(rules), "10.91.0.77") {
		t.Errorf("%d leases stay, rules:\n%s", held(leases), rules)
	}
}

// keepRules puts back the rules of now at the end: portmap leaves chains of its own.
func keepRules(t *testing.T) {
	t.Helper()
	before, err := exec.Command(tool("iptables-save"), "-t", "nat").Output()
	if err != nil {
		t.Skip("needs iptables")
	}
	t.Cleanup(func() {
		cmd := exec.Command(tool("iptables-restore"))
		cmd.Stdin = strings.NewReader(cmp.Or(string(before), "*nat\nCOMMIT\n"))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
}

func must(n *Network, err error) *Network {
	if err != nil {
		panic(err)
	}
	return n
}

func TestCNIOfOnePlugin(t *testing.T) {
	if _, err := exec.LookPath("busybox"); err != nil {
		t.Skip("needs busybox, for ping")
	}
	m := newManager(t)
	file, leases := cniConf(t, `{"cniVersion":"0.4.0","type":"ptp","ipam":{"type":"host-local","dataDir":"LEASES","subnet":"10.92.0.0/24","routes":[{"dst":"0.0.0.0/0"}]}}`, "ptp")
	cniNetwork(t, m, "ptp", file)
	s, run := sandbox(t, m, "p", "ptp")
	if err := run("busybox", "ping", "-c1", "-W5", s.Endpoints[0].Gateway); err != nil {
		t.Errorf("from %s: %v", s.Endpoints[0].Address, err)
	}
	if err := m.checkOutside(context.Background()); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	run("ip", "addr", "flush", "dev", "eth0")
	if err := m.checkOutside(context.Background()); err == nil || !strings.Contains(err.Error(), "container p in network ptp") {
		t.Errorf("CHECK of a sandbox that lost its address: %v", err)
	}
	// The sandbox's way out may be another network.
	if err := m.Create(context.Background(), &Network{Name: "aside", Subnet: "10.93.0.0/24"}); err != nil {
		t.Fatal(err)
	}
	two := SandboxConfig{ID: strings.Repeat("q", 64), Name: "q", Mode: "aside", Dir: t.TempDir(), Endpoints: []EndpointConfig{{Network: "aside", GwPriority: 1}, {Network: "ptp"}}}
	both, err := m.Setup(context.Background(), two)
	if err != nil {
		t.Fatal(err)
	}
	out, _ := exec.Command("nsenter", "--net="+both.Key, "ip", "route", "show", "default").Output()
	if !strings.Contains(string(out), "10.93.0.1") || strings.Count(string(out), "default") != 1 {
		t.Errorf("default routes: %s", out)
	}
	if err := errors.Join(m.Disconnect(context.Background(), two.ID, "ptp"), m.Connect(context.Background(), two.ID, EndpointConfig{Network: "ptp"})); err != nil {
		t.Error(err)
	}
	if err := errors.Join(m.Teardown(context.Background(), two.ID), m.Teardown(context.Background(), s.ID), m.Remove(context.Background(), "ptp"), m.Remove(context.Background(), "aside")); err != nil {
		t.Error(err)
	}
	if held(leases) != 0 {
		t.Errorf("%d leases stay", held(leases))
	}
}

// After a reboot neither the namespace nor the record of a sandbox is there, but
// host-local still has the lease.
func TestCNIDelOfALostSandbox(t *testing.T) {
	m := newManager(t)
	file, leases := cniConf(t, bridgeChain, "bridge", "portmap", "tuning")
	cniNetwork(t, m, "lost", file)
	t.Cleanup(func() { removeLink("cni9") })
	s, _ := sandbox(t, m, "x", "lost")
	if held(leases) != 1 {
		t.Fatalf("%d leases, want 1", held(leases))
	}
	if err := errors.Join(removeNamespace(s.Key), os.Remove(m.sandboxFile(s.ID))); err != nil {
		t.Fatal(err)
	}
	if err := m.Remove(context.Background(), "lost"); err != nil {
		t.Error(err)
	}
	if held(leases) != 0 {
		t.Errorf("%d leases stay", held(leases))
	}
}

func TestCNIGivesIPv6(t *testing.T) {
	m, ctx := newManager(t), context.Background()
	file, leases := cniConf(t, `{"cniVersion":"1.0.0","name":"six","plugins":[{"type":"bridge","bridge":"cni6","isDefaultGateway":true,"ipam":{"type":"host-local","dataDir":"LEASES",
 "ranges":[[{"subnet":"10.96.0.0/24"}],[{"subnet":"fd00:96::/64"}]]}}]}`, "bridge")
	cniNetwork(t, m, "six", file)
	t.Cleanup(func() { removeLink("cni6") })
	cfg := SandboxConfig{ID: strings.Repeat("6", 64), Name: "six", Mode: "six", Dir: t.TempDir(), Endpoints: []EndpointConfig{{Network: "six", IPv6: "fd00:96::77"}}}
	s, err := m.Setup(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if e := s.Endpoints[0]; e.Address != "10.96.0.2/24" || e.Address6 != "fd00:96::77/64" || e.Gateway6 != "fd00:96::1" {
		t.Errorf("endpoint %+v", e)
	}
	if got := m.InspectContainer(cfg.ID).Networks["six"].GlobalIPv6Address; got != "fd00:96::77" {
		t.Errorf("inspect shows %q", got)
	}
	out, _ := exec.Command("nsenter", "--net="+s.Key, "ip", "-6", "route", "show", "default").Output()
	if !strings.Contains(string(out), "fd00:96::1") {
		t.Errorf("default route %q", out)
	}
	if err := errors.Join(m.Teardown(ctx, cfg.ID), m.Remove(ctx, "six")); err != nil || held(leases) > 0 {
		t.Errorf("%v, %d leases stay", err, held(leases))
	}
}

func TestCNIFailuresLeaveNothing(t *testing.T) {
	m := newManager(t)
	file, leases := cniConf(t, `{"cniVersion":"1.0.0","name":"bad","plugins":[
 {"type":"ptp","ipam":{"type":"host-local","dataDir":"LEASES","subnet":"10.94.0.0/24"}},{"type":"tuning","sysctl":{"net.nonsense":"1"}}]}`, "ptp", "tuning")
	cniNetwork(t, m, "bad", file)
	for want, cfg := range map[string]SandboxConfig{
		"tuning":              {},
		"no plugin of its co": {Ports: []PortBinding{{HostPort: 18081, ContainerPort: 80, Proto: "tcp"}}},
	} {
		cfg.ID, cfg.Name, cfg.Mode, cfg.Dir = strings.Repeat("f", 64), "f", "bad", t.TempDir()
		if _, err := m.Setup(context.Background(), cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
		if _, err := m.Sandbox(cfg.ID); !errors.Is(err, ErrNotFound) || held(leases) > 0 {
			t.Errorf("sandbox %v, %d leases", err, held(leases))
		}
	}
	if err := m.Remove(context.Background(), "bad"); err != nil {
		t.Error(err)
	}
}

func TestBadCNINetworks(t *testing.T) {
	m := newManager(t)
	conf := func(text string) string {
		file, _ := cniConf(t, text)
		return file
	}
	good := conf(`{"cniVersion":"1.0.0","type":"host-local"}`)
	for _, c := range []struct {
		n    Network
		want string
	}{
		{Network{}, "needs --opt config=FILE"},
		{Network{Options: map[string]string{optConfig: "/nonexistent"}}, "no such file"},
		{Network{Options: map[string]string{optConfig: "/dev/zero"}}, "larger than"},
		{Network{Options: map[string]string{optConfig: conf("nonsense")}}, "invalid character"},
		{Network{Options: map[string]string{optConfig: conf("null")}}, "not a JSON object"},
		{Network{Options: map[string]string{optConfig: conf(`{"type":"bridge","name":"../../etc"}`)}}, "name"},
		{Network{Options: map[string]string{optConfig: conf(`{"plugins":[]}`)}}, "no plugins"},
		{Network{Options: map[string]string{optConfig: conf(`{"cniVersion":"1.0.0","type":"nosuch"}`)}}, "plugin nosuch: not in"},
		{Network{Options: map[string]string{optConfig: conf(`{"cniVersion":"9.9.9","type":"host-local"}`), optPath: "/usr/lib/cni"}}, "9.9.9"},
		{Network{Options: map[string]string{optConfig: good, "parent": "eth0"}}, "option parent"},
		{Network{Subnet: "10.0.0.0/24", Options: map[string]string{optConfig: good}}, "--subnet"},
	} {
		c.n.Name, c.n.Driver = "x", "cni"
		if err := m.Create(context.Background(), &c.n); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v: %v, want %q", c.n.Options, err, c.want)
		}
	}
	if list, _ := m.List(); len(list) > 0 {
		t.Errorf("refused networks are there: %v", list)
	}
}

func FuzzCNIConfig(f *testing.F) {
	f.Add([]byte(bridgeChain))
	f.Add([]byte(`{"type":"ptp"}`))
	f.Add([]byte(`{"plugins":[null],"cniVersions":["1.0.0"]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		chain, err := chainOf(data, "n")
		if err == nil && !json.Valid(chain) {
			t.Errorf("%s", chain)
		}
	})
}

func FuzzCNIResult(f *testing.F) {
	f.Add([]byte(`{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","mac":"02:00:00:00:00:01","sandbox":"/x"}],"ips":[{"address":"10.0.0.2/24","gateway":"10.0.0.1","interface":0}],"dns":{"nameservers":["1.1.1.1"]}}`))
	f.Add([]byte(`{"cniVersion":"1.0.0","ips":[null,{"address":"::1/128"}],"interfaces":[null]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := types100.NewResult(data)
		if err != nil {
			return
		}
		e := &Endpoint{Link: "eth0"}
		full, err := types100.NewResultFromResult(r)
		if err != nil || e.adopt(full, "/x") != nil {
			return
		}
		for _, a := range []string{e.Address, e.Address6} {
			if _, err := netlink.ParseAddr(a); a != "" && err != nil {
				t.Errorf("address %q: %v", a, err)
			}
		}
		cfg := SandboxConfig{Mode: "n"}.withDNS(&Sandbox{Endpoints: []Endpoint{*e}})
		for _, w := range slices.Concat(cfg.DNS, cfg.DNSSearch, cfg.DNSOptions) {
			if strings.ContainsAny(w, " \n\t\x00") {
				t.Errorf("%q would change the meaning of a resolv.conf", w)
			}
		}
	})
}

package network

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kist-containers/kist/internal/state"
)

func TestSandboxOfAnOwnNetworkIsNamed(t *testing.T) {
	dir := t.TempDir()
	m := Open(state.Roots{Data: filepath.Join(dir, "data"), Run: filepath.Join(dir, "run")}, Options{})
	cfg := SandboxConfig{
		ID: strings.Repeat("ab", 32), Name: "web", Hostname: "host", DNS: []string{"192.0.2.53"}, DNSOptions: []string{"ndots:2"},
		Endpoints: []EndpointConfig{{Network: "mine", Aliases: []string{"www", "web"}}},
	}
	s := &Sandbox{ID: cfg.ID, Key: "/run/netns/x", Endpoints: []Endpoint{{Network: "mine", Address: "172.18.0.2/16", Gateway: "172.18.0.1"}}, Resolver: cfg.resolver()}
	if err := m.record(s); err != nil {
		t.Fatal(err)
	}
	if err := m.announce(s); err != nil {
		t.Fatal(err)
	}
	if got, want := s.Resolver.Names["mine"], []string{"web", "abababababab", "host", "www"}; !slices.Equal(got, want) {
		t.Errorf("names %v, want %v", got, want)
	}
	c := m.nameServer(s)
	if !c.KeepSingle || len(c.Servers) != 1 {
		t.Errorf("servers %v, keep single %v", c.Servers, c.KeepSingle)
	}
	nets, err := c.Networks()
	if err != nil || len(nets) != 1 || nets[0].Name != "mine" {
		t.Fatalf("networks %v, %v", nets, err)
	}
	if files, _ := filepath.Glob(filepath.Join(nets[0].Dir, "*.json")); len(files) != 1 {
		t.Errorf("announced %v", files)
	}
	if err := m.withdraw(s); err != nil {
		t.Fatal(err)
	}
	if files, _ := filepath.Glob(filepath.Join(nets[0].Dir, "*.json")); len(files) != 0 {
		t.Errorf("still announced %v", files)
	}
}

func TestResolvConfOfANamedSandbox(t *testing.T) {
	s := &Sandbox{Key: "/x", Endpoints: []Endpoint{{Network: "mine"}}}
	for _, c := range []struct {
		cfg  SandboxConfig
		want []string
	}{
		{SandboxConfig{DNSSearch: []string{"example"}}, []string{"nameserver 127.0.0.11", "search example", "ndots:0"}},
		{SandboxConfig{DNS: []string{"192.0.2.53"}, DNSOptions: []string{"ndots:3"}}, []string{"nameserver 127.0.0.11", "ndots:3"}},
	} {
		got, err := resolvFile(c.cfg, s)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range c.want {
			if !strings.Contains(got, w) {
				t.Errorf("no %q in %q", w, got)
			}
		}
		if strings.Count(got, "nameserver") != 1 || strings.Count(got, "ndots") != 1 {
			t.Errorf("%q", got)
		}
	}
	got, _ := resolvFile(SandboxConfig{}, &Sandbox{Key: "/x", Endpoints: []Endpoint{{Network: DefaultBridge}}})
	if strings.Contains(got, "127.0.0.11") {
		t.Errorf("the default bridge has no name server, but %q", got)
	}
}

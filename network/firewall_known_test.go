package network

import (
	"context"
	"sync"
	"testing"
)

func TestRulesAreKnownUntilSomeoneChangesThem(t *testing.T) {
	m := newManager(t)
	ctx := context.Background()
	if _, _, err := generation(); err != nil {
		t.Skip("needs iptables on nftables")
	}
	t.Cleanup(func() { m.Prune(ctx) })
	bridge(t, m, &Network{Name: "n", Subnet: "10.74.0.0/24"})
	s := joined(t, m, SandboxConfig{Name: "a", Mode: "n", Ports: []PortBinding{{HostPort: 18090, ContainerPort: 80, Proto: "tcp"}}})
	known, err := m.loadRules(ctx, false)
	if err != nil {
		t.Fatal(err)
	}
	really, err := savedRules(ctx, false)
	if err != nil {
		t.Fatal(err)
	}
	for table, lines := range really.ours() {
		if len(lines) != len(known[table]) {
			t.Errorf("%s: known %d rules, there are %d", table, len(known[table]), len(lines))
		}
		for _, line := range lines {
			if !known[table][line] {
				t.Errorf("%s: %s is not known", table, line)
			}
		}
	}
	run(t, "iptables", "-t", "nat", "-F", chainDNAT)
	known, err = m.loadRules(ctx, false)
	for _, b := range s.portBlocks() {
		for _, r := range b.rules {
			if known.rule(r) != (r.chain != chainDNAT) || err != nil {
				t.Errorf("after a flush of %s: %s known %v, %v", chainDNAT, r, known.rule(r), err)
			}
		}
	}
}

func TestFirstStartsAtOnceMakeTheChainsOnce(t *testing.T) {
	m := newManager(t)
	ctx := context.Background()
	for range 3 {
		var all sync.WaitGroup
		for _, name := range []string{"one", "two", "three"} {
			other := Open(m.roots, m.o)
			other.roots.Data, other.roots.Run = m.roots.Data+name, m.roots.Run+name
			all.Go(func() {
				if err := other.Create(ctx, &Network{Name: name}); err != nil {
					t.Error(err)
					return
				}
				n, _ := other.readNetwork(name)
				l, err := other.lock(ctx, name)
				if err != nil {
					t.Error(err)
					return
				}
				if err := (bridgeDriver{}).ensure(ctx, other, n); err != nil {
					t.Error(err)
				}
				l.Unlock()
				if err := other.Remove(ctx, name); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
	}
}

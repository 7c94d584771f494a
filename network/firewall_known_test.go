package network

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
)

func TestRulesAreKnownUntilSomeoneChangesThem(t *testing.T) {
	m := newManager(t)
	ctx := context.Background()
	nft, err := openNftables()
	if err != nil {
		t.Skip("needs iptables on nftables")
	}
	nft.close()
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
		if got := slices.Sorted(slices.Values(known.present[table])); !slices.Equal(got, slices.Sorted(slices.Values(lines))) {
			t.Errorf("%s: known are\n%s, there are\n%s", table, strings.Join(got, "\n"), strings.Join(lines, "\n"))
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

func TestRulesOfOthersStayWhenAPortsAreRemoved(t *testing.T) {
	m := newManager(t)
	ctx := context.Background()
	t.Cleanup(func() { m.Prune(ctx) })
	a := published(t, m, "a1", PortBinding{HostPort: 18091, ContainerPort: 80, Proto: "tcp"})
	run(t, "iptables", "-t", "nat", "-I", chainDNAT, "-p", "udp", "--dport", "18091", "-j", "RETURN")
	b := published(t, m, "b1", PortBinding{HostPort: 18092, ContainerPort: 80, Proto: "tcp"})
	for _, s := range []*Sandbox{a, b} {
		before := strings.Split(rulesNow(t), "\n")
		if err := m.Teardown(ctx, s.ID); err != nil {
			t.Fatal(err)
		}
		want := slices.DeleteFunc(before, func(line string) bool {
			return slices.ContainsFunc(s.portBlocks()[0].rules, func(r rule) bool { return r.String() == line })
		})
		if got := strings.Split(rulesNow(t), "\n"); !slices.Equal(got, want) {
			t.Errorf("after %s:\n%s\nwant:\n%s", s.Name, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	run(t, "iptables", "-t", "nat", "-F", chainDNAT)
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

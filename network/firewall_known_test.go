package network

import (
	"context"
	"errors"
	"fmt"
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
	t.Cleanup(func() { m.Prune(ctx, nil) })
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
	t.Cleanup(func() { m.Prune(ctx, nil) })
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

// Many are removed by a chain at once, unless it has another's too.
func TestManyPortsComeAndGo(t *testing.T) {
	m := newManager(t)
	ctx := context.Background()
	t.Cleanup(func() { m.Prune(ctx, nil) })
	run(t, "ip", "link", "set", "lo", "up")
	list, err := ParsePort("0.0.0.0:19000-19299:1000-1299")
	if err != nil {
		t.Fatal(err)
	}
	bridge(t, m, &Network{Name: "many", Subnet: "10.76.0.0/24"})
	joined(t, m, SandboxConfig{Name: "a", Mode: "many"}) // by whom the chains are made
	empty := rulesNow(t)
	for i, others := range []string{"", chainDNAT} {
		if others != "" {
			run(t, "iptables", "-t", "nat", "-A", others, "-p", "udp", "--dport", "19001", "-j", "RETURN")
			empty = rulesNow(t)
		}
		cfg := SandboxConfig{ID: strings.Repeat(fmt.Sprint("c", i), 32), Name: fmt.Sprint("c", i), Mode: "many", Dir: t.TempDir(), Ports: list}
		s, err := m.Setup(ctx, cfg)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(rulesNow(t), "-j DNAT --to"); got != len(list) {
			t.Errorf("%d ports are led in, want %d", got, len(list))
		}
		if err := m.Teardown(ctx, s.ID); err != nil {
			t.Error(err)
		}
		if now := rulesNow(t); now != empty {
			t.Errorf("left are\n%s\nwant\n%s", now, empty)
		}
	}
	run(t, "iptables", "-t", "nat", "-F", chainDNAT)
}

func TestChainsThatAreEmptied(t *testing.T) {
	rules := func(chain string, n int) (lines []string) {
		for i := range n {
			lines = append(lines, fmt.Sprintf("-A %s -p tcp -m tcp --dport %d -j ACCEPT", chain, i))
		}
		return lines
	}
	removed := func(lines ...string) string {
		return strings.ReplaceAll(strings.Join(lines, "\n")+"\n", "-A ", "-D ")
	}
	all := rules(chainPorts, 100)
	twice := slices.Concat(all, all[:1])
	for _, c := range []struct {
		why     string
		have    []string
		script  string
		emptied bool
	}{
		{"all", all, removed(all...), true},
		{"in any order", slices.Concat(all[50:], all[:50]), removed(all...), true},
		{"another chain has more", slices.Concat(all, rules(chainMasq, 3)), removed(all...), true},
		{"one stays", all, removed(all[1:]...), false},
		{"a stranger's stays", slices.Concat(all, []string{"-A " + chainPorts + " -j RETURN"}), removed(all...), false},
		{"a second of the same stays", twice, removed(all...), false},
		{"both of the same", twice, removed(twice...), true},
		{"one comes", all, removed(all...) + "-A " + chainPorts + " -j RETURN\n", false},
		{"few", all[:3], removed(all[:3]...), false},
	} {
		r := &ruleset{present: present{"filter": c.have}}
		if got := r.emptied("filter", c.script); len(got) == 1 != c.emptied {
			t.Errorf("%s: emptied are %v, want %v", c.why, got, c.emptied)
		}
	}
}

func TestTheFirstOfEachLineIsDeleted(t *testing.T) {
	p := present{"nat": {"a", "b", "a", "c", "b", "a"}}
	p.delete("nat", "a", "c", "nosuch", "a")
	if want := []string{"b", "b", "a"}; !slices.Equal(p["nat"], want) {
		t.Errorf("left are %v, want %v", p["nat"], want)
	}
}

// portRulesOfAllKinds are all in chains of table nat, which take any.
func portRulesOfAllKinds(v6 bool) (list []rule) {
	e := Endpoint{Address: "10.75.0.2/24", Address6: "fd75::2/64", Bridge: "br9", Trusted: []string{"eth9"}}
	routed := e
	routed.Mode, routed.Mode6 = modeRouted, modeRouted
	for _, proto := range []string{"tcp", "udp"} {
		for _, host := range []string{"", "10.99.0.1", "fd99::1"} {
			list = append(list, e.portRules(v6, PublishedPort{PortBinding{HostIP: host, HostPort: 8080, ContainerPort: 80, Proto: proto}})...)
		}
		list = append(list, routed.portRules(v6, PublishedPort{PortBinding{ContainerPort: 80, Proto: proto}})...)
	}
	for i := range list {
		list[i].table = "nat"
	}
	return list
}

// natScript is a script of one word for each chain of ports or rule.
func natScript(chains string, rules []rule) script {
	s := script{}
	if chains != "" {
		for _, c := range []string{chainPorts, chainDNAT, chainMasq} {
			s.add("nat", fmt.Sprintf(chains, c))
		}
	}
	for _, r := range rules {
		s.add("nat", r.String())
	}
	return s
}

func TestIptablesReadsPublishedPortsAsItsOwn(t *testing.T) {
	m := newManager(t)
	ctx := context.Background()
	for _, v6 := range []bool{false, true} {
		rules := portRulesOfAllKinds(v6)
		if err := natScript(":%s - [0:0]", rules).run(ctx, v6); err != nil {
			t.Fatal(err)
		}
		want, err := savedRules(ctx, v6)
		if err := errors.Join(err, natScript(":%s - [0:0]", nil).run(ctx, v6)); err != nil { // flushes them
			t.Fatal(err)
		}
		r, err := m.loadRules(ctx, v6)
		if err != nil {
			t.Fatal(err)
		}
		defer r.close()
		if !r.counted {
			t.Skip("needs iptables on nftables")
		}
		if err := r.apply(natScript("", rules)); err != nil {
			t.Fatal(err)
		}
		got, err := savedRules(ctx, v6)
		if !slices.Equal(got["nat"], want["nat"]) || err != nil {
			t.Errorf("%v: got\n%s\nwant\n%s", err, strings.Join(got["nat"], "\n"), strings.Join(want["nat"], "\n"))
		}
		for _, r := range rules {
			run(t, slices.Concat([]string{program("iptables", v6), "-t", "nat", "-D", r.chain}, r.spec)...)
		}
		if err := r.apply(natScript("", rules)); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("a change after another's: %v", err)
		}
		if err := natScript("-X %s", nil).run(ctx, v6); err != nil {
			t.Errorf("rules are left: %v", err)
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

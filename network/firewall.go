package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/go-iptables/iptables"
	"golang.org/x/sys/unix"
)

// kist's own chains. What others made is left alone; KIST-USER is the
// administrator's and comes first.
const (
	chainUser    = "KIST-USER"
	chainForward = "KIST-FORWARD"
	chainPorts   = "KIST-PORTS"
	chainDNAT    = "KIST-DNAT"
	chainMasq    = "KIST-MASQ"
)

// ruleset is a table's rules, in the order of appending.
type rule struct {
	table, chain string
	spec         []string
}

// lockFirewall keeps all roots that share this network namespace apart, as they
// share the chains: the lock is the namespace's own file. See flock(2).
func lockFirewall(ctx context.Context) (*os.File, error) {
	f, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, os.NewSyscallError("flock network namespace", err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
}

func openFirewall() (*iptables.IPTables, error) {
	ipt, err := iptables.New(iptables.Timeout(5))
	if err != nil {
		return nil, fmt.Errorf("iptables: %w (install it, or use --network none or host)", err)
	}
	return ipt, nil
}

// addRules makes what is missing of the blocks, and the chains.
func (m *Manager) addRules(ctx context.Context, blocks []block) error {
	if m.o.Firewall == FirewallNone || len(blocks) == 0 {
		return nil
	}
	l, err := lockFirewall(ctx)
	if err != nil {
		return err
	}
	defer l.Close()
	have, err := loadRules(ctx)
	if err != nil {
		return err
	}
	if !have.complete() {
		ipt, err := openFirewall()
		if err == nil {
			err = makeChains(ipt)
		}
		if err != nil {
			return fmt.Errorf("firewall: %w", err)
		}
	}
	s := script{}
	for _, b := range blocks {
		s.addMissing(have, b)
	}
	return s.run(ctx)
}

// removeRules removes what is there of the blocks, and the chains after the last.
func (m *Manager) removeRules(ctx context.Context, blocks []block) error {
	if m.o.Firewall == FirewallNone || len(blocks) == 0 {
		return nil
	}
	l, err := lockFirewall(ctx)
	if err != nil {
		return err
	}
	defer l.Close()
	have, err := loadRules(ctx)
	if errors.Is(err, exec.ErrNotFound) {
		return nil // without iptables there never were rules
	}
	if err != nil {
		return err
	}
	s := script{}
	for _, b := range blocks {
		s.remove(have, b)
	}
	return s.run(ctx)
}

// bridgeRules makes the rules of a network: NAT to the outside, and nobody in but
// by a published port.
func (m *Manager) bridgeRules(ctx context.Context, n *Network) error {
	if m.o.Firewall == FirewallNone {
		return nil
	}
	if err := m.addRules(ctx, n.blocks()); err != nil || n.Internal {
		return err
	}
	return m.forwarding()
}

// removeBridgeRules removes them, and the chains when no network needs them more.
func (m *Manager) removeBridgeRules(ctx context.Context, n *Network) error {
	if m.o.Firewall == FirewallNone {
		return nil
	}
	if err := m.removeRules(ctx, n.blocks()); err != nil {
		return err
	}
	return m.removeChains(ctx)
}

func words(s string) []string { return strings.Fields(s) }

// rules are the network's. The gates of all networks, which say who comes in,
// stand before the ways out of any: so one network does not lead into another.
func (n *Network) rules() (gates, ways []rule) {
	forward := func(list *[]rule, spec string) {
		*list = append(*list, rule{"filter", chainForward, words(strings.ReplaceAll(spec, "BR", n.Link))})
	}
	within := " -j ACCEPT"
	if !n.flag(optICC) {
		within = " -j DROP"
	}
	if n.Internal {
		forward(&gates, "! -s "+n.Subnet+" -o BR -j DROP")
		forward(&gates, "! -d "+n.Subnet+" -i BR -j DROP")
		forward(&ways, "-i BR -o BR"+within)
		return gates, ways
	}
	forward(&gates, "-o BR -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT")
	forward(&gates, "-o BR -j "+chainPorts)
	forward(&gates, "! -i BR -o BR -j DROP")
	forward(&ways, "-i BR -o BR"+within)
	forward(&ways, "-i BR ! -o BR -j ACCEPT")
	if n.flag(optMasquerade) {
		ways = append(ways, rule{"nat", chainMasq, words("-s " + n.Subnet + " ! -o " + n.Link + " -j MASQUERADE")})
	}
	return gates, ways
}

// blocks are the network's rules as they are made.
func (n *Network) blocks() []block {
	gates, ways := n.rules()
	return []block{{top: true, rules: gates}, {rules: ways}}
}

// makeChains makes the chains and the jumps to them, the administrator's first.
func makeChains(ipt *iptables.IPTables) error {
	for _, c := range chains() {
		exists, err := ipt.ChainExists(c[0], c[1])
		if err == nil && !exists {
			err = ipt.NewChain(c[0], c[1])
		}
		if err != nil {
			return err
		}
	}
	for _, r := range jumps() {
		var err error
		if r.table == "filter" {
			err = ipt.InsertUnique(r.table, r.chain, 1, r.spec...)
		} else {
			err = ipt.AppendUnique(r.table, r.chain, r.spec...)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func chains() [][2]string {
	return [][2]string{{"filter", chainUser}, {"filter", chainForward}, {"filter", chainPorts}, {"nat", chainDNAT}, {"nat", chainMasq}}
}

// jumps lead into the chains. Those of filter are inserted in this order, so the
// administrator's comes to stand first.
func jumps() []rule {
	return []rule{
		{"filter", "FORWARD", words("-j " + chainForward)},
		{"filter", "FORWARD", words("-j " + chainUser)},
		{"nat", "PREROUTING", words("-m addrtype --dst-type LOCAL -j " + chainDNAT)},
		{"nat", "OUTPUT", words("! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j " + chainDNAT)},
		{"nat", "POSTROUTING", words("-j " + chainMasq)},
	}
}

// complete reports whether chains and jumps are there.
func (p present) complete() bool {
	for _, c := range chains() {
		if !p.chain(c[0], c[1]) {
			return false
		}
	}
	for _, r := range jumps() {
		if !p.rule(r) {
			return false
		}
	}
	return true
}

// removeChains removes chains and jumps that nothing uses any more. Rules of the
// administrator's keep theirs.
func (m *Manager) removeChains(ctx context.Context) error {
	l, err := lockFirewall(ctx)
	if err != nil {
		return err
	}
	defer l.Close()
	have, err := loadRules(ctx)
	if errors.Is(err, exec.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, c := range chains() {
		if c[1] != chainUser && !have.empty(c[0], c[1]) {
			return nil
		}
	}
	s := script{}
	for _, r := range jumps() {
		if r.spec[len(r.spec)-1] != chainUser || have.empty("filter", chainUser) {
			s.remove(have, block{rules: []rule{r}})
		}
	}
	for _, c := range chains() {
		if have.chain(c[0], c[1]) && have.empty(c[0], c[1]) {
			s.add(c[0], "-X "+c[1])
		}
	}
	return s.run(ctx)
}

// forwarding lets the kernel route between the bridge and the rest.
func (m *Manager) forwarding() error {
	const file = "/proc/sys/net/ipv4/ip_forward"
	data, err := os.ReadFile(file)
	if err != nil || strings.TrimSpace(string(data)) == "1" {
		return err
	}
	if m.o.Warn != nil {
		m.o.Warn("IP forwarding was off on this host: switched on for the containers' networks")
	}
	return os.WriteFile(file, []byte("1"), 0)
}

// portRules are those of one published port: the way in from outside, and the
// container's own way to itself through the host's address.
func portRules(e Endpoint, p PublishedPort) []rule {
	host, err := netip.ParseAddr(p.HostIP)
	if err == nil && (host.IsLoopback() || host.Is6()) {
		// Reached through the listener alone: no packet from outside is led to it.
		return nil
	}
	ip, _, _ := strings.Cut(e.Address, "/")
	inside := strconv.Itoa(int(p.ContainerPort))
	to := ip + ":" + inside
	match := "-p " + p.Proto + " -m " + p.Proto + " --dport " + strconv.Itoa(int(p.HostPort))
	dst := ""
	if p.HostIP != "" && p.HostIP != "0.0.0.0" {
		dst = "-d " + p.HostIP + "/32 "
	}
	return []rule{
		{"filter", chainPorts, words("-d " + ip + "/32 ! -i " + e.Bridge + " -o " + e.Bridge + " -p " + p.Proto + " -m " + p.Proto + " --dport " + inside + " -j ACCEPT")},
		{"nat", chainDNAT, words(dst + match + " -j DNAT --to-destination " + to)},
		{"nat", chainMasq, words("-s " + ip + "/32 -d " + ip + "/32 -p " + p.Proto + " -m " + p.Proto + " --dport " + inside + " -j MASQUERADE")},
	}
}

// portBlocks are the rules of all ports of a sandbox.
func (s *Sandbox) portBlocks() []block {
	if len(s.Endpoints) == 0 || s.Endpoints[0].Bridge == "" {
		return nil // a plugin publishes them
	}
	var all block
	for _, p := range s.Ports {
		all.rules = append(all.rules, portRules(s.Endpoints[0], p)...)
	}
	return []block{all}
}

func (m *Manager) publish(ctx context.Context, s *Sandbox) error {
	m.warnFirewall(s.Ports)
	if err := m.addRules(ctx, s.portBlocks()); err != nil {
		return fmt.Errorf("publish ports: %w", err)
	}
	return nil
}

func (m *Manager) unpublish(ctx context.Context, s *Sandbox) error {
	m.freePorts(s.Ports)
	return m.removeRules(ctx, s.portBlocks())
}

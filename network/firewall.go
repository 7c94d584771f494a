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

// A rule is of IPv4 or of IPv6.
type rule struct {
	v6           bool
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

func openFirewall(v6 bool) (*iptables.IPTables, error) {
	protocol := iptables.ProtocolIPv4
	if v6 {
		protocol = iptables.ProtocolIPv6
	}
	ipt, err := iptables.New(iptables.IPFamily(protocol), iptables.Path(tool(program("iptables", v6))), iptables.Timeout(5))
	if err != nil {
		return nil, fmt.Errorf("iptables: %w (install it, or use --network none or host)", err)
	}
	return ipt, nil
}

// eachFamily changes the rules of IPv4, then those of IPv6, while nobody else does.
func (m *Manager) eachFamily(ctx context.Context, blocks []block, change func(ctx context.Context, v6 bool, part []block) error) error {
	if m.o.Firewall == FirewallNone || len(blocks) == 0 {
		return nil
	}
	l, err := lockFirewall(ctx)
	if err != nil {
		return err
	}
	defer l.Close()
	for _, v6 := range []bool{false, true} {
		if part := ofFamily(blocks, v6); len(part) > 0 {
			if err := change(ctx, v6, part); err != nil {
				return err
			}
		}
	}
	return nil
}

// addRules makes what is missing of the blocks, and the chains.
func (m *Manager) addRules(ctx context.Context, blocks []block) error {
	return m.eachFamily(ctx, blocks, m.addFamily)
}

func (m *Manager) addFamily(ctx context.Context, v6 bool, blocks []block) error {
	have, err := m.loadRules(ctx, v6)
	if err != nil {
		return err
	}
	defer func() { have.close() }()
	if !have.complete(v6) {
		m.noteTables(have)
		ipt, err := openFirewall(v6)
		if err == nil {
			err = makeChains(ipt)
		}
		if err != nil {
			return fmt.Errorf("firewall: %w", err)
		}
		now, err := m.loadRules(ctx, v6)
		if err != nil {
			return err
		}
		have.close()
		have = now
	}
	s := script{}
	s.addMissing(have.present, blocks...)
	return m.change(ctx, have, s)
}

// removeRules removes what is there of the blocks, and the chains after the last.
func (m *Manager) removeRules(ctx context.Context, blocks []block) error {
	return m.eachFamily(ctx, blocks, m.removeFamily)
}

func (m *Manager) removeFamily(ctx context.Context, v6 bool, blocks []block) error {
	have, err := m.loadRules(ctx, v6)
	if errors.Is(err, exec.ErrNotFound) {
		return nil // without iptables there never were rules
	}
	if err != nil {
		return err
	}
	defer have.close()
	s := script{}
	s.remove(have.present, blocks...)
	return m.change(ctx, have, s)
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
	return m.forwarding(n)
}

// removeBridgeRules removes them, and the chains when no network needs them more.
func (m *Manager) removeBridgeRules(ctx context.Context, n *Network) error {
	if m.o.Firewall == FirewallNone {
		return nil
	}
	if err := m.removeRules(ctx, n.blocks()); err != nil {
		return err
	}
	var errs []error
	for _, f := range n.families() {
		errs = append(errs, m.removeChains(ctx, f.v6))
	}
	return errors.Join(errs...)
}

func words(s string) []string { return strings.Fields(s) }

// rules are the network's of one family. The gates of all networks, which say who
// comes in, stand before the ways out of any: so one network does not lead into another.
func (n *Network) rules(f family) (gates, ways []rule) {
	forward := func(list *[]rule, spec string) {
		*list = append(*list, rule{f.v6, "filter", chainForward, words(strings.ReplaceAll(spec, "BR", n.Link))})
	}
	within := " -j ACCEPT"
	if !n.flag(optICC) {
		within = " -j DROP"
	}
	if n.Internal {
		forward(&gates, "! -s "+*f.subnet+" -o BR -j DROP")
		forward(&gates, "! -d "+*f.subnet+" -i BR -j DROP")
		forward(&ways, "-i BR -o BR"+within)
		return gates, ways
	}
	mode := n.gatewayMode(f)
	forward(&gates, "-o BR -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT")
	forward(&gates, "-o BR -j "+chainPorts)
	switch mode {
	case modeUnprotected:
		forward(&gates, "! -i BR -o BR -j ACCEPT")
	case modeRouted:
		if f.v6 {
			forward(&gates, "! -i BR -o BR -p ipv6-icmp -j ACCEPT")
		} else {
			forward(&gates, "! -i BR -o BR -p icmp -j ACCEPT")
		}
		fallthrough
	default:
		forward(&gates, "! -i BR -o BR -j DROP")
	}
	forward(&ways, "-i BR -o BR"+within)
	forward(&ways, "-i BR ! -o BR -j ACCEPT")
	if n.flag(optMasquerade) && mode != modeRouted {
		ways = append(ways, rule{f.v6, "nat", chainMasq, words("-s " + *f.subnet + " ! -o " + n.Link + n.source(f))})
	}
	return gates, ways
}

// source is how packets to the outside come to be the host's.
func (n *Network) source(f family) string {
	to := n.Options[optSource4]
	if f.v6 {
		to = n.Options[optSource6]
	}
	if to == "" {
		return " -j MASQUERADE"
	}
	return " -j SNAT --to-source " + to
}

// blocks are the network's rules as they are made.
func (n *Network) blocks() (list []block) {
	for _, f := range n.families() {
		gates, ways := n.rules(f)
		list = append(list, block{top: true, rules: gates}, block{rules: ways})
	}
	return list
}

// makeChains makes the chains and the jumps to them, the administrator's first.
func makeChains(ipt *iptables.IPTables) error {
	for _, c := range chains() {
		exists, err := ipt.ChainExists(c[0], c[1])
		if err != nil {
			return err
		}
		if exists {
			continue
		}
		if err := ipt.NewChain(c[0], c[1]); err != nil {
			// Someone who holds no lock was faster: then all is well.
			if exists, again := ipt.ChainExists(c[0], c[1]); again != nil || !exists {
				return err
			}
		}
	}
	for _, r := range jumps(ipt.Proto() == iptables.ProtocolIPv6) {
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
func jumps(v6 bool) []rule {
	loopback := "127.0.0.0/8"
	if v6 {
		loopback = "::1/128"
	}
	return []rule{
		{v6, "filter", "FORWARD", words("-j " + chainForward)},
		{v6, "filter", "FORWARD", words("-j " + chainUser)},
		{v6, "nat", "PREROUTING", words("-m addrtype --dst-type LOCAL -j " + chainDNAT)},
		{v6, "nat", "OUTPUT", words("! -d " + loopback + " -m addrtype --dst-type LOCAL -j " + chainDNAT)},
		{v6, "nat", "POSTROUTING", words("-j " + chainMasq)},
	}
}

// complete reports whether chains and jumps are there.
func (p present) complete(v6 bool) bool {
	for _, c := range chains() {
		if !p.chain(c[0], c[1]) {
			return false
		}
	}
	for _, r := range jumps(v6) {
		if !p.rule(r) {
			return false
		}
	}
	return true
}

// removeChains removes chains and jumps that nothing uses any more. Rules of the
// administrator's keep theirs.
func (m *Manager) removeChains(ctx context.Context, v6 bool) error {
	l, err := lockFirewall(ctx)
	if err != nil {
		return err
	}
	defer l.Close()
	have, err := m.loadRules(ctx, v6)
	if errors.Is(err, exec.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer have.close()
	empty := func(table, chain string) bool { return len(have.inChain(table, chain)) == 0 }
	for _, c := range chains() {
		if c[1] != chainUser && !empty(c[0], c[1]) {
			return nil
		}
	}
	s := script{}
	for _, r := range jumps(v6) {
		if r.spec[len(r.spec)-1] != chainUser || empty("filter", chainUser) {
			s.remove(have.present, block{rules: []rule{r}})
		}
	}
	for _, c := range chains() {
		if have.chain(c[0], c[1]) && empty(c[0], c[1]) {
			s.add(c[0], "-X "+c[1])
		}
	}
	if err := m.change(ctx, have, s); err != nil {
		return err
	}
	m.dropTables(have)
	return nil
}

// forwarding lets the kernel route between the bridge and the rest. Where it may
// not be switched on, in a container whose /proc/sys is read-only, the bridge
// still joins its containers.
func (m *Manager) forwarding(n *Network) error {
	for _, f := range n.families() {
		file := "/proc/sys/net/ipv4/ip_forward"
		if f.v6 {
			file = "/proc/sys/net/ipv6/conf/all/forwarding"
		}
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if strings.TrimSpace(string(data)) == "1" {
			continue
		}
		said := "switched on for the containers' networks"
		if err := os.WriteFile(file, []byte("1"), 0); errors.Is(err, unix.EROFS) || errors.Is(err, os.ErrPermission) {
			said = fmt.Sprintf("containers reach nothing beyond it until %s is 1, which cannot be set here", file)
		} else if err != nil {
			return err
		}
		if m.o.Warn != nil {
			m.o.Warn("%s forwarding was off on this host: %s", f.name(), said)
		}
	}
	return nil
}

// portRules are those of one published port in one family: the way in from outside,
// and the container's own way to itself through the host's address.
func (e *Endpoint) portRules(v6 bool, p PublishedPort) []rule {
	address, mode := e.Address, e.Mode
	if v6 {
		address, mode = e.Address6, e.Mode6
	}
	prefix, err := netip.ParsePrefix(address)
	if err != nil || e.Internal {
		return nil
	}
	ip := prefix.Addr()
	inside := " -p " + p.Proto + " -m " + p.Proto + " --dport " + strconv.Itoa(int(p.ContainerPort))
	to := "-d " + single(ip) + " ! -i " + e.Bridge + " -o " + e.Bridge + inside
	if mode == modeRouted {
		return []rule{{v6, "filter", chainPorts, words(to + " -j ACCEPT")}}
	}
	host, err := netip.ParseAddr(p.HostIP)
	if err == nil && (host.IsLoopback() || host.Is6() != v6) {
		// Reached through the listener alone: no packet from outside is led to it.
		return nil
	}
	dst := ""
	if err == nil && !host.IsUnspecified() {
		dst = "-d " + single(host) + " "
	}
	rules := []rule{
		{v6, "filter", chainPorts, words(to + " -m conntrack --ctstate DNAT -j ACCEPT")},
		{v6, "nat", chainDNAT, words(dst + "-p " + p.Proto + " -m " + p.Proto + " --dport " + strconv.Itoa(int(p.HostPort)) + " -j DNAT --to-destination " + netip.AddrPortFrom(ip, p.ContainerPort).String())},
		{v6, "nat", chainMasq, words("-s " + single(ip) + " -d " + single(ip) + inside + " -j MASQUERADE")},
	}
	for _, link := range e.Trusted {
		rules = append(rules, rule{v6, "filter", chainPorts, words("-d " + single(ip) + " -i " + link + " -o " + e.Bridge + inside + " -j ACCEPT")})
	}
	return rules
}

// single is an address as iptables-save prints it.
func single(a netip.Addr) string { return netip.PrefixFrom(a, a.BitLen()).String() }

// portBlocks are the rules of all ports of a sandbox.
func (s *Sandbox) portBlocks() []block {
	e := s.gate()
	if e == nil || e.Bridge == "" {
		return nil // a plugin publishes them
	}
	var all block
	for _, p := range s.Ports {
		all.rules = append(append(all.rules, e.portRules(false, p)...), e.portRules(true, p)...)
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

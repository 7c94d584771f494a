package network

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/coreos/go-iptables/iptables"

	"github.com/kist-containers/kist/internal/state"
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

func (m *Manager) firewallLock(ctx context.Context) (*state.Lock, error) {
	return state.AcquireLock(ctx, m.roots.Lock("firewall"))
}

func openFirewall() (*iptables.IPTables, error) {
	ipt, err := iptables.New(iptables.Timeout(5))
	if err != nil {
		return nil, fmt.Errorf("iptables: %w (install it, or use --network none or host)", err)
	}
	return ipt, nil
}

// bridgeRules makes the rules of a network: NAT to the outside, and nobody in but
// by a published port.
func (m *Manager) bridgeRules(ctx context.Context, n *Network) error {
	l, err := m.firewallLock(ctx)
	if err != nil {
		return err
	}
	defer l.Unlock()
	ipt, err := openFirewall()
	if err != nil {
		return err
	}
	if err := makeChains(ipt); err != nil {
		return fmt.Errorf("firewall: %w", err)
	}
	gates, ways := n.rules()
	for i, r := range gates {
		if err := ipt.InsertUnique(r.table, r.chain, i+1, r.spec...); err != nil {
			return fmt.Errorf("firewall: %w", err)
		}
	}
	for _, r := range ways {
		if err := ipt.AppendUnique(r.table, r.chain, r.spec...); err != nil {
			return fmt.Errorf("firewall: %w", err)
		}
	}
	return forwarding()
}

func (m *Manager) removeBridgeRules(ctx context.Context, n *Network) error {
	l, err := m.firewallLock(ctx)
	if err != nil {
		return err
	}
	defer l.Unlock()
	ipt, err := openFirewall()
	if err != nil {
		return err
	}
	gates, ways := n.rules()
	var errs []error
	for _, r := range append(gates, ways...) {
		errs = append(errs, ipt.DeleteIfExists(r.table, r.chain, r.spec...))
	}
	return errors.Join(errs...)
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

// makeChains makes the chains and the jumps to them, the administrator's first.
func makeChains(ipt *iptables.IPTables) error {
	for _, c := range [][2]string{{"filter", chainUser}, {"filter", chainForward}, {"filter", chainPorts}, {"nat", chainDNAT}, {"nat", chainMasq}} {
		exists, err := ipt.ChainExists(c[0], c[1])
		if err == nil && !exists {
			err = ipt.NewChain(c[0], c[1])
		}
		if err != nil {
			return err
		}
	}
	if err := ipt.InsertUnique("filter", "FORWARD", 1, "-j", chainForward); err != nil {
		return err
	}
	if err := ipt.InsertUnique("filter", "FORWARD", 1, "-j", chainUser); err != nil {
		return err
	}
	for _, r := range []rule{
		{"nat", "PREROUTING", words("-m addrtype --dst-type LOCAL -j " + chainDNAT)},
		{"nat", "OUTPUT", words("! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j " + chainDNAT)},
		{"nat", "POSTROUTING", words("-j " + chainMasq)},
	} {
		if err := ipt.AppendUnique(r.table, r.chain, r.spec...); err != nil {
			return err
		}
	}
	return nil
}

// forwarding lets the kernel route between the bridge and the rest.
func forwarding() error {
	const file = "/proc/sys/net/ipv4/ip_forward"
	data, err := os.ReadFile(file)
	if err != nil || strings.TrimSpace(string(data)) == "1" {
		return err
	}
	return os.WriteFile(file, []byte("1"), 0)
}

// portRules are those of one published port: the way in from outside, and the
// container's own way to itself through the host's address.
func portRules(e Endpoint, p PublishedPort) []rule {
	ip, _, _ := strings.Cut(e.Address, "/")
	inside := strconv.Itoa(int(p.ContainerPort))
	to := ip + ":" + inside
	match := "-p " + p.Proto + " -m " + p.Proto + " --dport " + strconv.Itoa(int(p.HostPort))
	dst := ""
	if p.HostIP != "" && p.HostIP != "0.0.0.0" {
		dst = "-d " + p.HostIP + " "
	}
	rules := []rule{
		{"filter", chainPorts, words("-d " + ip + " ! -i " + e.Bridge + " -o " + e.Bridge + " -p " + p.Proto + " -m " + p.Proto + " --dport " + inside + " -j ACCEPT")},
		{"nat", chainDNAT, words(dst + match + " -j DNAT --to-destination " + to)},
		{"nat", chainMasq, words("-s " + ip + " -d " + ip + " -p " + p.Proto + " -m " + p.Proto + " --dport " + inside + " -j MASQUERADE")},
	}
	if strings.HasPrefix(p.HostIP, "127.") {
		// A port of the loopback address is reached through the listener alone.
		return nil
	}
	return rules
}

func (m *Manager) publish(ctx context.Context, s *Sandbox) error {
	l, err := m.firewallLock(ctx)
	if err != nil {
		return err
	}
	defer l.Unlock()
	ipt, err := openFirewall()
	if err != nil {
		return err
	}
	for _, p := range s.Ports {
		for _, r := range portRules(s.Endpoints[0], p) {
			if err := ipt.AppendUnique(r.table, r.chain, r.spec...); err != nil {
				return fmt.Errorf("publish port %d: %w", p.HostPort, err)
			}
		}
	}
	return nil
}

func (m *Manager) unpublish(ctx context.Context, s *Sandbox) error {
	l, err := m.firewallLock(ctx)
	if err != nil {
		return err
	}
	defer l.Unlock()
	m.freePorts(s.Ports)
	if len(s.Endpoints) == 0 {
		return nil
	}
	ipt, err := openFirewall()
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range s.Ports {
		for _, r := range portRules(s.Endpoints[0], p) {
			errs = append(errs, ipt.DeleteIfExists(r.table, r.chain, r.spec...))
		}
	}
	return errors.Join(errs...)
}

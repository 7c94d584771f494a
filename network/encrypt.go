package network

import (
	"cmp"
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// An encrypted overlay sends its VXLAN packets by IPsec: ESP in transport mode
// (RFC 4303) with AES-256-GCM (RFC 4106), a key for each direction between two
// hosts. It has a UDP port of its own, so that policies can tell it from overlays
// that are not encrypted. Whatever else goes to or comes from that port is dropped
// by the kernel, before a peer is known too.
const (
	optEncrypted = "encrypted"
	optKey       = "key"
	optPort      = "port"
	// espRoom is what ESP takes of a packet: 8 header, 8 IV, 2 to 5 trailer, 16 tag.
	espRoom = 40
	// keySize is AES-256's key and RFC 4106's salt.
	keySize = 32 + 4
	// minSecret is the shortest secret that keys are made of, in bytes.
	minSecret = 32
	algorithm = "rfc4106(gcm(aes))"

	// reqID marks what is kist's among the kernel's associations; below is the vni.
	reqID = 'k' << 24

	// The kernel prefers the lower number.
	priorityPeer  = 10
	priorityBlock = 20
)

// secret is what keys are derived from; id tells it from earlier and later ones.
type secret struct {
	id   string
	data []byte
}

// seal is the protection of an overlay on this host.
type seal struct {
	vni, port int
	self      netip.Addr
	// secrets open what comes; the first also seals what goes.
	secrets []secret
	// boots are words that each host chose when it made its links: with them, keys
	// of before are not used again with the same counters. None with a fixed list.
	boots map[netip.Addr]string
}

func (n *Network) encrypted() bool {
	v, set := n.Options[optEncrypted]
	on, err := strconv.ParseBool(cmp.Or(v, "true"))
	return set && (on || err != nil)
}

// checkEncryption refuses what could not be encrypted, while nothing is made yet.
func (n *Network) checkEncryption() error {
	if v, set := n.Options[optEncrypted]; set && v != "" {
		if _, err := strconv.ParseBool(v); err != nil {
			return fmt.Errorf("option %s=%s: want true or false", optEncrypted, v)
		}
	}
	if v, set := n.Options[optPort]; set {
		if p, err := strconv.Atoi(v); err != nil || p < 1 || p > 65535 {
			return fmt.Errorf("option %s=%s: want a UDP port of 1 to 65535", optPort, v)
		}
	}
	switch file := n.Options[optKey]; {
	case !n.encrypted() && file != "":
		return fmt.Errorf("option %s: for an encrypted overlay: --opt %s", optKey, optEncrypted)
	case !n.encrypted():
		return nil
	case file != "":
		if _, err := readSecrets(file); err != nil {
			return err
		}
	case !n.stored():
		return fmt.Errorf("option %s: say the file with the hosts' common secret: --opt %s=FILE", optEncrypted, optKey)
	case !privateStore(n.Options[optStore]):
		return fmt.Errorf("option %s: the key would come from %s in clear: use https, or --opt %s=FILE", optEncrypted, n.Options[optStore], optKey)
	}
	return probeESP()
}

// privateStore reports whether nobody listens between the store and this host.
func privateStore(url string) bool {
	rest, plain := strings.CutPrefix(url, "http://")
	host, _, err := net.SplitHostPort(rest)
	if err != nil {
		host = rest
	}
	a, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return !plain || host == "localhost" || err == nil && a.IsLoopback()
}

// readSecrets reads a file of secrets, one a line: the first is used for sending,
// all for receiving, so that hosts can change it one after another.
func readSecrets(file string) ([]secret, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("option %s: %w", optKey, err)
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || st.Mode()&0o077 != 0 {
		return nil, fmt.Errorf("option %s=%s: others can read it: chmod 600", optKey, file)
	}
	data, err := io.ReadAll(io.LimitReader(f, 1<<16))
	if err != nil {
		return nil, fmt.Errorf("option %s: %w", optKey, err)
	}
	var list []secret
	for i, line := range strings.Fields(string(data)) {
		if len(line) < minSecret {
			return nil, fmt.Errorf("option %s=%s: the secret of line %d has less than %d characters: openssl rand -hex 32", optKey, file, i+1, minSecret)
		}
		list = append(list, secret{data: []byte(line)})
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("option %s=%s: no secret in it: openssl rand -hex 32", optKey, file)
	}
	return list, nil
}

// udpPort is the port of the overlay's packets on all hosts.
func (n *Network) udpPort() int {
	if p, err := strconv.Atoi(n.Options[optPort]); err == nil {
		return p
	}
	vni, err := n.vni()
	if err != nil || !n.encrypted() {
		return vxlanPort
	}
	// Below the ports that kernels give to programs, and the same on all hosts.
	return 20000 + vni%10000
}

// probeESP makes a security association and removes it.
func probeESP() error {
	s := association(seal{vni: 1}, netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2"), secret{data: []byte("probe")})
	err := netlink.XfrmStateAdd(s)
	if err == nil {
		return netlink.XfrmStateDel(s)
	}
	return explainESP(err)
}

var errNoESP = errors.New("this kernel has no IPsec ESP with AES-GCM (CONFIG_XFRM_USER, CONFIG_INET_ESP, CONFIG_CRYPTO_GCM, CONFIG_CRYPTO_SEQIV; modules xfrm_user, esp4, gcm, seqiv)")

func explainESP(err error) error {
	switch {
	case errors.Is(err, unix.EEXIST):
		return nil
	case errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.ENOENT):
		err = errNoESP
	}
	return fmt.Errorf("option %s: %w", optEncrypted, err)
}

// association is the security association of one direction.
func association(s seal, from, to netip.Addr, k secret) *netlink.XfrmState {
	info := fmt.Sprintf("kist overlay %d %q %s %q %s %q", s.vni, k.id, from, s.boots[from], to, s.boots[to])
	key, err := hkdf.Key(sha256.New, k.data, nil, info, keySize+4)
	if err != nil {
		panic(err) // only for lengths past 8160 bytes
	}
	return &netlink.XfrmState{
		Src: from.AsSlice(), Dst: to.AsSlice(), Proto: netlink.XFRM_PROTO_ESP, Mode: netlink.XFRM_MODE_TRANSPORT,
		// The first 256 are reserved.
		Spi: int(binary.BigEndian.Uint32(key[keySize:])%(1<<32-256)) + 256, Reqid: reqID | s.vni,
		Aead: &netlink.XfrmStateAlgo{Name: algorithm, Key: key[:keySize], ICVLen: 128},
		// Without words of the hosts' boots, numbers begin again with the same key.
		ReplayWindow: map[bool]int{true: 32}[s.boots[from] != ""],
	}
}

// wholeNet is everywhere.
func wholeNet(family int) *net.IPNet {
	size := map[int]int{netlink.FAMILY_V4: 4, netlink.FAMILY_V6: 16}[family]
	return &net.IPNet{IP: make(net.IP, size), Mask: net.CIDRMask(0, 8*size)}
}

func only(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}

// policy leads the overlay's packets between this host and a peer through ESP.
func (s seal) policy(dir netlink.Dir, from, to netip.Addr) *netlink.XfrmPolicy {
	t := netlink.XfrmPolicyTmpl{Src: from.AsSlice(), Dst: to.AsSlice(), Proto: netlink.XFRM_PROTO_ESP, Mode: netlink.XFRM_MODE_TRANSPORT, Reqid: reqID | s.vni}
	if dir == netlink.XFRM_DIR_OUT {
		t.Spi = association(s, from, to, s.secrets[0]).Spi
	}
	return &netlink.XfrmPolicy{
		Src: only(from), Dst: only(to), Proto: unix.IPPROTO_UDP, DstPort: s.port, Dir: dir, Priority: priorityPeer,
		Tmpls: []netlink.XfrmPolicyTmpl{t},
	}
}

// block are the policies for all others.
func (s seal) block(family int) []*netlink.XfrmPolicy {
	all := wholeNet(family)
	p := netlink.XfrmPolicy{Src: all, Dst: all, Proto: unix.IPPROTO_UDP, DstPort: s.port, Priority: priorityBlock, Action: netlink.XFRM_POLICY_BLOCK}
	in, out := p, p
	in.Dir, out.Dir = netlink.XFRM_DIR_IN, netlink.XFRM_DIR_OUT
	return []*netlink.XfrmPolicy{&in, &out}
}

// apply makes the kernel's associations and policies those of the peers. What opens
// is there before what seals.
// Like: ip xfrm state add …; ip xfrm policy update …
func (s seal) apply(peers []netip.Addr) error {
	policies := s.block(s.family())
	var states []*netlink.XfrmState
	for _, peer := range peers {
		for _, k := range s.secrets {
			states = append(states, association(s, s.self, peer, k), association(s, peer, s.self, k))
		}
		policies = append(policies, s.policy(netlink.XFRM_DIR_OUT, s.self, peer), s.policy(netlink.XFRM_DIR_IN, peer, s.self))
	}
	for _, st := range states {
		if err := netlink.XfrmStateAdd(st); err != nil && !errors.Is(err, unix.EEXIST) {
			return explainESP(err)
		}
	}
	now, err := netlink.XfrmPolicyList(s.family())
	if err != nil {
		return explainESP(err)
	}
	for _, p := range policies {
		there := func(o netlink.XfrmPolicy) bool { return samePolicy(p, &o) && spi(p) == spi(&o) }
		if slices.ContainsFunc(now, there) {
			continue
		}
		if err := netlink.XfrmPolicyUpdate(p); err != nil {
			return explainESP(err)
		}
	}
	return s.clean(s.family(), states, policies)
}

// samePolicy reports whether the kernel would keep only one of the two.
func samePolicy(a, b *netlink.XfrmPolicy) bool {
	return a.Dir == b.Dir && a.DstPort == b.DstPort && a.Proto == b.Proto && a.Src.String() == b.Src.String() && a.Dst.String() == b.Dst.String()
}

// spi is 0 for a policy that blocks.
func spi(p *netlink.XfrmPolicy) int {
	if len(p.Tmpls) == 0 {
		return 0
	}
	return p.Tmpls[0].Spi
}

// clean removes what is of this overlay but not among the given.
func (s seal) clean(family int, states []*netlink.XfrmState, policies []*netlink.XfrmPolicy) error {
	now, err := netlink.XfrmPolicyList(family)
	if err != nil {
		return explainESP(err)
	}
	for _, p := range now {
		mine := len(p.Tmpls) > 0 && p.Tmpls[0].Reqid == reqID|s.vni
		if mine && !slices.ContainsFunc(policies, func(o *netlink.XfrmPolicy) bool { return samePolicy(o, &p) }) {
			if err := netlink.XfrmPolicyDel(&p); err != nil && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("remove IPsec policy: %w", err)
			}
		}
	}
	all, err := netlink.XfrmStateList(family)
	if err != nil {
		return explainESP(err)
	}
	for _, st := range all {
		known := func(o *netlink.XfrmState) bool { return o.Spi == st.Spi && o.Dst.Equal(st.Dst) }
		if st.Reqid == reqID|s.vni && !slices.ContainsFunc(states, known) {
			if err := netlink.XfrmStateDel(&st); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("remove IPsec association: %w", err)
			}
		}
	}
	return nil
}

func (s seal) family() int {
	if s.self.Is6() {
		return netlink.FAMILY_V6
	}
	return netlink.FAMILY_V4
}

// unseal undoes apply, but for the policies that block if they are to stay. It
// succeeds when there is nothing, and without IPsec.
func (n *Network) unseal(blocked bool) error {
	vni, err := n.vni()
	if err != nil || !n.encrypted() {
		return err
	}
	s := seal{vni: vni, port: n.udpPort()}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		err := s.clean(family, nil, nil)
		if errors.Is(err, errNoESP) {
			return nil
		}
		if err != nil {
			return err
		}
		if blocked {
			continue
		}
		for _, p := range s.block(family) {
			if err := netlink.XfrmPolicyDel(p); err != nil && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("remove IPsec policy: %w", err)
			}
		}
	}
	return nil
}

// sealOff lets nothing through yet. The links come after it, and the peers after
// them: a packet that was opened for a link that is not there would be quoted in
// clear by an ICMP error.
func (n *Network) sealOff(local net.IP) error {
	vni, err := n.vni()
	if err != nil {
		return err
	}
	self, _ := netip.AddrFromSlice(local)
	return seal{vni: vni, port: n.udpPort(), self: self.Unmap()}.apply(nil)
}

// sealFixed protects an overlay with a fixed list of peers.
func (n *Network) sealFixed(peers []netip.Addr, local net.IP) error {
	secrets, err := readSecrets(n.Options[optKey])
	if err != nil {
		return err
	}
	vni, err := n.vni()
	if err != nil {
		return err
	}
	self, _ := netip.AddrFromSlice(local)
	return seal{vni: vni, port: n.udpPort(), self: self.Unmap(), secrets: secrets}.apply(peers)
}

// reseal gives overlays the secrets that their files have now.
func (m *Manager) reseal(ctx context.Context) error {
	list, err := m.List()
	if err != nil {
		return err
	}
	for _, n := range list {
		if n.Driver != "overlay" || n.stored() || !n.encrypted() || !n.find() {
			continue
		}
		if err := (overlayDriver{}).ensure(ctx, m, n); err != nil {
			return fmt.Errorf("network %s: %w", n.Name, err)
		}
	}
	return nil
}

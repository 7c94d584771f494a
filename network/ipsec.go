package network

import (
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

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
	st := &netlink.XfrmState{
		Src: from.AsSlice(), Dst: to.AsSlice(), Proto: netlink.XFRM_PROTO_ESP, Mode: netlink.XFRM_MODE_TRANSPORT,
		// The first 256 are reserved.
		Spi: int(binary.BigEndian.Uint32(key[keySize:])%(1<<32-256)) + 256, Reqid: reqID | s.vni,
		Aead: &netlink.XfrmStateAlgo{Name: algorithm, Key: key[:keySize], ICVLen: 128},
	}
	if s.boots[from] != "" {
		st.ESN, st.ReplayWindow = true, replayWindow
	}
	// Without a word of the boot, numbers begin again with the same key: they are not
	// looked at, and the kernel's random part of the IV keeps it from coming twice.
	return st
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
	now, err := whole(func() ([]netlink.XfrmPolicy, error) { return netlink.XfrmPolicyList(s.family()) })
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
	if err := s.beginAgain(states); err != nil {
		return err
	}
	return s.clean(s.family(), states, policies)
}

// beginAgain makes associations anew before their numbers, of 32 bits without a word
// of the boot, run out: the kernel would send nothing more.
func (s seal) beginAgain(states []*netlink.XfrmState) error {
	now, err := whole(func() ([]netlink.XfrmState, error) { return netlink.XfrmStateList(s.family()) })
	if err != nil {
		return explainESP(err)
	}
	for _, st := range states {
		far := func(o netlink.XfrmState) bool {
			return o.Spi == st.Spi && o.Dst.Equal(st.Dst) && o.Replay != nil && o.Replay.OSeq > lastNumber
		}
		if !slices.ContainsFunc(now, far) {
			continue
		}
		if err := errors.Join(netlink.XfrmStateDel(st), netlink.XfrmStateAdd(st)); err != nil {
			return explainESP(err)
		}
	}
	return nil
}

// shared reports whether another overlay has peers on the same port.
func (s seal) shared(family int) (bool, error) {
	now, err := whole(func() ([]netlink.XfrmPolicy, error) { return netlink.XfrmPolicyList(family) })
	if err != nil {
		return false, explainESP(err)
	}
	return slices.ContainsFunc(now, func(p netlink.XfrmPolicy) bool {
		return p.DstPort == s.port && len(p.Tmpls) > 0 && p.Tmpls[0].Reqid != reqID|s.vni
	}), nil
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
	now, err := whole(func() ([]netlink.XfrmPolicy, error) { return netlink.XfrmPolicyList(family) })
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
	all, err := whole(func() ([]netlink.XfrmState, error) { return netlink.XfrmStateList(family) })
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

package network

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// captured counts what crosses a link, by IP protocol; see packet(7).
func captured(t *testing.T, link string) (stop func() map[byte]int) {
	t.Helper()
	all := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(all))
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: index(t, link)})
	}
	if err != nil {
		t.Fatal(err)
	}
	return func() map[byte]int {
		defer unix.Close(fd)
		seen := map[byte]int{}
		buf := make([]byte, 65536)
		for {
			n, from, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
			if err != nil {
				return seen
			}
			if n > 20 && buf[9] == unix.IPPROTO_ICMP {
				t.Logf("on the wire: % x", buf[:n])
			}
			if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Protocol == binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_IP)) && n > 20 {
				seen[buf[9]]++
			}
		}
	}
}

func secretFile(t *testing.T, secrets ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(strings.Join(secrets, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func needsESP(t *testing.T) {
	t.Helper()
	if err := probeESP(); err != nil {
		t.Skip("needs IPsec ESP: " + err.Error())
	}
}

func TestEncryptedOverlay(t *testing.T) {
	m1, m2 := newManager(t), newManager(t)
	needsESP(t)
	ctx, host2 := context.Background(), cable(t)
	old, next := strings.Repeat("a", 40), strings.Repeat("b", 40)
	file1, file2 := secretFile(t, old), secretFile(t, old)
	create := func(m *Manager, peer, ips, file string) error {
		return m.Create(ctx, &Network{Name: "over", Driver: "overlay", Subnet: "10.67.0.0/24", IPRange: ips,
			Options: map[string]string{optPeers: peer, optVNI: "4243", optEncrypted: "", optKey: file}})
	}
	in2 := func(f func() error) error { return inNamespace(host2, f) }
	if err := errors.Join(create(m1, "192.0.2.2", "10.67.0.0/25", file1), in2(func() error { return create(m2, "192.0.2.1", "10.67.0.128/25", file2) })); err != nil {
		t.Fatal(err)
	}
	stop := captured(t, "cable0")
	one, run := sandbox(t, m1, "a", "over")
	cfg := SandboxConfig{ID: strings.Repeat("b", 64), Name: "b", Mode: "over", Dir: t.TempDir()}
	if err := in2(func() error { _, err := m2.Setup(ctx, cfg); return err }); err != nil {
		t.Fatal(err)
	}
	across := func(what string) {
		t.Helper()
		// 1400 less the tunnel's 50, ESP's 40, and 28 of IP and ICMP.
		if err := run("busybox", "ping", "-c2", "-W5", "-s", "1282", "10.67.0.128"); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	across("ping")
	same := &Network{Name: "same", Driver: "overlay", Subnet: "10.68.0.0/24", Options: map[string]string{optPeers: "192.0.2.2", optVNI: "14243", optEncrypted: "", optKey: file1}}
	if err := m1.Create(ctx, same); err != nil {
		t.Fatal(err)
	}
	if _, err := m1.Setup(ctx, SandboxConfig{ID: strings.Repeat("e", 64), Mode: "same", Dir: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "has UDP port 24243") {
		t.Errorf("two overlays of one port: %v", err)
	}
	if err := m1.Remove(ctx, "same"); err != nil {
		t.Error(err)
	}
	across("after another was refused")
	if policies, err := netlink.XfrmPolicyList(netlink.FAMILY_V4); err != nil || len(policies) != 4 {
		t.Errorf("%d policies, %v: want two of the peer and two that block", len(policies), err)
	}
	// The secret changes, one host after another: first all know it, then all use it.
	rewrite := func(file string, secrets ...string) {
		if err := os.WriteFile(file, []byte(strings.Join(secrets, "\n")), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(m1.reseal(ctx), in2(func() error { return m2.reseal(ctx) })); err != nil {
			t.Error(err)
		}
	}
	rewrite(file1, old, next)
	across("the first host knows a new secret")
	rewrite(file2, next, old)
	across("the second seals with it")
	rewrite(file1, next)
	rewrite(file2, next)
	across("the old one is gone")
	seen := stop()
	if seen[unix.IPPROTO_ESP] < 16 || seen[unix.IPPROTO_UDP] > 0 || seen[unix.IPPROTO_ICMP] > 0 {
		t.Errorf("packets on the wire by protocol: %v, want ESP (50) alone", seen)
	}
	// What comes in clear is dropped, from a peer and from others.
	port := must(m1.Network("over")).udpPort()
	if err := in2(func() error { return sendPlain("192.0.2.1", port) }); err != nil {
		t.Error(err) // it goes through ESP
	}
	if err := in2(func() error { return sendPlain("192.0.2.77", port) }); !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.ENETUNREACH) {
		t.Errorf("in clear to a stranger: %v, want it blocked", err)
	}
	err := in2(func() error { return errors.Join(m2.Teardown(ctx, cfg.ID), m2.Remove(ctx, "over")) })
	if err := errors.Join(err, m1.Teardown(ctx, one.ID), m1.Remove(ctx, "over")); err != nil {
		t.Error(err)
	}
	nothingSealed(t)
	if err := in2(func() error { nothingSealed(t); return nil }); err != nil {
		t.Error(err)
	}
}

// sendPlain sends a datagram to an overlay's port.
func sendPlain(host string, port int) error {
	c, err := net.Dial("udp", netip.AddrPortFrom(netip.MustParseAddr(host), uint16(port)).String())
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Write([]byte("clear"))
	return err
}

func nothingSealed(t *testing.T) {
	t.Helper()
	states, err1 := netlink.XfrmStateList(netlink.FAMILY_ALL)
	policies, err2 := netlink.XfrmPolicyList(netlink.FAMILY_ALL)
	if err := errors.Join(err1, err2); err != nil || len(states)+len(policies) > 0 {
		t.Errorf("%d associations and %d policies stay, %v", len(states), len(policies), err)
	}
}

func TestEncryptedNeedsTheKernel(t *testing.T) {
	m := newManager(t)
	if probeESP() == nil {
		t.Skip("needs a kernel without IPsec ESP")
	}
	err := m.Create(context.Background(), &Network{Name: "x", Driver: "overlay", Subnet: "10.67.0.0/24",
		Options: map[string]string{optPeers: "192.0.2.1", optVNI: "5", optEncrypted: "", optKey: secretFile(t, strings.Repeat("k", 32))}})
	if err == nil || !strings.Contains(err.Error(), "CONFIG_") {
		t.Errorf("%v, want what the kernel lacks", err)
	}
}

func TestBadEncryption(t *testing.T) {
	m := newManager(t)
	open := secretFile(t, strings.Repeat("k", 32))
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	for want, o := range map[string]map[string]string{
		"want true or false":       {optEncrypted: "perhaps"},
		"say the file":             {optEncrypted: ""},
		"for an encrypted overlay": {optKey: "/etc/hostname"},
		"no such file":             {optEncrypted: "", optKey: "/nonexistent"},
		"others can read it":       {optEncrypted: "", optKey: open},
		"less than 32":             {optEncrypted: "", optKey: secretFile(t, "short")},
		"no secret in it":          {optEncrypted: "", optKey: secretFile(t)},
		"want a UDP port":          {optPort: "65536"},
		"in clear":                 {optEncrypted: "", optStore: "http://192.0.2.9:2379", optAdvertise: "192.0.2.1"},
	} {
		o[optPeers], o[optVNI] = "192.0.2.1", "5"
		err := m.Create(context.Background(), &Network{Name: "x", Driver: "overlay", Subnet: "10.66.0.0/24", Options: o})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v: %v, want %q", o, err, want)
		}
	}
}

func TestSecretsInTurn(t *testing.T) {
	now := time.Now()
	s := func(age time.Duration) storedSecret {
		return storedSecret{strings.Repeat("s", 52), now.Add(-age)}
	}
	for _, c := range []struct {
		stored map[int]storedSecret
		want   string
	}{
		{map[int]storedSecret{1: s(0)}, "1"},
		{map[int]storedSecret{1: s(time.Hour), 2: s(time.Second)}, "1 2"},
		{map[int]storedSecret{1: s(time.Hour), 2: s(time.Minute)}, "2 1"},
		{map[int]storedSecret{1: s(9 * time.Hour), 2: s(time.Hour), 3: s(time.Minute)}, "3 2"},
	} {
		var numbers []int
		for n := range c.stored {
			numbers = append(numbers, n)
		}
		slices.SortFunc(numbers, func(a, b int) int { return b - a })
		list, err := chooseSecrets(c.stored, numbers, now)
		var got []string
		for _, k := range list {
			got = append(got, k.id)
		}
		if err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("%v %v, want %s", got, err, c.want)
		}
	}
	if _, err := chooseSecrets(nil, nil, now); err == nil {
		t.Error("no secret is enough")
	}
}

func TestKeysOfEachDirectionAndBootDiffer(t *testing.T) {
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	k := secret{"1", []byte(strings.Repeat("s", 52))}
	seen := map[string]bool{}
	for _, s := range []seal{{vni: 1}, {vni: 2}, {vni: 1, boots: map[netip.Addr]string{a: "x", b: "y"}}, {vni: 1, boots: map[netip.Addr]string{a: "z", b: "y"}}} {
		seen[string(association(s, a, b, k).Aead.Key)] = true
		seen[string(association(s, b, a, k).Aead.Key)] = true
	}
	if len(seen) != 8 {
		t.Errorf("%d different keys, want 8", len(seen))
	}
}

// An association whose numbers run out is made anew, and what is sent arrives.
func TestNumbersBeginAgain(t *testing.T) {
	newManager(t)
	needsESP(t)
	s := seal{vni: 6, port: 20006, self: netip.MustParseAddr("192.0.2.1"), secrets: []secret{{data: []byte(strings.Repeat("s", 40))}}}
	peer := netip.MustParseAddr("192.0.2.2")
	old := association(s, s.self, peer, s.secrets[0])
	old.Replay = &netlink.XfrmReplayState{OSeq: 1<<31 + 1}
	if err := netlink.XfrmStateAdd(old); err != nil {
		t.Fatal(err)
	}
	if was, err := netlink.XfrmStateGet(old); err != nil || was.Replay == nil || was.Replay.OSeq <= lastNumber {
		t.Fatalf("%+v %v, want high numbers", was, err)
	}
	if err := s.apply([]netip.Addr{peer}); err != nil {
		t.Fatal(err)
	}
	now, err := netlink.XfrmStateGet(old)
	if err != nil || now.Replay != nil && now.Replay.OSeq != 0 {
		t.Errorf("%+v %v, want numbers from 0", now.Replay, err)
	}
	n := &Network{Driver: "overlay", Options: map[string]string{optEncrypted: "", optVNI: "6", optPort: "20006"}}
	if err := n.unseal(false); err != nil {
		t.Error(err)
	}
	nothingSealed(t)
}

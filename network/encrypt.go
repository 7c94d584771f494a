package network

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

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

	// replayWindow is how many packets may overtake one another; lastNumber is where
	// 32-bit numbers begin again, half an hour at 10 Gbit/s before their end.
	replayWindow = 128
	lastNumber   = 1 << 31
	sealTick     = 10 * time.Minute

	// The kernel prefers the lower number.
	priorityPeer  = 10
	priorityBlock = 20
)

// secret is what keys are derived from; id tells it from earlier and later ones.
type secret struct {
	id   string
	data []byte
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
		other, err := s.shared(family)
		if err != nil {
			return err
		}
		if blocked || other {
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
	s := seal{vni: vni, port: n.udpPort(), self: self.Unmap()}
	other, err := s.shared(s.family())
	if err != nil {
		return err
	}
	if other {
		return fmt.Errorf("another encrypted overlay of this host has UDP port %d: choose one on all hosts with --opt %s=PORT", s.port, optPort)
	}
	return s.apply(nil)
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

// listSealed reports whether the network is encrypted with a fixed list of peers.
func (n *Network) listSealed() bool { return n.Driver == "overlay" && !n.stored() && n.encrypted() }

// reseal gives overlays the secrets that their files have now.
func (m *Manager) reseal(ctx context.Context) error {
	list, err := m.List()
	if err != nil {
		return err
	}
	for _, n := range list {
		if !n.listSealed() || !n.find() {
			continue
		}
		if err := (overlayDriver{}).ensure(ctx, m, n); err != nil {
			return fmt.Errorf("network %s: %w", n.Name, err)
		}
	}
	return nil
}

// keepSealed reseals every sealTick until ctx ends.
func (m *Manager) keepSealed(ctx context.Context) {
	tick := time.NewTicker(sealTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			m.reseal(ctx) // what fails now is tried at the next tick
		}
	}
}

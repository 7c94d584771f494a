package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/state"
	"github.com/kist-containers/kist/network/etcd"
	"github.com/kist-containers/kist/network/nameserver"
)

// An overlay with a store has its hosts, addresses and names there, under
// /kist/overlay/<vni>/: host/<address> and addr/<ip>. All that a host puts there
// is under its lease, so that a host that dies is forgotten. One monitor of each
// host, elected by lock, renews the lease and carries what others put there to
// this host: its forwarding table and the files of the name servers.
const (
	optStore     = "store"
	optAdvertise = "advertise"
	// hostTTL is how long a host that died is known, storeTick how often others look.
	hostTTL   = 10 * time.Second
	storeTick = 2 * time.Second
)

// storedEndpoint is the value of addr/<ip>.
type storedEndpoint struct {
	Host string `json:"host"`
	nameserver.Endpoint
}

// store is a host's view of one overlay's store.
type store struct {
	*etcd.Client
	m      *Manager
	n      *Network
	prefix string
	self   netip.Addr
}

func (n *Network) stored() bool { return n.Driver == "overlay" && n.Options[optStore] != "" }

// store opens the overlay's store. It connects to nobody.
func (m *Manager) store(n *Network) (*store, error) {
	c, err := etcd.Open(etcd.Config{URL: n.Options[optStore], CAFile: n.Options["store.cacert"], CertFile: n.Options["store.cert"], Key: n.Options["store.key"]})
	if err != nil {
		return nil, err
	}
	vni, err := n.vni()
	if err != nil {
		return nil, err
	}
	s := &store{Client: c, m: m, n: n, prefix: fmt.Sprintf("/kist/overlay/%d/", vni)}
	s.self, err = n.advertised()
	return s, err
}

// advertised is the address of this host that its peers send to.
func (n *Network) advertised() (netip.Addr, error) {
	if a := n.Options[optAdvertise]; a != "" {
		addr, err := netip.ParseAddr(a)
		if err != nil {
			return addr, fmt.Errorf("option %s=%s: not an IP address", optAdvertise, a)
		}
		return addr, nil
	}
	u, err := url.Parse(n.Options[optStore])
	if err != nil {
		return netip.Addr{}, err
	}
	to, err := netip.ParseAddr(u.Hostname())
	if err != nil || to.IsLoopback() {
		return netip.Addr{}, fmt.Errorf("option %s: say the address of this host that the others send to: --opt %s=IP", optStore, optAdvertise)
	}
	local, _, err := n.wayTo(to)
	if err != nil {
		return netip.Addr{}, err
	}
	addr, _ := netip.AddrFromSlice(local)
	return addr.Unmap(), nil
}

func (s *store) leaseFile() string {
	return filepath.Join(s.m.roots.Run, "network", s.n.Name, "store-lease.json")
}

// lease is this host's, renewed; a new one where it ran out, with all that was
// under it put again. The network or the keeper's lock is held.
func (s *store) lease(ctx context.Context) (string, error) {
	var lease string
	if err := state.ReadJSON(s.leaseFile(), &lease); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if lease != "" {
		alive, err := s.Renew(ctx, lease)
		if alive || err != nil {
			return lease, err
		}
	}
	lease, err := s.Grant(ctx, hostTTL)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(s.leaseFile()), 0o700); err != nil {
		return "", err
	}
	if err := state.WriteVolatileJSON(s.leaseFile(), lease); err != nil {
		return "", err
	}
	if err := s.Put(ctx, s.prefix+"host/"+s.self.String(), s.boot(), lease); err != nil {
		return "", err
	}
	for addr, id := range s.n.Leases {
		if err := s.put(ctx, addr, id, lease); err != nil {
			return "", err
		}
	}
	return lease, nil
}

// put says who has an address and under which names.
func (s *store) put(ctx context.Context, addr, id, lease string) error {
	data, err := json.Marshal(s.endpoint(addr, id))
	if err != nil {
		return err
	}
	return s.Put(ctx, s.prefix+"addr/"+addr, string(data), lease)
}

func (s *store) endpoint(addr, id string) storedEndpoint {
	e := storedEndpoint{Host: s.self.String(), Endpoint: nameserver.Endpoint{Container: id}}
	e.IPv4, _ = netip.ParseAddr(addr)
	if sb, err := s.m.Sandbox(id); err == nil && sb.Resolver != nil {
		e.Names = sb.Resolver.Names[s.n.Name]
	}
	return e
}

// claim takes an address for id from all hosts, and learns of them.
func (m *Manager) claim(ctx context.Context, n *Network, id, wanted string) (string, error) {
	s, err := m.store(n)
	if err != nil {
		return "", err
	}
	addr, err := s.claim(ctx, id, wanted)
	if err != nil {
		return "", err
	}
	hosts, err := s.hosts(ctx)
	if err != nil {
		return "", err
	}
	return addr, s.learnHosts(ctx, hosts)
}

// claim takes an address that no host has, the wanted one if there is one. It
// waits on the store with this network's lock held: nothing else can be done in
// this network meanwhile, and the wait is bounded.
func (s *store) claim(ctx context.Context, id, wanted string) (string, error) {
	lease, err := s.lease(ctx)
	if err != nil {
		return "", err
	}
	taken, err := s.List(ctx, s.prefix+"addr/")
	if err != nil {
		return "", err
	}
	view := *s.n
	view.Leases = maps.Clone(s.n.Leases)
	if view.Leases == nil {
		view.Leases = map[string]string{}
	}
	maps.Copy(view.Leases, taken)
	for {
		try := wanted
		if try == "" {
			a, ok := view.lowestFree(view.families()[0])
			if !ok {
				return "", fmt.Errorf("network %s: no free address in %s", s.n.Name, s.n.Subnet)
			}
			try = a.String()
		}
		data, err := json.Marshal(s.endpoint(try, id))
		if err != nil {
			return "", err
		}
		switch ok, err := s.Create(ctx, s.prefix+"addr/"+try, string(data), lease); {
		case err != nil:
			return "", err
		case ok:
			return try, nil
		case wanted != "":
			return "", fmt.Errorf("--ip %s: address is in use in network %s", wanted, s.n.Name)
		}
		view.Leases[try] = "another host's"
	}
}

// share tells the other hosts of the sandbox's names.
func (m *Manager) share(ctx context.Context, sb *Sandbox) error {
	for _, e := range sb.Endpoints {
		n, err := m.readNetwork(e.Network)
		if err != nil || !n.stored() {
			continue
		}
		s, err := m.store(n)
		if err != nil {
			return err
		}
		var lease string
		if err := state.ReadJSON(s.leaseFile(), &lease); err != nil {
			return err
		}
		p, err := netip.ParsePrefix(e.Address)
		if err != nil {
			return err
		}
		if err := s.put(ctx, p.Addr().String(), sb.ID, lease); err != nil {
			return err
		}
	}
	return nil
}

// keep is the host's part in a stored overlay until ctx ends. Of all monitors of
// the host the one that has the lock does it; when it dies another one takes over.
func (m *Manager) keep(ctx context.Context, network string) {
	var l *state.Lock
	defer func() {
		if l != nil {
			l.Unlock()
		}
	}()
	tick := time.NewTicker(storeTick)
	defer tick.Stop()
	for {
		if l == nil {
			l, _ = m.tryKeeper(network)
		}
		if l != nil {
			// The store may be away for a while; then the next round does it.
			m.syncStore(ctx, network)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (m *Manager) tryKeeper(network string) (*state.Lock, error) {
	return state.TryLock(m.roots.Lock("overlay-" + network))
}

func (m *Manager) syncStore(ctx context.Context, network string) error {
	n, err := m.readNetwork(network)
	if err != nil {
		return err
	}
	s, err := m.store(n)
	if err != nil {
		return err
	}
	return s.sync(ctx)
}

// sync renews this host and learns of the others.
func (s *store) sync(ctx context.Context) error {
	if _, err := s.lease(ctx); err != nil {
		return err
	}
	hosts, err := s.hosts(ctx)
	if err != nil {
		return err
	}
	if err := s.rotate(ctx); err != nil {
		return err
	}
	addrs, err := s.List(ctx, s.prefix+"addr/")
	if err != nil {
		return err
	}
	return errors.Join(s.learnHosts(ctx, hosts), s.learnNames(ctx, addrs))
}

// learnHosts makes the forwarding table's floods go to all hosts but this.
func (s *store) learnHosts(ctx context.Context, hosts map[string]string) error {
	if err := s.seal(ctx, hosts); err != nil {
		return err
	}
	link, err := netlink.LinkByName(s.n.vxlan())
	if err != nil {
		return err
	}
	want := map[string]bool{}
	for h := range hosts {
		if a, ok := s.peer(h); ok {
			want[a.String()] = true
		}
	}
	now, err := whole(func() ([]netlink.Neigh, error) { return netlink.NeighList(link.Attrs().Index, unix.AF_BRIDGE) })
	if err != nil {
		return err
	}
	for _, e := range now {
		if e.IP == nil || e.HardwareAddr.String() != flood.String() {
			continue
		}
		if ip := e.IP.String(); want[ip] {
			delete(want, ip)
		} else if err := netlink.NeighDel(floodTo(link, e.IP)); err != nil {
			return fmt.Errorf("forget host %s: %w", ip, err)
		}
	}
	for ip := range want {
		if err := netlink.NeighAppend(floodTo(link, net.ParseIP(ip))); err != nil {
			return fmt.Errorf("peer %s: %w", ip, err)
		}
	}
	return nil
}

// learnNames brings the files of the name servers in line with the other hosts'
// endpoints, and forgets addresses of ours that nobody has any more.
func (s *store) learnNames(ctx context.Context, addrs map[string]string) error {
	dir := s.m.endpointDir(s.n.Name)
	// A sandbox of this host speaks for itself; its record is there before its lease.
	mine := func(id string) bool {
		_, err := os.Stat(s.m.sandboxFile(id))
		return err == nil
	}
	there := map[string]bool{}
	var errs []error
	for addr, value := range addrs {
		var e storedEndpoint
		if json.Unmarshal([]byte(value), &e) != nil || !state.ValidName(e.Container) {
			continue
		}
		switch {
		case e.Host == s.self.String() && s.n.Leases[addr] == "":
			errs = append(errs, s.m.forgetStored(ctx, s, addr))
		case e.Host != s.self.String() && !mine(e.Container):
			there[e.Container] = true
			errs = append(errs, e.Endpoint.Update(dir))
		}
	}
	files, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, f := range files {
		id, ok := cutJSON(f.Name())
		if ok && !there[id] && !mine(id) {
			errs = append(errs, nameserver.Withdraw(dir, id))
		}
	}
	return errors.Join(errs...)
}

func cutJSON(name string) (string, bool) {
	id := name[:max(0, len(name)-len(".json"))]
	return id, id != "" && id[0] != '.' && name == id+".json"
}

// forgetStored deletes an address of this host's that has no lease here. The
// network is locked so that no command is just taking it.
func (m *Manager) forgetStored(ctx context.Context, s *store, addr string) error {
	l, err := m.lock(ctx, s.n.Name)
	if err != nil {
		return err
	}
	defer l.Unlock()
	n, err := m.readNetwork(s.n.Name)
	if err != nil || n.Leases[addr] != "" {
		return err
	}
	return s.Delete(ctx, s.prefix+"addr/"+addr)
}

// leaveStore makes the others forget this host at once. Without an answer they do
// when its lease ends.
func (m *Manager) leaveStore(ctx context.Context, n *Network) {
	s, err := m.store(n)
	if err != nil {
		return
	}
	var lease string
	if state.ReadJSON(s.leaseFile(), &lease) == nil && lease != "" {
		s.Revoke(ctx, lease)
	}
	s.forgetSecrets(ctx)
}

// unclaim gives an address back to all hosts. Without an answer the keeper does it.
func (m *Manager) unclaim(ctx context.Context, n *Network, addr string) {
	if s, err := m.store(n); err == nil {
		s.Delete(ctx, s.prefix+"addr/"+addr)
	}
}

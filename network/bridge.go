package network

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/state"
)

// bridge is a network's file: its pool, and who has which address.
type bridge struct {
	Version int    `json:"version"`
	Name    string `json:"name"`
	Link    string `json:"link"`
	Subnet  string `json:"subnet"`
	Gateway string `json:"gateway"`
	// Leases maps an address to the container that has it.
	Leases map[string]string `json:"leases,omitempty"`

	index int
}

func (m *Manager) bridgeFile() string {
	return filepath.Join(m.roots.Data, "network", DefaultBridge+".json")
}

func (m *Manager) lock(ctx context.Context) (*state.Lock, error) {
	return state.AcquireLock(ctx, filepath.Join(m.roots.Data, "network", ".lock", DefaultBridge))
}

func (m *Manager) readBridge() (*bridge, error) {
	b := new(bridge)
	err := state.ReadJSON(m.bridgeFile(), b)
	return b, err
}

// ensureBridge returns the default network, made if it is not there: its file,
// its link, its rules. The usual case is one file read and one netlink call.
func (m *Manager) ensureBridge(ctx context.Context) (*bridge, error) {
	if b, err := m.readBridge(); err == nil && b.find() {
		return b, nil
	}
	l, err := m.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer l.Unlock()
	b, err := m.readBridge()
	if errors.Is(err, fs.ErrNotExist) {
		b, err = m.newBridge()
	}
	if err != nil {
		return nil, err
	}
	if b.find() {
		return b, nil
	}
	return b, m.makeBridge(ctx, b)
}

// find looks the link up.
func (b *bridge) find() bool {
	link, err := netlink.LinkByName(b.Link)
	if err != nil || link.Attrs().Flags&unix.IFF_UP == 0 {
		return false
	}
	b.index = link.Attrs().Index
	return true
}

func (m *Manager) newBridge() (*bridge, error) {
	pool, err := freePool()
	if err != nil {
		return nil, err
	}
	b := &bridge{Version: 1, Name: DefaultBridge, Link: m.bridgeName(), Subnet: pool.String(), Gateway: pool.Addr().Next().String()}
	return b, state.WriteJSON(m.bridgeFile(), b)
}

// makeBridge is Like: ip link add kist0 type bridge; ip addr add …; ip link set kist0 up
func (m *Manager) makeBridge(ctx context.Context, b *bridge) error {
	link := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: b.Link}}
	if err := netlink.LinkAdd(link); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("make bridge %s: %w", b.Link, err)
	}
	// No host takes router advertisements from its containers.
	os.WriteFile("/proc/sys/net/ipv6/conf/"+b.Link+"/accept_ra", []byte("0"), 0)
	found, err := netlink.LinkByName(b.Link)
	if err != nil {
		return fmt.Errorf("bridge %s: %w", b.Link, err)
	}
	pool := netip.MustParsePrefix(b.Subnet)
	addr, err := netlink.ParseAddr(fmt.Sprintf("%s/%d", b.Gateway, pool.Bits()))
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(found, addr); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("address of %s: %w", b.Link, err)
	}
	if err := m.bridgeRules(ctx, b); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(found); err != nil {
		return fmt.Errorf("bring up %s: %w", b.Link, err)
	}
	b.index = found.Attrs().Index
	return nil
}

// join makes the endpoint: a veth pair, one end on the bridge, the other made
// directly in the sandbox, with address and default route.
// Like: ip link add veth… master kist0 type veth peer name eth0 netns …
func (b *bridge) join(key string, e *Endpoint) error {
	ns, err := os.Open(key)
	if err != nil {
		return err
	}
	defer ns.Close()
	veth := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: e.HostLink, MasterIndex: b.index},
		PeerName:  e.Link, PeerNamespace: netlink.NsFd(int(ns.Fd())),
	}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("make veth pair: %w", err)
	}
	if err := setUp(e.HostLink); err != nil {
		return err
	}
	return inNamespace(ns, func() error { return e.configure() })
}

func setUp(name string) error {
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkSetUp(link)
	}
	if err != nil {
		return fmt.Errorf("bring up %s: %w", name, err)
	}
	return nil
}

// configure runs in the sandbox.
func (e *Endpoint) configure() error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	link, err := h.LinkByName(e.Link)
	if err != nil {
		return err
	}
	if e.MAC != "" {
		if err := setMAC(h, link, e.MAC); err != nil {
			return err
		}
	} else {
		e.MAC = link.Attrs().HardwareAddr.String()
	}
	addr, err := netlink.ParseAddr(e.Address)
	if err != nil {
		return err
	}
	if err := h.AddrAdd(link, addr); err != nil {
		return fmt.Errorf("address %s: %w", e.Address, err)
	}
	if err := h.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring up %s: %w", e.Link, err)
	}
	gw := netip.MustParseAddr(e.Gateway)
	if err := h.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: gw.AsSlice()}); err != nil {
		return fmt.Errorf("default route: %w", err)
	}
	return nil
}

// inNamespace runs f on a thread in ns. The thread is never unlocked, so it dies
// with the goroutine.
func inNamespace(ns *os.File, f func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			result <- os.NewSyscallError("setns", err)
			return
		}
		result <- f()
	}()
	return <-result
}

// makeNamespace makes a network namespace and keeps it by a bind mount on path.
// Like: ip netns add, with lo up.
func makeNamespace(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o600)
	if err != nil {
		return err
	}
	f.Close()
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		result <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return os.NewSyscallError("unshare network namespace", err)
			}
			if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
				return os.NewSyscallError("keep network namespace", err)
			}
			return prepareNamespace()
		}()
	}()
	return <-result
}

// prepareNamespace sets docker's parameters of a sandbox and brings lo up.
func prepareNamespace() error {
	for name, value := range map[string]string{"ip_unprivileged_port_start": "0", "ping_group_range": "0 2147483647"} {
		// A kernel without the parameter has nothing to relax.
		os.WriteFile("/proc/sys/net/ipv4/"+name, []byte(value), 0)
	}
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(s)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return os.NewSyscallError("bring up lo", unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, req))
}

// removeLink removes a link of the host that may be gone already, with the
// namespace of its other end.
func removeLink(name string) error {
	link, err := netlink.LinkByName(name)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if err != nil && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("remove link %s: %w", name, err)
	}
	return nil
}

func hostLink(id string) string { return "veth" + strings.ToLower(id[:min(10, len(id))]) }

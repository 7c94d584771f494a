// Package network connects containers, after the Container Network Model: a
// sandbox is a network namespace kept by a file, an endpoint its leg in a
// network. It knows nothing of containers but their IDs.
//
// Whatever is made outside of files (a namespace, a link, a rule) is recorded in
// the sandbox's file before, so that the next command can undo what a killed one
// left.
package network

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/state"
	"github.com/kist-containers/kist/internal/ui"
)

// What a caller may conclude from an error.
var (
	ErrNotFound = errors.New("no such network")
	ErrInUse    = errors.New("network is in use")
)

// DefaultBridge is the name of the network that containers join by default.
const DefaultBridge = "bridge"

// Options say what this machine lets a manager do.
type Options struct {
	// Rootless has no bridge of the host's.
	Rootless bool
	// Firewall is FirewallNone for no rules at all; "" for iptables.
	Firewall string
	// AddressPools are what networks without a subnet are cut from, as
	// BASE:SIZE,…: "" for docker's.
	AddressPools string
	// PublishAddress is where ports without an address are published: "" for all.
	PublishAddress string
	// Warn tells of something that stops nothing; nil for silence.
	Warn func(format string, a ...any)
	// Event notes what happened to a network, by its ID; nil for nowhere.
	Event func(id, action string, attributes map[string]string)
}

// event notes an action on n; container is who joined or left it, or "".
func (m *Manager) event(n *Network, action, container string) {
	if m.o.Event == nil {
		return
	}
	attributes := map[string]string{"name": n.Name, "type": n.driverName()}
	if container != "" {
		attributes["container"] = container
	}
	m.o.Event(n.ID, action, attributes)
}

// left notes that a container is no longer in a network, which may be gone.
func (m *Manager) left(e *Endpoint, container string) {
	n, err := m.readNetwork(e.Network)
	if err != nil {
		n = &Network{Name: e.Network, ID: e.NetworkID}
	}
	m.event(n, "disconnect", container)
}

// FirewallNone leaves all rules, and IP forwarding, to the administrator.
const FirewallNone = "none"

// A Manager is the networks of one pair of roots. It holds nothing open.
type Manager struct {
	roots state.Roots
	o     Options
}

// Open returns the manager. It touches nothing.
func Open(r state.Roots, o Options) *Manager { return &Manager{r, o} }

// SandboxConfig is what a container wants.
type SandboxConfig struct {
	// ID is the container's.
	ID, Name, Hostname, Domainname string
	// Mode is bridge, none, host, or the name of a network.
	Mode                       string
	Endpoints                  []EndpointConfig
	Ports                      []PortBinding
	DNS, DNSSearch, DNSOptions []string
	ExtraHosts                 []string
	// Dir is where hosts, hostname and resolv.conf are written.
	Dir string
}

// EndpointConfig is a wish for one network; zero values leave the choice to it.
type EndpointConfig struct {
	Network    string            `json:"network"`
	Aliases    []string          `json:"aliases,omitempty"`
	IPv4       string            `json:"ipv4,omitempty"`
	IPv6       string            `json:"ipv6,omitempty"`
	LinkLocal  []string          `json:"linkLocal,omitempty"`
	MAC        string            `json:"mac,omitempty"`
	DriverOpts map[string]string `json:"driverOpts,omitempty"`
	GwPriority int               `json:"gwPriority,omitempty"`
}

// A Sandbox is what was made for a container.
type Sandbox struct {
	Version int    `json:"version"`
	ID      string `json:"id"`
	Name    string `json:"name,omitempty"`
	// Key is the path of the network namespace, "" where there is none to join.
	Key       string          `json:"key,omitempty"`
	Endpoints []Endpoint      `json:"endpoints,omitempty"`
	Ports     []PublishedPort `json:"ports,omitempty"`
	// Dir is where the files of the container are.
	Dir string `json:"dir,omitempty"`
	// Resolver is what a name server of the sandbox knows, once there is one.
	Resolver *Resolver `json:"resolver,omitempty"`
}

// An Endpoint is a sandbox's leg in a network.
type Endpoint struct {
	Network string `json:"network"`
	// HostLink is the host's end of the veth pair, Link the sandbox's.
	HostLink string `json:"hostLink"`
	Link     string `json:"link"`
	// Address and Address6 have their prefix length; "" without the family.
	Address  string `json:"address,omitempty"`
	Address6 string `json:"address6,omitempty"`
	Gateway  string `json:"gateway,omitempty"`
	Gateway6 string `json:"gateway6,omitempty"`
	MAC      string `json:"mac"`
	Bridge   string `json:"bridge"`
	// NetworkID is the network's.
	NetworkID string `json:"networkId,omitempty"`
	// Default is the sandbox's way to everywhere, Default6 that of IPv6, OnLink
	// without a gateway.
	Default  bool `json:"default,omitempty"`
	Default6 bool `json:"default6,omitempty"`
	OnLink   bool `json:"onLink,omitempty"`
	// Internal is one that leads nowhere.
	Internal bool `json:"internal,omitempty"`
	// Wish is what the user asked for.
	Wish EndpointConfig `json:"wish,omitzero"`

	// Index is the number in the links' names.
	Index int `json:"index,omitempty"`
	// DHCP is the server's last word (RFC 2131's DHCPACK), LeasedAt its time.
	DHCP     []byte    `json:"dhcp,omitempty"`
	LeasedAt time.Time `json:"leasedAt,omitzero"`
	// Nameless has no name server of ours; see Network.
	Nameless bool    `json:"nameless,omitempty"`
	Routes   []Route `json:"routes,omitempty"`
	// DNS is what the network, a plugin or a DHCP server said of name servers.
	DNS *DNS `json:"dns,omitempty"`
	// Mode and Mode6 are those of the network's gateways: see gatewayMode.
	Mode  string `json:"mode,omitempty"`
	Mode6 string `json:"mode6,omitempty"`
	// Binding is where ports without an address are published, "" for the usual.
	Binding string `json:"binding,omitempty"`
	// noIPv6 is a link without an address that nobody gave it, as docker's.
	noIPv6 bool
	// Trusted are links of the host that published ports are reached from directly.
	Trusted []string `json:"trusted,omitempty"`
}

func (m *Manager) sandboxFile(id string) string {
	return filepath.Join(m.roots.Run, "network", id+".json")
}

// Sandbox returns what was made for a container; ErrNotFound.
func (m *Manager) Sandbox(id string) (*Sandbox, error) {
	s := new(Sandbox)
	err := state.ReadJSON(m.sandboxFile(id), s)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotFound
	}
	if err == nil && s.ID != id {
		err = fmt.Errorf("%s is of another sandbox (%q)", m.sandboxFile(id), s.ID)
	}
	return s, err
}

// Setup makes a container's sandbox. On error everything is undone.
func (m *Manager) Setup(ctx context.Context, cfg SandboxConfig) (_ *Sandbox, err error) {
	s := &Sandbox{Version: 1, ID: cfg.ID, Name: cfg.Name, Dir: cfg.Dir}
	if cfg.Mode == "none" || cfg.Mode == "host" {
		if len(cfg.Ports) > 0 && cfg.Mode == "none" {
			return nil, errors.New("-p and --network none contradict each other")
		}
		return s, m.writeFiles(cfg, s)
	}
	if m.o.Rootless {
		return nil, ui.Hint(fmt.Errorf("--network %s needs root", cfg.Mode), "use --network host or --network none")
	}
	if len(cfg.Endpoints) == 0 {
		cfg.Endpoints = []EndpointConfig{{Network: cfg.Mode}}
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.Teardown(context.WithoutCancel(ctx), cfg.ID))
		}
	}()
	if err := m.setup(ctx, cfg, s); err != nil {
		return nil, err
	}
	if err := errors.Join(m.announce(s), m.share(ctx, s)); err != nil {
		return nil, err
	}
	return s, m.writeFiles(cfg.withDNS(s), s)
}

// setup makes namespace, endpoints and ports. What was made is recorded before.
func (m *Manager) setup(ctx context.Context, cfg SandboxConfig, s *Sandbox) (err error) {
	s.Key = m.namespaceFile(cfg.ID)
	// The sandbox's file first: from here on its leases have an owner.
	if err := m.record(s); err != nil {
		return err
	}
	namespace := sync.OnceValues(func() (*namespace, error) { return makeNamespace(s.Key) })
	defer func() {
		ns, _ := namespace()
		ns.close()
	}()
	go namespace() // the kernel takes as long as the rest of the host's part
	var networks []*Network
	for i, e := range cfg.Endpoints {
		n, err := m.join(ctx, s, e, i)
		if err != nil {
			return err
		}
		cfg.Endpoints[i].Network = n.Name // it may have been an ID
		networks = append(networks, n)
	}
	s.chooseDefault()
	s.Resolver = cfg.resolver()
	if err := m.record(s); err != nil {
		return err
	}
	if len(cfg.Ports) > 0 {
		if s.Ports, err = m.claimPorts(ctx, s, cfg.Ports); err != nil {
			return err
		}
		if err := m.record(s); err != nil {
			return err
		}
	}
	ns, err := namespace()
	if err != nil {
		return err
	}
	for i, n := range networks {
		if err := (plug{m, n, s, &s.Endpoints[i], ns.File, ns.links}).connect(ctx); err != nil {
			return err
		}
	}
	for _, n := range networks {
		m.event(n, "connect", s.ID)
	}
	s.Resolver.Servers = cfg.withDNS(s).DNS
	if len(s.Ports) > 0 {
		if err := m.publish(ctx, s); err != nil {
			return err
		}
	}
	return m.record(s)
}

// join readies the host for the i-th endpoint and leases its address.
func (m *Manager) join(ctx context.Context, s *Sandbox, e EndpointConfig, i int) (*Network, error) {
	if e.Network == DefaultBridge {
		if len(e.Aliases) > 0 {
			return nil, errors.New("the default bridge has no aliases: they are for networks of your own")
		}
		if err := m.defaultNetwork(ctx); err != nil {
			return nil, fmt.Errorf("network %s: %w", e.Network, err)
		}
	}
	name, err := m.resolve(e.Network)
	if err != nil {
		return nil, err
	}
	l, err := m.lock(ctx, name)
	if err != nil {
		return nil, err
	}
	defer l.Unlock()
	n, err := m.readNetwork(name)
	if err != nil {
		return nil, fmt.Errorf("network %s: %w", e.Network, err)
	}
	if n.ConfigOnly {
		return nil, fmt.Errorf("network %s: it holds settings for others alone (--config-only)", n.Name)
	}
	if err := e.check(n); err != nil {
		return nil, err
	}
	d, err := driverOf(n.Driver)
	if err != nil {
		return nil, err
	}
	if err := d.ensure(ctx, m, n); err != nil {
		return nil, fmt.Errorf("network %s: %w", n.Name, err)
	}
	s.Endpoints = append(s.Endpoints, n.endpoint(s.ID, e, i))
	added := &s.Endpoints[len(s.Endpoints)-1]
	if n.outside() {
		return n, m.leaseOutside(ctx, n, s)
	}
	if n.stored() {
		if added.Wish.IPv4, err = m.claim(ctx, n, s.ID, e.IPv4); err != nil {
			return nil, err
		}
	}
	err = m.lease(n, s.ID, added)
	added.Wish.IPv4 = e.IPv4
	return n, err
}

// connect makes the endpoint's link in the sandbox and gives it its address.
func (p plug) connect(ctx context.Context) error {
	d, err := driverOf(p.n.Driver)
	if err != nil {
		return err
	}
	if err := d.join(ctx, p); err != nil || p.n.Driver == "cni" {
		return err
	}
	if p.n.outside() {
		if err := p.ask(ctx); err != nil {
			return fmt.Errorf("network %s: %w", p.n.Name, err)
		}
	}
	if p.e.Wish.DriverOpts[optSysctls] != "" {
		if err := inNamespace(p.ns, p.e.applySysctls); err != nil {
			return err
		}
	}
	return p.e.configure(p.links)
}

func (m *Manager) record(s *Sandbox) error {
	file := m.sandboxFile(s.ID)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	return state.WriteVolatileJSON(file, s)
}

// Teardown undoes Setup. It succeeds when there is nothing to undo, and goes on
// after an error so that as little as possible is left.
func (m *Manager) Teardown(ctx context.Context, id string) error {
	s, err := m.Sandbox(id)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if isDamaged(err) {
		if err := m.forget(ctx, id); err != nil {
			return fmt.Errorf("undo network: %w", err)
		}
		return os.Remove(m.sandboxFile(id))
	}
	if err != nil {
		return err
	}
	var errs []error
	// Links first: nftables, asked to tell of them, would wait until it has forgotten
	// the rules that were removed.
	for _, e := range s.Endpoints {
		errs = append(errs, removeLink(e.HostLink))
	}
	if len(s.Ports) > 0 {
		errs = append(errs, m.unpublish(ctx, s))
	}
	errs = append(errs, m.withdraw(s), m.leaveOutside(ctx, s))
	if s.Key != "" {
		errs = append(errs, removeNamespace(s.Key))
	}
	for i, e := range s.Endpoints {
		errs = append(errs, m.release(ctx, e.Network, id))
		m.left(&s.Endpoints[i], id)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("undo network: %w", err)
	}
	if err := os.Remove(m.sandboxFile(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// bridgeName is kist0 for the machine's own root; another root has a bridge of
// its own, so that two never share one.
func (m *Manager) bridgeName() string {
	if m.roots.Data == "/var/lib/kist" {
		return "kist0"
	}
	sum := sha256.Sum256([]byte(m.roots.Data))
	return "kist-" + hex.EncodeToString(sum[:4])
}

// removeNamespace lets go of a namespace kept by a file.
func removeNamespace(path string) error {
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return os.NewSyscallError("umount "+path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

package network

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/state"
	"github.com/kist-containers/kist/internal/ui"
)

// Network is a network's file: its kind, its pool, and who has which address.
type Network struct {
	// Chosen tells that the subnet is not the user's but of the default pools.
	Chosen  bool      `json:"chosen,omitempty"`
	Version int       `json:"version"`
	ID      string    `json:"id,omitempty"`
	Name    string    `json:"name"`
	Driver  string    `json:"driver,omitempty"` // "" is bridge
	Created time.Time `json:"created,omitzero"`
	// Link is the bridge, or the parent of a macvlan or ipvlan.
	Link string `json:"link"`
	// OwnsLink says that the parent is kist's to remove.
	OwnsLink bool   `json:"ownsLink,omitempty"`
	Subnet   string `json:"subnet"`
	Gateway  string `json:"gateway"`
	IPRange  string `json:"ipRange,omitempty"`
	// NoIPv4 is a network of IPv6 alone.
	NoIPv4   bool   `json:"noIpv4,omitempty"`
	IPv6     bool   `json:"ipv6,omitempty"`
	Subnet6  string `json:"subnet6,omitempty"`
	Gateway6 string `json:"gateway6,omitempty"`
	IPRange6 string `json:"ipRange6,omitempty"`
	Chosen6  bool   `json:"chosen6,omitempty"`
	// Reserved are addresses that are never given, by docker's names for them.
	Reserved map[string]string `json:"reserved,omitempty"`
	Internal bool              `json:"internal,omitempty"`
	Options  map[string]string `json:"options,omitempty"`
	Labels   map[string]string `json:"labels,omitempty"`
	// IPAM is who gives the addresses: "" for kist itself, dhcp, or a plugin of CNI.
	IPAM        string            `json:"ipam,omitempty"`
	IPAMOptions map[string]string `json:"ipamOptions,omitempty"`
	// Nameless has no name server of ours, Servers are who it asks about others.
	Nameless bool     `json:"nameless,omitempty"`
	Servers  []string `json:"servers,omitempty"`
	// Routes are what its containers get beside the default one.
	Routes []Route `json:"routes,omitempty"`
	// ConfigOnly holds settings for other networks, ConfigFrom names one that did.
	ConfigOnly bool   `json:"configOnly,omitempty"`
	ConfigFrom string `json:"configFrom,omitempty"`
	// CNI is the configuration of the network's plugins as it was when the network
	// was made, PluginPath where they are.
	CNI        json.RawMessage `json:"cni,omitempty"`
	PluginPath string          `json:"pluginPath,omitempty"`
	// Leases maps an address to the container that has it. Where others give the
	// addresses it maps LINK@CONTAINER.
	Leases map[string]string `json:"leases,omitempty"`

	index int
}

func (m *Manager) networkFile(name string) string {
	return filepath.Join(m.roots.Data, "network", name+".json")
}

func (m *Manager) lock(ctx context.Context, name string) (*state.Lock, error) {
	return state.AcquireLock(ctx, filepath.Join(m.roots.Data, "network", ".lock", name))
}

// lockPools keeps others from choosing a pool.
func (m *Manager) lockPools(ctx context.Context) (*state.Lock, error) {
	return m.lock(ctx, ".pools")
}

func (m *Manager) readNetwork(name string) (*Network, error) {
	if !state.ValidName(name) {
		return nil, ErrNotFound
	}
	n := new(Network)
	err := state.ReadJSON(m.networkFile(name), n)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotFound
	}
	if err == nil && n.Name != name {
		err = fmt.Errorf("%s is of another network (%q)", m.networkFile(name), n.Name)
	}
	if err == nil && !n.outside() {
		err = m.readLeases(n)
	}
	return n, err
}

// leaseFile holds the leases of a network's own addresses, a line with an address and
// its holder for each. They end with the sandboxes, so they are where those are
// recorded and need no sync. What others gave has to be given back even after a
// reboot: that is in the network's file.
func (m *Manager) leaseFile(name string) string {
	return filepath.Join(m.roots.Run, "network", name+".leases")
}

func (m *Manager) readLeases(n *Network) error {
	data, err := os.ReadFile(m.leaseFile(n.Name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	n.Leases = make(map[string]string, bytes.Count(data, []byte("\n")))
	for line := range strings.Lines(string(data)) {
		if address, holder, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " "); ok {
			n.Leases[address] = holder
		}
	}
	return err
}

func (m *Manager) writeLeases(n *Network) error {
	if n.outside() {
		return state.WriteJSON(m.networkFile(n.Name), n)
	}
	file := m.leaseFile(n.Name)
	if len(n.Leases) == 0 {
		if err := os.Remove(file); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	var text bytes.Buffer
	for address, holder := range n.Leases {
		text.WriteString(address + " " + holder + "\n")
	}
	return state.WriteVolatile(file, text.Bytes())
}

// writeNetwork writes the settings, and the leases of outside networks.
func (m *Manager) writeNetwork(n *Network) error {
	settings := *n
	if !n.outside() {
		settings.Leases = nil
	}
	return state.WriteJSON(m.networkFile(n.Name), settings)
}

// List returns all networks that have a file, by name.
func (m *Manager) List() ([]*Network, error) {
	files, err := filepath.Glob(filepath.Join(m.roots.Data, "network", "*.json"))
	if err != nil {
		return nil, err
	}
	var list []*Network
	for _, f := range files {
		n, err := m.readNetwork(strings.TrimSuffix(filepath.Base(f), ".json"))
		if errors.Is(err, ErrNotFound) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		list = append(list, n)
	}
	return list, nil
}

// Network returns a network by name, ID or the beginning of an ID; ErrNotFound.
func (m *Manager) Network(name string) (*Network, error) {
	n, err := m.readNetwork(name)
	if err == nil || !errors.Is(err, ErrNotFound) {
		return n, err
	}
	list, err := m.List()
	if err != nil {
		return nil, err
	}
	for _, n := range list {
		if name != "" && n.ID != "" && strings.HasPrefix(n.ID, name) {
			return n, nil
		}
	}
	return nil, ui.Hint(fmt.Errorf("network %s: %w", name, ErrNotFound), "kist network ls")
}

// resolve is the name of a network; see Network.
func (m *Manager) resolve(name string) (string, error) {
	if state.ValidName(name) && unix.Access(m.networkFile(name), unix.F_OK) == nil {
		return name, nil
	}
	n, err := m.Network(name)
	if err != nil {
		return "", err
	}
	return n.Name, nil
}

// Create makes a network of n's settings; empty ones are chosen. Its links are
// made when a container first joins.
func (m *Manager) Create(ctx context.Context, n *Network) error {
	if !state.ValidName(n.Name) || slices.Contains([]string{"none", "host", "default", DefaultBridge, "container"}, n.Name) {
		return fmt.Errorf("network %s: name is not allowed", n.Name)
	}
	l, err := m.lockPools(ctx)
	if err != nil {
		return err
	}
	defer l.Unlock()
	if _, err := m.readNetwork(n.Name); err == nil {
		return fmt.Errorf("network with name %s already exists", n.Name)
	}
	if err := m.complete(n); err != nil {
		return err
	}
	m.event(n, "create", "")
	return nil
}

// complete settles the rest of a new network and writes it. Pools are locked.
func (m *Manager) complete(n *Network) error {
	id := make([]byte, 32)
	rand.Read(id)
	n.Version, n.ID, n.Created = 1, hex.EncodeToString(id), time.Now().UTC()
	if n.IPAM == "default" || n.IPAM == "local" {
		n.IPAM = ""
	}
	if n.ConfigOnly {
		return m.writeNetwork(n)
	}
	if err := m.takeConfig(n); err != nil {
		return err
	}
	d, err := driverOf(n.Driver)
	if err != nil {
		return err
	}
	if err := errors.Join(n.checkCommon(), n.checkServed(), d.check(n)); err != nil {
		return err
	}
	if n.pooled() {
		others, err := m.List()
		if err != nil {
			return err
		}
		if err := m.settlePools(n, others); err != nil {
			return err
		}
	}
	if err := errors.Join(m.settleIPAM(n), n.checkRoutes()); err != nil {
		return err
	}
	return m.writeNetwork(n)
}

// takeConfig gives n the settings of the network of --config-from. Its own would be
// in doubt: docker refuses them too.
func (m *Manager) takeConfig(n *Network) error {
	if n.ConfigFrom == "" {
		return nil
	}
	from, err := m.Network(n.ConfigFrom)
	if err != nil {
		return err
	}
	if !from.ConfigOnly {
		return fmt.Errorf("--config-from %s: that is a network itself, not made by --config-only", from.Name)
	}
	if len(n.prefixes()) > 0 || len(n.Options) > 0 || n.Gateway != "" || n.IPRange != "" || n.IPv6 || n.Internal || len(n.Reserved)+len(n.Servers)+len(n.Routes) > 0 || n.Nameless {
		return fmt.Errorf("--config-from %s: it gives all settings, so --subnet, --opt and the like cannot be given", from.Name)
	}
	taken := *from
	taken.ID, taken.Name, taken.Created, taken.Driver = n.ID, n.Name, n.Created, n.Driver
	taken.ConfigOnly, taken.ConfigFrom, taken.Options = false, from.Name, maps.Clone(from.Options)
	if len(n.Labels) > 0 {
		taken.Labels = n.Labels
	}
	*n = taken
	return nil
}

// Remove removes a network and what was made for it; ErrInUse.
func (m *Manager) Remove(ctx context.Context, name string) error {
	if slices.Contains([]string{"none", "host", DefaultBridge}, name) {
		return fmt.Errorf("%s is a pre-defined network and cannot be removed", name)
	}
	n, err := m.Network(name)
	if err != nil {
		return err
	}
	l, err := m.lock(ctx, n.Name)
	if err != nil {
		return err
	}
	defer l.Unlock()
	if n, err = m.readNetwork(n.Name); err != nil {
		return fmt.Errorf("network %s: %w", name, err)
	}
	if err := m.dropStaleOutside(ctx, n); err != nil {
		return fmt.Errorf("network %s: %w", n.Name, err)
	}
	m.dropStale(n)
	for _, id := range n.Leases {
		return ui.Hint(fmt.Errorf("network %s: %w by container %s", n.Name, ErrInUse, id[:min(12, len(id))]), "kist ps --filter network=%s", n.Name)
	}
	if err := m.destroy(ctx, n); err != nil {
		return err
	}
	m.event(n, "destroy", "")
	return nil
}

// destroy removes what was made for n, and its record last.
func (m *Manager) destroy(ctx context.Context, n *Network) error {
	if n.ConfigOnly {
		return os.Remove(m.networkFile(n.Name))
	}
	d, err := driverOf(n.Driver)
	if err != nil {
		return err
	}
	if err := d.remove(ctx, m, n); err != nil {
		return fmt.Errorf("network %s: %w", n.Name, err)
	}
	os.RemoveAll(filepath.Join(m.roots.Run, "network", n.Name))
	os.Remove(m.leaseFile(n.Name))
	os.RemoveAll(m.pluginData(n))
	return os.Remove(m.networkFile(n.Name))
}

// Prune removes the networks that no container is in, and names them.
func (m *Manager) Prune(ctx context.Context, f ui.Filters) (removed []string, err error) {
	passes, err := pruneFilter(f, time.Now())
	if err != nil {
		return nil, err
	}
	list, err := m.List()
	if err != nil {
		return nil, err
	}
	for _, n := range list {
		if !passes(n) {
			continue
		}
		if n.Name == DefaultBridge {
			if err := m.retire(ctx); err != nil {
				return removed, err
			}
			continue
		}
		err := m.Remove(ctx, n.Name)
		if errors.Is(err, ErrInUse) || errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return removed, err
		}
		removed = append(removed, n.Name)
	}
	return removed, nil
}

// pruneFilter is what until, label and label! say of a network.
func pruneFilter(f ui.Filters, now time.Time) (func(*Network) bool, error) {
	var before time.Time
	for _, v := range f["until"] {
		var err error
		if before, err = ui.ParseTime(v, now); err != nil {
			return nil, fmt.Errorf("--filter until=%s: %w", v, err)
		}
	}
	return func(n *Network) bool {
		return (before.IsZero() || n.Created.Before(before)) && f.MatchLabels("label", n.Labels) && f.ExcludeLabels("label!", n.Labels)
	}, nil
}

// retire removes the host's part of the default bridge while no container is in
// it; the next one makes it anew.
func (m *Manager) retire(ctx context.Context) error {
	l, err := m.lock(ctx, DefaultBridge)
	if err != nil {
		return err
	}
	defer l.Unlock()
	n, err := m.readNetwork(DefaultBridge)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if m.dropStale(n); len(n.Leases) > 0 {
		return nil
	}
	return bridgeDriver{}.remove(ctx, m, n)
}

// defaultNetwork makes the file of the default bridge on its first use.
func (m *Manager) defaultNetwork(ctx context.Context) error {
	if _, err := os.Stat(m.networkFile(DefaultBridge)); err == nil {
		return nil
	}
	l, err := m.lockPools(ctx)
	if err != nil {
		return err
	}
	defer l.Unlock()
	if _, err := m.readNetwork(DefaultBridge); !errors.Is(err, ErrNotFound) {
		return err
	}
	return m.complete(&Network{Name: DefaultBridge, Link: m.bridgeName()})
}

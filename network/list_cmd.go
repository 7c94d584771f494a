package network

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/kist-containers/kist/internal/ui"
)

// ListCmd is `kist network ls`.
type ListCmd struct {
	Filter  []string `short:"f" sep:"none" help:"Only networks that match: name, id, driver, label, scope, type." placeholder:"KEY=VALUE"`
	Format  string   `help:"table, json or a template." placeholder:"FORMAT"`
	NoTrunc bool     `help:"Show full IDs."`
	// NoHeading is podman's.
	NoHeading bool `name:"noheading" short:"n" help:"Leave out the heading."`
	Quiet     bool `short:"q" help:"Print only IDs."`
}

// listRow is a line of the listing; the fields are docker's.
type listRow struct {
	CreatedAt, Driver, ID, IPv4, IPv6, Internal, Labels, Name, Scope string
}

// Run prints the listing.
func (c *ListCmd) Run(m *Manager, out *ui.Output) error {
	filters, err := ui.ParseFilters(c.Filter, "name", "id", "driver", "label", "scope", "type")
	if err != nil {
		return err
	}
	list, err := m.listed()
	if err != nil {
		return err
	}
	var rows []any
	for _, n := range list {
		if n.matches(filters) {
			rows = append(rows, n.row(c.NoTrunc))
		}
	}
	t := ui.Table{
		Headers: map[string]string{
			"CreatedAt": "CREATED AT", "Driver": "DRIVER", "ID": "NETWORK ID", "IPv4": "IPV4", "IPv6": "IPV6",
			"Internal": "INTERNAL", "Labels": "LABELS", "Name": "NAME", "Scope": "SCOPE",
		},
		Default:   "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}",
		Quiet:     "{{.ID}}",
		NoHeading: c.NoHeading,
	}
	return t.Write(out.Out, c.Format, c.Quiet, rows)
}

// listed are all networks with those that docker defines, by name.
func (m *Manager) listed() ([]*Network, error) {
	list, err := m.List()
	if err != nil {
		return nil, err
	}
	list = append(list, predefined("host"), predefined("none"))
	if !slices.ContainsFunc(list, func(n *Network) bool { return n.Name == DefaultBridge }) {
		list = append(list, predefined(DefaultBridge))
	}
	slices.SortFunc(list, func(a, b *Network) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// predefined is a network that needs no file. Its ID is made of its name.
func predefined(name string) *Network {
	n := &Network{Name: name, Driver: name, ID: fmt.Sprintf("%x", sha256.Sum256([]byte(name)))}
	if name == "none" {
		n.Driver = "null"
	}
	return n
}

func (n *Network) driverName() string {
	if n.Driver == "" {
		return "bridge"
	}
	return n.Driver
}

func (n *Network) matches(f ui.Filters) bool {
	kind := "custom"
	if slices.Contains([]string{"host", "none", DefaultBridge}, n.Name) {
		kind = "builtin"
	}
	return f.Match("name", func(v string) bool { return strings.Contains(n.Name, v) }) &&
		f.Match("id", func(v string) bool { return strings.HasPrefix(n.ID, v) }) &&
		f.Match("driver", func(v string) bool { return v == n.driverName() }) &&
		f.Match("scope", func(v string) bool { return v == "local" }) &&
		f.Match("type", func(v string) bool { return v == kind }) &&
		f.MatchLabels("label", n.Labels)
}

func (n *Network) row(full bool) listRow {
	var labels []string
	for _, key := range slices.Sorted(maps.Keys(n.Labels)) {
		labels = append(labels, key+"="+n.Labels[key])
	}
	r := listRow{
		CreatedAt: n.Created.String(), Driver: n.driverName(), ID: n.ID, IPv4: fmt.Sprint(!n.NoIPv4), IPv6: fmt.Sprint(n.IPv6),
		Internal: fmt.Sprint(n.Internal), Labels: strings.Join(labels, ","), Name: n.Name, Scope: "local",
	}
	if !full {
		r.ID = n.ID[:min(12, len(n.ID))]
	}
	return r
}

// InspectCmd is `kist network inspect`.
type InspectCmd struct {
	Format  string   `short:"f" help:"json or a template." placeholder:"FORMAT"`
	Verbose bool     `short:"v" help:"For docker's sake."`
	Names   []string `arg:"" name:"network" help:"Name or ID of a network."`
}

// inspected is docker's description of a network.
type inspected struct {
	Name, Id, Created, Scope, Driver string
	EnableIPv4, EnableIPv6           bool
	IPAM                             ipam
	Internal, Attachable, Ingress    bool
	ConfigFrom                       struct{ Network string }
	ConfigOnly                       bool
	Containers                       map[string]member
	Options, Labels                  map[string]string
	// What docker has no word for.
	Nameless bool     `json:",omitempty"`
	Servers  []string `json:",omitempty"`
	Routes   []Route  `json:",omitempty"`
}

type ipam struct {
	Driver  string
	Options map[string]string
	Config  []ipamConfig
}

type ipamConfig struct {
	Subnet, IPRange, Gateway string
	AuxiliaryAddresses       map[string]string `json:",omitempty"`
}

type member struct{ Name, EndpointID, MacAddress, IPv4Address, IPv6Address string }

// Run prints the descriptions of those that are there, as docker does.
func (c *InspectCmd) Run(m *Manager, out *ui.Output) error {
	var objects []any
	var errs []error
	for _, name := range c.Names {
		o, err := m.Inspect(name)
		if err != nil {
			errs = append(errs, fmt.Errorf("network inspect: %w", err))
			continue
		}
		objects = append(objects, o)
	}
	return errors.Join(append([]error{ui.Inspect(out.Out, c.Format, objects)}, errs...)...)
}

// Inspect is docker's description of a network, by its name or the beginning of
// its ID.
func (m *Manager) Inspect(name string) (any, error) {
	list, err := m.listed()
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(list, func(n *Network) bool { return n.Name == name })
	if i < 0 {
		i = slices.IndexFunc(list, func(n *Network) bool { return n.ID != "" && strings.HasPrefix(n.ID, name) })
	}
	if i < 0 {
		return nil, ui.Hint(fmt.Errorf("network %s: %w", name, ErrNotFound), "kist network ls")
	}
	return m.inspect(list[i]), nil
}

func (m *Manager) inspect(n *Network) inspected {
	i := inspected{
		Name: n.Name, Id: n.ID, Created: n.Created.Format("2006-01-02T15:04:05.999999999Z07:00"), Scope: "local", Driver: n.driverName(),
		EnableIPv4: !n.NoIPv4, EnableIPv6: n.IPv6, ConfigOnly: n.ConfigOnly, IPAM: ipam{Driver: cmp.Or(n.IPAM, "default"), Options: n.IPAMOptions, Config: []ipamConfig{}}, Internal: n.Internal,
		Containers: map[string]member{}, Options: n.Options, Labels: n.Labels,
		Nameless: n.Nameless, Servers: n.Servers, Routes: n.Routes,
	}
	i.ConfigFrom.Network = n.ConfigFrom
	for _, f := range n.families() {
		if *f.subnet != "" {
			i.IPAM.Config = append(i.IPAM.Config, ipamConfig{*f.subnet, *f.ipRange, *f.gateway, n.reservedIn(f)})
		}
	}
	if i.Options == nil {
		i.Options = map[string]string{}
	}
	if i.Labels == nil {
		i.Labels = map[string]string{}
	}
	for _, id := range n.Leases {
		s, err := m.Sandbox(id)
		if err != nil {
			continue // of a killed command, or of before a reboot
		}
		if e := s.endpoint(n.Name); e != nil {
			i.Containers[id] = member{s.Name, id, e.MAC, e.Address, e.Address6}
		}
	}
	return i
}

// reservedIn are the reserved addresses of one family.
func (n *Network) reservedIn(f family) map[string]string {
	list := map[string]string{}
	for name, s := range n.Reserved {
		if a, err := netip.ParseAddr(s); err == nil && a.Is6() == f.v6 {
			list[name] = s
		}
	}
	return list
}

// ExistsCmd is `kist network exists`.
type ExistsCmd struct {
	Network string `arg:"" help:"Name or ID of a network."`
}

// Run ends with 1 when there is no such network.
func (c *ExistsCmd) Run(m *Manager) error {
	_, err := m.Inspect(c.Network)
	if errors.Is(err, ErrNotFound) {
		return ui.Exit(1)
	}
	return err
}

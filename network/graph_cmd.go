package network

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/kist-containers/kist/internal/ui"
)

// GraphCmd is `kist network graph`.
type GraphCmd struct {
	Format string   `enum:"tree,json,dot,svg" default:"tree" help:"tree, json, dot (Graphviz) or svg (a picture for a page)." placeholder:"FORMAT"`
	Names  []string `arg:"" optional:"" name:"network" help:"Networks; all that have containers or were made, by default."`
}

// Help shows examples.
func (*GraphCmd) Help() string {
	return `  kist network graph
  kist network graph --format svg > networks.svg
  kist network graph --format dot shop | dot -Tpng > shop.png`
}

// graphNetwork is one network with those who are in it.
type graphNetwork struct {
	Name, Driver string
	Subnets      []string `json:",omitempty"`
	Gateways     []string `json:",omitempty"`
	Internal     bool     `json:",omitempty"`
	Containers   []graphContainer
}

// graphContainer is a container's leg in a network. Ports are those that the
// whole container publishes.
type graphContainer struct {
	ID, Name  string
	Addresses []string `json:",omitempty"`
	Ports     []string `json:",omitempty"`
}

// Run draws who is in which network, under which address, and what is published.
func (c *GraphCmd) Run(m *Manager, out *ui.Output) error {
	graph, err := m.graph(c.Names)
	if err != nil {
		return fmt.Errorf("network graph: %w", err)
	}
	switch c.Format {
	case "json":
		objects := make([]any, len(graph))
		for i := range graph {
			objects[i] = graph[i]
		}
		return ui.Inspect(out.Out, "", objects)
	case "dot":
		_, err = io.WriteString(out.Out, dot(graph))
	case "svg":
		_, err = io.WriteString(out.Out, svg(graph))
	default:
		_, err = io.WriteString(out.Out, tree(graph))
	}
	return err
}

func (m *Manager) graph(names []string) ([]graphNetwork, error) {
	list, err := m.List()
	if err != nil {
		return nil, err
	}
	sandboxes, err := m.sandboxes()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if !slices.ContainsFunc(list, func(n *Network) bool { return n.Name == name }) {
			return nil, ui.Hint(fmt.Errorf("network %s: %w", name, ErrNotFound), "kist network ls")
		}
	}
	slices.SortFunc(list, func(a, b *Network) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(sandboxes, func(a, b *Sandbox) int { return strings.Compare(a.Name, b.Name) })
	var graph []graphNetwork
	for _, n := range list {
		if len(names) == 0 || slices.Contains(names, n.Name) {
			graph = append(graph, n.graph(sandboxes))
		}
	}
	return graph, nil
}

func (n *Network) graph(sandboxes []*Sandbox) graphNetwork {
	g := graphNetwork{Name: n.Name, Driver: n.driverName(), Internal: n.Internal, Containers: []graphContainer{}}
	for _, f := range n.families() {
		if *f.subnet != "" {
			g.Subnets = append(g.Subnets, *f.subnet)
		}
		if *f.gateway != "" {
			g.Gateways = append(g.Gateways, *f.gateway)
		}
	}
	for _, s := range sandboxes {
		if e := s.endpoint(n.Name); e != nil {
			g.Containers = append(g.Containers, s.graph(e))
		}
	}
	return g
}

func (s *Sandbox) graph(e *Endpoint) graphContainer {
	c := graphContainer{ID: s.ID, Name: s.Name}
	for _, a := range []string{e.Address, e.Address6} {
		if address, _, ok := strings.Cut(a, "/"); ok {
			c.Addresses = append(c.Addresses, address)
		}
	}
	for _, p := range s.Ports {
		for _, host := range p.Hosts() {
			c.Ports = append(c.Ports, fmt.Sprintf("%s->%d/%s", host, p.ContainerPort, p.Proto))
		}
	}
	return c
}

// facts are what is to be said of a network beside its name.
func (g *graphNetwork) facts() []string {
	kind := g.Driver
	if g.Internal {
		kind += ", internal"
	}
	return append([]string{kind}, g.Subnets...)
}

// tree draws the graph for a terminal: each network with its containers below it.
func tree(graph []graphNetwork) string {
	var b strings.Builder
	for _, g := range graph {
		fmt.Fprintf(&b, "%s  %s\n", g.Name, strings.Join(g.facts(), "  "))
		names, addresses := 0, 0
		for _, c := range g.Containers {
			names = max(names, len(c.Name))
			addresses = max(addresses, len(strings.Join(c.Addresses, " ")))
		}
		for i, c := range g.Containers {
			branch := "├──"
			if i == len(g.Containers)-1 {
				branch = "└──"
			}
			line := fmt.Sprintf("%s %-*s  %-*s  %s", branch, names, c.Name, addresses, strings.Join(c.Addresses, " "), strings.Join(c.Ports, ", "))
			b.WriteString(strings.TrimRight(line, " ") + "\n")
		}
	}
	return b.String()
}

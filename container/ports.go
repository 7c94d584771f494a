package container

import (
	"cmp"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/kist-containers/kist/network"
)

// exposePorts reads --expose: PORT[-PORT][/PROTO], each port on its own.
func exposePorts(list []string) (all []string, err error) {
	for _, p := range list {
		if strings.Contains(p, ":") {
			return nil, fmt.Errorf("--expose %s: want PORT[-PORT][/PROTO]; -p publishes on the host", p)
		}
		bindings, err := network.ParsePort(p)
		if err != nil {
			return nil, fmt.Errorf("--expose %s: %w", p, err)
		}
		for _, b := range bindings {
			all = append(all, inside(b))
		}
	}
	return all, nil
}

// inside is the container's side of a binding: "80/tcp".
func inside(b network.PortBinding) string { return fmt.Sprintf("%d/%s", b.ContainerPort, b.Proto) }

// exposedPorts are the ports that the image or the command line names. docker: what
// is published is exposed too.
func (c *Config) exposedPorts() []string {
	var all []string
	for _, p := range slices.Concat(c.Exposed, c.Network.Ports) {
		bindings, err := network.ParsePort(p)
		if err != nil {
			continue
		}
		for _, b := range bindings {
			all = append(all, inside(b))
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// A shownPort is one of the column PORTS; HostIP is "" when it is not published.
type shownPort struct {
	hostIP    string
	host      uint16
	container uint16
	proto     string
}

// shownPorts are those of a container that runs.
func (e *Engine) shownPorts(c *Config) []shownPort {
	var list []shownPort
	published := map[string]bool{}
	if s, err := e.Networks.Sandbox(c.ID); err == nil {
		for _, p := range s.Ports {
			published[inside(p.PortBinding)] = true
			for _, host := range p.Hosts() {
				ip, _, _ := net.SplitHostPort(host)
				list = append(list, shownPort{ip, p.HostPort, p.ContainerPort, p.Proto})
			}
		}
	}
	for _, p := range c.exposedPorts() {
		number, proto, _ := strings.Cut(p, "/")
		if n, err := strconv.ParseUint(number, 10, 16); err == nil && !published[p] {
			list = append(list, shownPort{container: uint16(n), proto: proto})
		}
	}
	return list
}

// portsColumn is docker's: neighbours that are not published, or published under
// their own numbers, are one range; then come the others.
func portsColumn(list []shownPort) string {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b shownPort) int {
		return cmp.Or(cmp.Compare(a.container, b.container), cmp.Compare(a.hostIP, b.hostIP), cmp.Compare(a.host, b.host), cmp.Compare(a.proto, b.proto))
	})
	var open []*portGroup
	var shown, others []string
	for _, p := range list {
		if p.hostIP != "" && p.host != p.container {
			others = append(others, fmt.Sprintf("%s->%d/%s", net.JoinHostPort(p.hostIP, strconv.Itoa(int(p.host))), p.container, p.proto))
			continue
		}
		i := slices.IndexFunc(open, func(g *portGroup) bool { return g.hostIP == p.hostIP && g.proto == p.proto })
		switch {
		case i < 0:
			open = append(open, &portGroup{p, p.container})
		case open[i].last+1 == p.container:
			open[i].last++
		default:
			shown = append(shown, open[i].text())
			*open[i] = portGroup{p, p.container}
		}
	}
	for _, g := range open {
		shown = append(shown, g.text())
	}
	return strings.Join(append(shown, others...), ", ")
}

// A portGroup is a range of ports that are shown as one.
type portGroup struct {
	shownPort
	last uint16
}

func (g *portGroup) text() string {
	text := strconv.Itoa(int(g.container))
	if g.last != g.container {
		text += fmt.Sprintf("-%d", g.last)
	}
	if g.hostIP != "" {
		text = net.JoinHostPort(g.hostIP, text) + "->" + text
	}
	return text + "/" + g.proto
}

// portIn reports whether a filter's PORT[-PORT][/PROTO] names the port.
func portIn(filter string, port uint16, proto string) bool {
	bindings, err := network.ParsePort(filter)
	return err == nil && slices.ContainsFunc(bindings, func(b network.PortBinding) bool {
		return b.ContainerPort == port && b.Proto == proto
	})
}

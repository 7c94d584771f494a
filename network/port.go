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
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/state"
)

// PortBinding is one wish of -p.
type PortBinding struct {
	// HostIP is "" for all addresses.
	HostIP string `json:"hostIp,omitempty"`
	// HostPort is 0 for any free one.
	HostPort uint16 `json:"hostPort,omitempty"`
	// HostLast ends the range from HostPort of which any free one will do.
	HostLast      uint16 `json:"-"`
	ContainerPort uint16 `json:"containerPort"`
	// Proto is tcp, udp or sctp.
	Proto string `json:"proto"`
}

// PublishedPort is a binding whose host port is settled.
type PublishedPort struct{ PortBinding }

// hosts are the addresses of the host, as docker shows them.
func (p PublishedPort) hosts() []string {
	if p.HostIP != "" {
		return []string{p.HostIP}
	}
	if _, err := os.Stat("/proc/net/if_inet6"); err != nil {
		return []string{"0.0.0.0"}
	}
	return []string{"0.0.0.0", "::"}
}

// Hosts are the host's sides as docker shows them: 0.0.0.0:8080 and [::]:8080.
func (p PublishedPort) Hosts() (list []string) {
	for _, h := range p.hosts() {
		list = append(list, net.JoinHostPort(h, strconv.Itoa(int(p.HostPort))))
	}
	return list
}

// ParsePort reads -p: [[IP:][HOST[-HOST]]:]PORT[-PORT][/PROTO].
func ParsePort(s string) ([]PortBinding, error) {
	rest, proto, hasProto := strings.Cut(s, "/")
	if !hasProto {
		proto = "tcp"
	}
	proto = strings.ToLower(proto)
	if proto != "tcp" && proto != "udp" && proto != "sctp" {
		return nil, fmt.Errorf("protocol %q: want tcp, udp or sctp", proto)
	}
	inside, host, ip := rest, "", ""
	if i := strings.LastIndexByte(rest, ':'); i >= 0 {
		inside, host = rest[i+1:], rest[:i]
		if i := strings.LastIndexByte(host, ':'); i >= 0 {
			ip, host = strings.Trim(host[:i], "[]"), host[i+1:]
			if _, err := netip.ParseAddr(ip); err != nil {
				return nil, fmt.Errorf("host address %q is not an IP address", ip)
			}
		}
	}
	first, last, err := portRange("container", inside)
	if err != nil {
		return nil, err
	}
	hostFirst, hostLast := 0, 0
	if host != "" {
		if hostFirst, hostLast, err = portRange("host", host); err != nil {
			return nil, err
		}
		if hostLast-hostFirst != last-first && first != last {
			return nil, fmt.Errorf("ranges %s and %s differ in length", host, inside)
		}
	}
	var list []PortBinding
	for n := first; n <= last; n++ {
		b := PortBinding{HostIP: ip, ContainerPort: uint16(n), Proto: proto}
		if host != "" {
			b.HostPort = uint16(hostFirst + n - first)
		}
		if first == last && hostLast > hostFirst {
			b.HostLast = uint16(hostLast)
		}
		list = append(list, b)
	}
	return list, nil
}

func portRange(side, s string) (first, last int, err error) {
	a, b, isRange := strings.Cut(s, "-")
	if first, err = portNumber(side, a); err != nil {
		return 0, 0, err
	}
	if !isRange {
		return first, first, nil
	}
	if last, err = portNumber(side, b); err != nil {
		return 0, 0, err
	}
	if last < first {
		return 0, 0, fmt.Errorf("%s ports %s: the range runs backwards", side, s)
	}
	return first, last, nil
}

func portNumber(side, s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%s port %q is not a number", side, s)
	}
	if n < 1 || n > 65535 {
		return 0, fmt.Errorf("%s port %s is not in 1-65535", side, s)
	}
	return int(n), nil
}

func (m *Manager) portDir() string { return filepath.Join(m.roots.Run, "port") }

// portFile marks a port of the host as given to a container of this root.
func (m *Manager) portFile(p PublishedPort) string { return filepath.Join(m.portDir(), p.claim()) }

// claim names the port among those of the host: PROTO-PORT[-IP].
func (p PublishedPort) claim() string {
	name := p.Proto + "-" + strconv.Itoa(int(p.HostPort))
	if p.HostIP != "" {
		name += "-" + p.HostIP
	}
	return name
}

// overlaps reports whether a port of host address a leaves no room for one of b.
func overlaps(a, b string) bool {
	x, errX := netip.ParseAddr(a)
	y, errY := netip.ParseAddr(b)
	if errX != nil || errY != nil {
		return true // of all addresses
	}
	return x == y || x.Is4() == y.Is4() && (x.IsUnspecified() || y.IsUnspecified())
}

// A claimant settles the host ports of one sandbox, while no other does.
type claimant struct {
	*Manager
	id string
	// others are the addresses of the claims that there were, by protocol and port:
	// the directory is read once, however many ports are wanted.
	others map[string][]string
}

// claimant reads what is claimed.
func (m *Manager) claimant(id string) (*claimant, error) {
	c := &claimant{m, id, map[string][]string{}}
	dir := m.portDir()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	for _, name := range names {
		c.note(name)
	}
	return c, err
}

// note adds a claim, the name of its file, to those that there are.
func (c *claimant) note(name string) {
	proto, rest, _ := strings.Cut(name, "-")
	port, host, _ := strings.Cut(rest, "-")
	key := proto + "-" + port
	c.others[key] = append(c.others[key], host)
}

// rivals are the claims that leave no room for this one.
func (c *claimant) rivals(p PublishedPort) (list []string) {
	all := PublishedPort{PortBinding{Proto: p.Proto, HostPort: p.HostPort}}
	for _, host := range c.others[all.claim()] {
		if host != p.HostIP && overlaps(host, p.HostIP) {
			all.HostIP = host
			list = append(list, c.portFile(all))
		}
	}
	return list
}

// claimPorts settles the host ports. A port is free if no container has it and
// it can be bound.
func (m *Manager) claimPorts(ctx context.Context, s *Sandbox, wanted []PortBinding) (claimed []PublishedPort, err error) {
	gate := s.gate()
	defer func() {
		if err != nil {
			m.freePorts(claimed)
		}
	}()
	if a := m.o.PublishAddress; a != "" && net.ParseIP(a) == nil {
		return nil, fmt.Errorf("publish address %q (KIST_PUBLISH_ADDRESS) is not an IP address", a)
	}
	l, err := state.AcquireLock(ctx, m.roots.Lock("ports"))
	if err != nil {
		return nil, err
	}
	defer l.Unlock()
	c, err := m.claimant(s.ID)
	if err != nil {
		return nil, err
	}
	for _, w := range wanted {
		if w.HostIP == "" {
			w.HostIP = cmp.Or(gate.binding(), m.o.PublishAddress)
		}
		p := PublishedPort{w}
		if gate.routed() {
			p.HostPort = 0 // it is reached at the container's own address
		} else if p.HostLast != 0 {
			if p, err = c.firstPort(p, int(p.HostPort), int(p.HostLast)); err != nil {
				return claimed, err
			}
		} else if p.HostPort != 0 {
			if err := c.claim(p); err != nil {
				return claimed, fmt.Errorf("publish %s: %w", p.Hosts()[0], err)
			}
		} else if p, err = c.anyPort(p); err != nil {
			return claimed, err
		}
		claimed = append(claimed, p)
	}
	return claimed, nil
}

// binding is where the network's ports are published that have no address.
func (e *Endpoint) binding() string {
	if e == nil {
		return ""
	}
	return e.Binding
}

// routed reports whether the world reaches the container at its own addresses.
func (e *Endpoint) routed() bool {
	return e != nil && (e.Address == "" || e.Mode == modeRouted) && (e.Address6 == "" || e.Mode6 == modeRouted) && (e.Mode == modeRouted || e.Mode6 == modeRouted)
}

// anyPort takes a port that the kernel gives to whoever wants any. One that another
// container has claimed but does not listen on yet may be among them.
func (c *claimant) anyPort(p PublishedPort) (PublishedPort, error) {
	for range 16 {
		p.HostPort = 0
		port, err := tryBind(p)
		if err != nil {
			return p, err
		}
		if p.HostPort = port; port == 0 {
			break
		}
		if err := c.claim(p); !errors.Is(err, errPortTaken) {
			return p, err
		}
	}
	low, high := 49153, 65535
	if data, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		fmt.Sscan(string(data), &low, &high)
	}
	return c.firstPort(p, low, high)
}

// firstPort takes the first free port of a range.
func (c *claimant) firstPort(p PublishedPort, low, high int) (PublishedPort, error) {
	for n := low; n <= high; n++ {
		p.HostPort = uint16(n)
		if err := c.claim(p); !errors.Is(err, errPortTaken) {
			return p, err
		}
	}
	return p, fmt.Errorf("publish port %d: no free port from %d to %d", p.ContainerPort, low, high)
}

var errPortTaken = errors.New("port is already allocated")

// claim takes one port.
func (c *claimant) claim(p PublishedPort) error {
	if _, err := tryBind(p); err != nil {
		return err
	}
	for _, rival := range c.rivals(p) {
		if _, gone := os.Stat(rival); gone == nil && !c.abandoned(rival) {
			return errPortTaken
		}
	}
	file := c.portFile(p)
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, os.ErrExist) && c.abandoned(file) {
		f, err = os.OpenFile(file, os.O_WRONLY|os.O_TRUNC, 0o600)
	}
	if errors.Is(err, os.ErrExist) {
		return errPortTaken
	}
	if err != nil {
		return err
	}
	_, err = f.WriteString(c.id)
	c.note(p.claim())
	return errors.Join(err, f.Close())
}

// abandoned reports whether a claim is a killed command's, whose sandbox is gone.
func (m *Manager) abandoned(file string) bool {
	data, err := os.ReadFile(file)
	if err != nil || len(data) == 0 {
		return false
	}
	_, err = os.Stat(m.sandboxFile(string(data)))
	return errors.Is(err, os.ErrNotExist)
}

// network is the listener's for package net: of both families without an address.
func (p PublishedPort) network() string {
	a, err := netip.ParseAddr(p.HostIP)
	switch {
	case err != nil:
		return p.Proto
	case a.Is4():
		return p.Proto + "4"
	}
	return p.Proto + "6"
}

// tryBind asks the kernel whether the port is free, or for any, and returns it: 0 for
// a protocol that is not asked about.
func tryBind(p PublishedPort) (uint16, error) {
	var c io.Closer
	var at net.Addr
	switch p.Proto {
	case "udp":
		u, err := net.ListenPacket(p.network(), p.listenAddress())
		if err != nil {
			return 0, p.bindError(err)
		}
		c, at = u, u.LocalAddr()
	case "tcp":
		l, err := net.Listen(p.network(), p.listenAddress())
		if err != nil {
			return 0, p.bindError(err)
		}
		c, at = l, l.Addr()
	default:
		return 0, nil
	}
	port := netip.MustParseAddrPort(at.String()).Port()
	return port, c.Close()
}

func (p PublishedPort) bindError(err error) error {
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return errPortTaken
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return fmt.Errorf("%s is not an address of this host", p.HostIP)
	}
	return err
}

func (m *Manager) freePorts(ports []PublishedPort) {
	for _, p := range ports {
		os.Remove(m.portFile(p))
	}
}

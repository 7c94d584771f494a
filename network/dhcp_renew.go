package network

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// leaseTimes are when the lease is to be renewed and when it ends.
func (e *Endpoint) leaseTimes() (renewal, expiry time.Time, err error) {
	ack, err := dhcpv4.FromBytes(e.DHCP)
	if err != nil {
		return renewal, expiry, err
	}
	whole := max(ack.IPAddressLeaseTime(time.Hour), dhcpTry)
	return e.LeasedAt.Add(ack.IPAddressRenewalTime(whole / 2)), e.LeasedAt.Add(whole), nil
}

// keepLease renews the lease of a sandbox's endpoint until ctx ends.
func (m *Manager) keepLease(ctx context.Context, id, network string) {
	for {
		s, err := m.Sandbox(id)
		if err != nil {
			return
		}
		e := s.endpoint(network)
		if e == nil {
			return
		}
		renewal, _, err := e.leaseTimes()
		if err != nil {
			return
		}
		wait := time.Until(renewal)
		if wait <= 0 {
			wait = dhcpPause // it was tried
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		m.renewLease(ctx, id, network)
	}
}

func (s *Sandbox) endpoint(network string) *Endpoint {
	for i := range s.Endpoints {
		if s.Endpoints[i].Network == network {
			return &s.Endpoints[i]
		}
	}
	return nil
}

// renewLease renews once; after the lease's end it asks for a new one, whose
// address may be another.
func (m *Manager) renewLease(ctx context.Context, id, network string) error {
	s, err := m.Sandbox(id)
	if err != nil {
		return err
	}
	n, err := m.readNetwork(network)
	if err != nil {
		return err
	}
	ns, err := os.Open(s.Key)
	if err != nil {
		return err
	}
	defer ns.Close()
	e := s.endpoint(network)
	if e == nil {
		return nil
	}
	ack, err := plug{m: m, n: n, s: s, e: e, ns: ns}.again(ctx)
	if err != nil {
		return err
	}
	return m.readdress(ctx, id, network, ns, ack)
}

func (p plug) again(ctx context.Context) (*dhcpv4.DHCPv4, error) {
	c, err := p.dhcpClient()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	_, expiry, err := p.e.leaseTimes()
	if err != nil {
		return nil, err
	}
	ack, err := dhcpv4.FromBytes(p.e.DHCP)
	if err != nil {
		return nil, err
	}
	var lease *nclient4.Lease
	var refused *nclient4.ErrNak
	if time.Now().Before(expiry) {
		lease, err = c.Renew(ctx, &nclient4.Lease{Offer: ack, ACK: ack}, p.dhcpOptions()[:2]...)
	}
	if lease == nil && (err == nil || errors.As(err, &refused)) {
		lease, err = c.Request(ctx, p.dhcpOptions()...)
	}
	if err != nil {
		return nil, err
	}
	return lease.ACK, nil
}

// readdress records a renewed lease, and moves the endpoint to its address.
func (m *Manager) readdress(ctx context.Context, id, network string, ns *os.File, ack *dhcpv4.DHCPv4) error {
	l, s, err := m.lockSandbox(ctx, id)
	if err != nil {
		return err
	}
	defer l.Unlock()
	e := s.endpoint(network)
	if e == nil {
		return nil
	}
	old := *e
	if err := e.adoptACK(ack); err != nil {
		return err
	}
	if e.Address != old.Address || e.Gateway != old.Gateway {
		if err := inNamespace(ns, func() error { return e.replace(&old) }); err != nil {
			return err
		}
		if err := m.announce(s); err != nil {
			return err
		}
	}
	return m.record(s)
}

// replace runs in the sandbox.
func (e *Endpoint) replace(old *Endpoint) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	link, err := h.LinkByName(e.Link)
	if err != nil {
		return err
	}
	if addr, err := netlink.ParseAddr(old.Address); err == nil {
		// The link's routes go with its last address.
		if err := h.AddrDel(link, addr); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return err
		}
	}
	return e.configure(h)
}

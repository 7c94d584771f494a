package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// nftables is a socket to the tables behind iptables.
type nftables struct{ h *nl.SocketHandle }

// openNftables fails where iptables uses the old tables.
func openNftables() (*nftables, error) {
	program, err := filepath.EvalSymlinks(tool("iptables-restore"))
	if err != nil || !strings.Contains(filepath.Base(program), "nft") {
		return nil, errors.Join(err, errors.ErrUnsupported)
	}
	s, err := nl.Subscribe(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	return &nftables{&nl.SocketHandle{Socket: s}}, nil
}

// close waits for nobody: the kernel does for ten milliseconds and more, until all
// processors have forgotten the rules that were removed of late (nft_rcv_nl_event).
func (n *nftables) close() { go n.h.Close() }

func nftRequest(message int, v6 bool, flags int, attrs ...*nl.RtAttr) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|message, flags)
	family := uint8(unix.NFPROTO_IPV4)
	if v6 {
		family = unix.NFPROTO_IPV6
	}
	req.AddData(&nl.Nfgenmsg{NfgenFamily: family, Version: unix.NFNETLINK_V0})
	for _, a := range attrs {
		req.AddData(a)
	}
	return req
}

// ask returns the values of one attribute in the answers.
func (n *nftables) ask(req *nl.NetlinkRequest, attribute uint16) (values [][]byte, err error) {
	replies, err := n.replies(req)
	if err != nil {
		return nil, err
	}
	for _, r := range replies {
		list, err := attributes(r, attribute)
		if err != nil {
			return nil, err
		}
		values = append(values, list...)
	}
	return values, nil
}

func (n *nftables) replies(req *nl.NetlinkRequest) ([][]byte, error) {
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_NETFILTER: n.h}
	replies, err := req.Execute(unix.NETLINK_NETFILTER, 0)
	if err != nil {
		return nil, fmt.Errorf("ask nftables: %w", err)
	}
	return replies, nil
}

// attributes are the values of one attribute in a message.
func attributes(message []byte, attribute uint16) (values [][]byte, err error) {
	attrs, err := nl.ParseRouteAttr(message[min(nl.SizeofNfgenmsg, len(message)):])
	for _, a := range attrs {
		if a.Attr.Type == attribute {
			values = append(values, a.Value)
		}
	}
	return values, err
}

// generation is the count of changes to nftables in this network namespace.
func (n *nftables) generation() (uint32, error) {
	values, err := n.ask(nftRequest(unix.NFT_MSG_GETGEN, false, 0), unix.NFTA_GEN_ID)
	if err != nil || len(values) != 1 || len(values[0]) != 4 {
		return 0, errors.Join(err, errors.ErrUnsupported)
	}
	return binary.BigEndian.Uint32(values[0]), nil
}

// handles are the kernel's names of a chain's rules, in their order.
func (n *nftables) handles(v6 bool, table, chain string) ([][]byte, error) {
	return n.ask(nftRequest(unix.NFT_MSG_GETRULE, v6, unix.NLM_F_DUMP,
		nl.NewRtAttr(unix.NFTA_RULE_TABLE, nl.ZeroTerminated(table)),
		nl.NewRtAttr(unix.NFTA_RULE_CHAIN, nl.ZeroTerminated(chain))), unix.NFTA_RULE_HANDLE)
}

// A transaction adds and removes rules, all or none.
type transaction struct {
	r        *ruleset
	requests []*nl.NetlinkRequest
	added    []string // the keys of rules whose handles the kernel will tell
	removed  []string
	listed   map[string]*chainList
}

// chainList is what a chain holds in its order, by both names.
type chainList struct {
	rules   []string
	handles [][]byte
}

// apply does what a script says, if the rules still are of their generation. It takes
// a millisecond; iptables-restore takes three, and after a removal twenty: it waits
// in the end as close does. errors.ErrUnsupported: nothing was changed.
func (r *ruleset) apply(s script) error {
	if !r.counted {
		return errors.ErrUnsupported
	}
	t := &transaction{r: r, listed: map[string]*chainList{}}
	for table, lines := range s {
		for line := range strings.Lines(lines.String()) {
			w := strings.Fields(line)
			err := errors.ErrUnsupported
			switch {
			case !strings.HasPrefix(w[1], "KIST-"):
			case w[0] == "-A":
				err = t.add(rule{r.v6, table, w[1], w[2:]})
			case w[0] == "-D":
				err = t.remove(rule{r.v6, table, w[1], w[2:]})
			}
			if err != nil {
				return fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
			}
		}
	}
	handles, err := t.commit()
	if err != nil {
		return err
	}
	r.at++
	for _, key := range t.removed {
		delete(r.handles, key)
	}
	for i, key := range t.added {
		if len(handles) == len(t.added) {
			r.handles[key] = handles[i]
		}
	}
	return nil
}

func (t *transaction) add(r rule) error {
	attrs, err := r.encode()
	if err != nil {
		return err
	}
	t.requests = append(t.requests, nftRequest(unix.NFT_MSG_NEWRULE, r.v6, unix.NLM_F_CREATE|unix.NLM_F_APPEND, attrs...))
	t.added = append(t.added, r.key())
	return nil
}

func (t *transaction) remove(r rule) error {
	handle, known := t.r.handles[r.key()]
	if !known {
		var err error
		if handle, err = t.find(r); err != nil {
			return err
		}
	}
	t.requests = append(t.requests, nftRequest(unix.NFT_MSG_DELRULE, r.v6, 0,
		nl.NewRtAttr(unix.NFTA_RULE_TABLE, nl.ZeroTerminated(r.table)),
		nl.NewRtAttr(unix.NFTA_RULE_CHAIN, nl.ZeroTerminated(r.chain)),
		nl.NewRtAttr(unix.NFTA_RULE_HANDLE, handle)))
	t.removed = append(t.removed, r.key())
	return nil
}

// find takes a rule's handle by its place in the chain.
func (t *transaction) find(r rule) ([]byte, error) {
	list := t.listed[r.table+r.chain]
	if list == nil {
		handles, err := t.r.nft.handles(r.v6, r.table, r.chain)
		if err != nil {
			return nil, err
		}
		list = &chainList{t.r.inChain(r.table, r.chain), handles}
		t.listed[r.table+r.chain] = list
	}
	i := slices.Index(list.rules, r.String())
	if i < 0 || len(list.rules) != len(list.handles) {
		return nil, errors.ErrUnsupported
	}
	handle := list.handles[i]
	list.rules, list.handles = slices.Delete(list.rules, i, i+1), slices.Delete(list.handles, i, i+1)
	return handle, nil
}

// maxTold is of how many changes the kernel tells, so that all fit in a socket.
const maxTold = 64

// commit returns the handles of the added rules, or none of very many.
func (t *transaction) commit() (handles [][]byte, err error) {
	subsystem := &nl.Nfgenmsg{ResId: binary.NativeEndian.Uint16([]byte{0, unix.NFNL_SUBSYS_NFTABLES})}
	begin, end := nl.NewNetlinkRequest(unix.NFNL_MSG_BATCH_BEGIN, 0), nl.NewNetlinkRequest(unix.NFNL_MSG_BATCH_END, 0)
	begin.AddData(subsystem)
	begin.AddData(nl.NewRtAttr(unix.NFNL_BATCH_GENID, be32(t.r.at)))
	end.AddData(subsystem)
	t.requests[len(t.requests)-1].Flags |= unix.NLM_F_ACK
	data := begin.Serialize()
	for i, req := range append(t.requests, end) {
		if len(t.requests) <= maxTold { // it tells of removed ones too
			req.Flags |= unix.NLM_F_ECHO
		}
		req.Seq = 1<<31 + uint32(i) // of no other request on this socket
		data = append(data, req.Serialize()...)
	}
	socket := t.r.nft.h.Socket
	err = unix.Sendto(socket.GetFd(), data, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	if errors.Is(err, unix.EMSGSIZE) {
		// So many rules are more than the socket holds: iptables-restore has a larger one.
		return nil, fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
	}
	if err != nil {
		return nil, fmt.Errorf("change nftables: %w", err)
	}
	for {
		answers, _, err := socket.Receive()
		if err != nil {
			return nil, fmt.Errorf("change nftables: %w", err)
		}
		for _, a := range answers {
			if a.Header.Type == unix.NLMSG_ERROR && len(a.Data) >= 4 {
				if errno := -int32(binary.NativeEndian.Uint32(a.Data)); errno != 0 {
					return nil, fmt.Errorf("%w: %w", errors.ErrUnsupported, unix.Errno(errno))
				}
				return handles, nil
			}
			if a.Header.Type == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWRULE {
				told, err := attributes(a.Data, unix.NFTA_RULE_HANDLE)
				if err != nil {
					return nil, err
				}
				handles = append(handles, told...)
			}
		}
	}
}

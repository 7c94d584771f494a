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
	listed   map[string]chainList
}

// chainList is what a chain holds: the handles of each rule, in their order.
type chainList map[string][][]byte

// apply does what a script says, if the rules still are of their generation. It takes
// a millisecond; iptables-restore takes three, and after a removal twenty: it waits
// in the end as close does. errors.ErrUnsupported: nothing was changed.
func (r *ruleset) apply(s script) error {
	if !r.counted {
		return errors.ErrUnsupported
	}
	t := &transaction{r: r, listed: map[string]chainList{}}
	for table, lines := range s {
		emptied := r.emptied(table, lines.String())
		for line := range strings.Lines(lines.String()) {
			w := strings.Fields(line)
			err := errors.ErrUnsupported
			switch {
			case !strings.HasPrefix(w[1], "KIST-"):
			case w[0] == "-A":
				err = t.add(rule{r.v6, table, w[1], w[2:]})
			case w[0] == "-D" && slices.Contains(emptied, w[1]):
				err = nil
				t.removed = append(t.removed, rule{r.v6, table, w[1], w[2:]}.key())
			case w[0] == "-D":
				err = t.remove(rule{r.v6, table, w[1], w[2:]})
			}
			if err != nil {
				return fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
			}
		}
		for _, chain := range emptied {
			t.requests = append(t.requests, removal(r.v6, table, chain))
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
	t.requests = append(t.requests, removal(r.v6, r.table, r.chain, nl.NewRtAttr(unix.NFTA_RULE_HANDLE, handle)))
	t.removed = append(t.removed, r.key())
	return nil
}

// removal is of the rule with a handle, or of all of a chain.
func removal(v6 bool, table, chain string, handle ...*nl.RtAttr) *nl.NetlinkRequest {
	return nftRequest(unix.NFT_MSG_DELRULE, v6, 0, append([]*nl.RtAttr{
		nl.NewRtAttr(unix.NFTA_RULE_TABLE, nl.ZeroTerminated(table)),
		nl.NewRtAttr(unix.NFTA_RULE_CHAIN, nl.ZeroTerminated(chain)),
	}, handle...)...)
}

// manyGone is from how many removed rules on a look at their whole chain pays: for
// each handle the kernel walks along the chain.
const manyGone = 64

// emptied are kist's chains of which lines remove many rules, and all that there are.
func (r *ruleset) emptied(table, lines string) (chains []string) {
	gone := map[string]map[string]int{}
	for line := range strings.Lines(lines) {
		w := strings.Fields(line)
		if w[0] != "-D" || !strings.HasPrefix(w[1], "KIST-") {
			return nil
		}
		if gone[w[1]] == nil {
			gone[w[1]] = map[string]int{}
		}
		gone[w[1]][rule{r.v6, table, w[1], w[2:]}.String()]++
	}
	for chain, times := range gone {
		if len(times) < manyGone {
			continue
		}
		for _, line := range r.inChain(table, chain) {
			if times[line]--; times[line] == 0 {
				delete(times, line)
			} else if times[line] < 0 {
				break // it stays
			}
		}
		if len(times) == 0 {
			chains = append(chains, chain)
		}
	}
	return chains
}

// find takes a rule's handle by its place in the chain.
func (t *transaction) find(r rule) ([]byte, error) {
	list, ok := t.listed[r.table+r.chain]
	if !ok {
		var err error
		if list, err = t.list(r); err != nil {
			return nil, err
		}
		t.listed[r.table+r.chain] = list
	}
	handles := list[r.String()]
	if len(handles) == 0 {
		return nil, errors.ErrUnsupported
	}
	list[r.String()] = handles[1:]
	return handles[0], nil
}

// list asks for the handles of a rule's chain, where the places tell whose they are.
func (t *transaction) list(r rule) (chainList, error) {
	handles, err := t.r.nft.handles(r.v6, r.table, r.chain)
	if err != nil {
		return nil, err
	}
	rules := t.r.inChain(r.table, r.chain)
	if len(rules) != len(handles) {
		return nil, errors.ErrUnsupported
	}
	list := chainList{}
	for i, rule := range rules {
		list[rule] = append(list[rule], handles[i])
	}
	return list, nil
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
	send := func() error {
		return unix.Sendto(socket.GetFd(), data, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	}
	if err = send(); errors.Is(err, unix.EMSGSIZE) {
		// So many rules are more than a socket holds. iptables-restore would enlarge its
		// own too, and then look for each rule in all.
		unix.SetsockoptInt(socket.GetFd(), unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, len(data))
		err = send()
	}
	if errors.Is(err, unix.EMSGSIZE) {
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

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
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_NETFILTER: n.h}
	replies, err := req.Execute(unix.NETLINK_NETFILTER, 0)
	if err != nil {
		return nil, fmt.Errorf("ask nftables: %w", err)
	}
	for _, r := range replies {
		attrs, err := nl.ParseRouteAttr(r[nl.SizeofNfgenmsg:])
		if err != nil {
			return nil, err
		}
		for _, a := range attrs {
			if a.Attr.Type == attribute {
				values = append(values, a.Value)
			}
		}
	}
	return values, nil
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

// remove does what a script of removals says, of which have was true at a
// generation, all or nothing: in a hundredth of the time of iptables-restore, for
// that waits in the end as close does. errors.ErrUnsupported: the script does more.
func (n *nftables) remove(have present, at uint32, s script, v6 bool) error {
	var batch []*nl.NetlinkRequest
	type chain struct{ table, name string }
	rules, handles := map[chain][]string{}, map[chain][][]byte{}
	for table, lines := range s {
		for line := range strings.Lines(lines.String()) {
			spec, ok := strings.CutPrefix(strings.TrimSpace(line), "-D KIST-")
			if !ok {
				return errors.ErrUnsupported
			}
			name, _, _ := strings.Cut(spec, " ")
			c := chain{table, "KIST-" + name}
			if rules[c] == nil {
				var err error
				if handles[c], err = n.handles(v6, c.table, c.name); err != nil {
					return err
				}
				rules[c] = have.inChain(c.table, c.name)
			}
			i := slices.Index(rules[c], "-A KIST-"+spec)
			if i < 0 || len(rules[c]) != len(handles[c]) {
				return errors.ErrUnsupported
			}
			batch = append(batch, nftRequest(unix.NFT_MSG_DELRULE, v6, 0,
				nl.NewRtAttr(unix.NFTA_RULE_TABLE, nl.ZeroTerminated(c.table)),
				nl.NewRtAttr(unix.NFTA_RULE_CHAIN, nl.ZeroTerminated(c.name)),
				nl.NewRtAttr(unix.NFTA_RULE_HANDLE, handles[c][i])))
			rules[c], handles[c] = slices.Delete(rules[c], i, i+1), slices.Delete(handles[c], i, i+1)
		}
	}
	return n.commit(at, batch)
}

// commit changes the tables at once, if they still are of the generation.
func (n *nftables) commit(at uint32, batch []*nl.NetlinkRequest) error {
	last := batch[len(batch)-1]
	last.Flags |= unix.NLM_F_ACK
	subsystem := &nl.Nfgenmsg{ResId: binary.NativeEndian.Uint16([]byte{0, unix.NFNL_SUBSYS_NFTABLES})}
	begin, end := nl.NewNetlinkRequest(unix.NFNL_MSG_BATCH_BEGIN, 0), nl.NewNetlinkRequest(unix.NFNL_MSG_BATCH_END, 0)
	begin.AddData(subsystem)
	begin.AddData(nl.NewRtAttr(unix.NFNL_BATCH_GENID, binary.BigEndian.AppendUint32(nil, at)))
	end.AddData(subsystem)
	data := begin.Serialize()
	for _, req := range append(batch, end) {
		data = append(data, req.Serialize()...)
	}
	if err := unix.Sendto(n.h.Socket.GetFd(), data, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("change nftables: %w", err)
	}
	answers, _, err := n.h.Socket.Receive()
	if err != nil {
		return err
	}
	for _, a := range answers {
		if a.Header.Type != unix.NLMSG_ERROR || len(a.Data) < 4 {
			continue
		}
		if errno := -int32(binary.NativeEndian.Uint32(a.Data)); errno != 0 {
			return fmt.Errorf("change nftables: %w", unix.Errno(errno))
		}
	}
	return nil
}

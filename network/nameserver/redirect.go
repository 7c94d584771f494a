package nameserver

import (
	"encoding/binary"
	"errors"
	"os"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// tableName is the nftables table of every sandbox that has a name server.
const tableName = "kist-dns"

// errNoRewriting says that the kernel has no nftables that rewrite ports.
var errNoRewriting = errors.New("no nf_tables in the kernel")

// redirect lets 127.0.0.11:53 of this namespace be the given ports. Unlike
// docker's NAT rules these keep no state: at 10,000 questions a second the
// kernel's table of connections, which all containers share, would be full within
// half a minute, and no other packet of the sandbox becomes slower.
//
// A question is rewritten after the container's own rules have seen it, a reply
// before: for them, as for a connection tracker of its own, both are of port 53.
//
// Like: nft add table ip kist-dns
// nft add chain ip kist-dns ask '{ type filter hook output priority 300; }'
// nft add rule ip kist-dns ask ip daddr 127.0.0.11 udp dport 53 udp dport set PORT
// nft add chain ip kist-dns reply '{ type filter hook output priority -300; }'
// nft add rule ip kist-dns reply ip saddr 127.0.0.11 udp sport PORT udp sport set 53
func redirect(udp, tcp uint16) error {
	b := new(batch)
	// Added, removed with all in it, added: it is new whatever was there.
	b.add(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, text(unix.NFTA_TABLE_NAME, tableName))
	b.add(unix.NFT_MSG_DELTABLE, 0, text(unix.NFTA_TABLE_NAME, tableName))
	b.add(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, text(unix.NFTA_TABLE_NAME, tableName))
	b.chain("ask", 300)
	b.chain("reply", -300)
	for _, p := range []struct {
		proto byte
		port  uint16
	}{{unix.IPPROTO_UDP, udp}, {unix.IPPROTO_TCP, tcp}} {
		b.rule("ask", portRule{proto: p.proto, address: 16, port: 2, from: 53, to: p.port})
		b.rule("reply", portRule{proto: p.proto, address: 12, port: 0, from: p.port, to: 53})
	}
	return b.commit()
}

// portRule rewrites a port of packets that have it and our address. address and
// port are offsets in the network's and in the transport's header.
type portRule struct {
	proto         byte
	address, port uint32
	from, to      uint16
}

func (r portRule) expressions() *nl.RtAttr {
	list := nl.NewRtAttr(unix.NFTA_RULE_EXPRESSIONS|unix.NLA_F_NESTED, nil)
	checksum := uint32(6) // of UDP's header
	if r.proto == unix.IPPROTO_TCP {
		checksum = 16
	}
	load := func(base, offset, size uint32) {
		expression(list, "payload", number(unix.NFTA_PAYLOAD_DREG, unix.NFT_REG_1),
			number(unix.NFTA_PAYLOAD_BASE, base), number(unix.NFTA_PAYLOAD_OFFSET, offset), number(unix.NFTA_PAYLOAD_LEN, size))
	}
	equal := func(value []byte) {
		expression(list, "cmp", number(unix.NFTA_CMP_SREG, unix.NFT_REG_1),
			number(unix.NFTA_CMP_OP, unix.NFT_CMP_EQ), data(unix.NFTA_CMP_DATA, value))
	}
	load(unix.NFT_PAYLOAD_NETWORK_HEADER, r.address, 4)
	equal([]byte{127, 0, 0, 11})
	expression(list, "meta", number(unix.NFTA_META_KEY, unix.NFT_META_L4PROTO), number(unix.NFTA_META_DREG, unix.NFT_REG_1))
	equal([]byte{r.proto})
	load(unix.NFT_PAYLOAD_TRANSPORT_HEADER, r.port, 2)
	equal(binary.BigEndian.AppendUint16(nil, r.from))
	expression(list, "immediate", number(unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_1),
		data(unix.NFTA_IMMEDIATE_DATA, binary.BigEndian.AppendUint16(nil, r.to)))
	expression(list, "payload", number(unix.NFTA_PAYLOAD_SREG, unix.NFT_REG_1),
		number(unix.NFTA_PAYLOAD_BASE, unix.NFT_PAYLOAD_TRANSPORT_HEADER), number(unix.NFTA_PAYLOAD_OFFSET, r.port), number(unix.NFTA_PAYLOAD_LEN, 2),
		number(unix.NFTA_PAYLOAD_CSUM_TYPE, unix.NFT_PAYLOAD_CSUM_INET), number(unix.NFTA_PAYLOAD_CSUM_OFFSET, checksum))
	return list
}

func expression(list *nl.RtAttr, name string, attrs ...*nl.RtAttr) {
	e := nl.NewRtAttr(unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, nil)
	e.AddChild(text(unix.NFTA_EXPR_NAME, name))
	e.AddChild(nested(unix.NFTA_EXPR_DATA, attrs...))
	list.AddChild(e)
}

func nested(kind int, attrs ...*nl.RtAttr) *nl.RtAttr {
	n := nl.NewRtAttr(kind|unix.NLA_F_NESTED, nil)
	for _, a := range attrs {
		n.AddChild(a)
	}
	return n
}

func data(kind int, value []byte) *nl.RtAttr {
	return nested(kind, nl.NewRtAttr(unix.NFTA_DATA_VALUE, value))
}

func text(kind int, s string) *nl.RtAttr { return nl.NewRtAttr(kind, nl.ZeroTerminated(s)) }

// number is in network order, as all of nf_tables' are.
func number(kind int, n uint32) *nl.RtAttr {
	return nl.NewRtAttr(kind, binary.BigEndian.AppendUint32(nil, n))
}

// A batch is a transaction of nf_tables: all of its messages or none.
type batch struct {
	messages []byte
	seq      uint32
}

func (b *batch) add(kind, flags int, attrs ...*nl.RtAttr) {
	b.message(unix.NFNL_SUBSYS_NFTABLES<<8|kind, flags|unix.NLM_F_ACK, unix.AF_INET, 0, attrs...)
}

// message appends a netlink message with nfnetlink's header; see linux/netfilter/nfnetlink.h.
func (b *batch) message(kind, flags int, family byte, resource uint16, attrs ...*nl.RtAttr) {
	start := len(b.messages)
	b.seq++
	m := append(b.messages, make([]byte, unix.SizeofNlMsghdr)...)
	m = binary.BigEndian.AppendUint16(append(m, family, unix.NFNETLINK_V0), resource)
	for _, a := range attrs {
		m = append(m, a.Serialize()...)
	}
	h := m[start:]
	binary.NativeEndian.PutUint32(h, uint32(len(h)))
	binary.NativeEndian.PutUint16(h[4:], uint16(kind))
	binary.NativeEndian.PutUint16(h[6:], uint16(flags|unix.NLM_F_REQUEST))
	binary.NativeEndian.PutUint32(h[8:], b.seq)
	b.messages = m
}

// chain is a hook on what this namespace sends.
func (b *batch) chain(name string, priority int32) {
	b.add(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE,
		text(unix.NFTA_CHAIN_TABLE, tableName), text(unix.NFTA_CHAIN_NAME, name), text(unix.NFTA_CHAIN_TYPE, "filter"),
		nested(unix.NFTA_CHAIN_HOOK, number(unix.NFTA_HOOK_HOOKNUM, unix.NF_INET_LOCAL_OUT), number(unix.NFTA_HOOK_PRIORITY, uint32(priority))))
}

func (b *batch) rule(chain string, r portRule) {
	b.add(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND,
		text(unix.NFTA_RULE_TABLE, tableName), text(unix.NFTA_RULE_CHAIN, chain), r.expressions())
}

// commit sends the batch and waits until the kernel took every message, or for
// the first error.
func (b *batch) commit() error {
	wanted := int(b.seq)
	all := new(batch)
	all.message(unix.NFNL_MSG_BATCH_BEGIN, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES)
	begin := all.messages
	all.messages, all.seq = nil, b.seq
	all.message(unix.NFNL_MSG_BATCH_END, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES)
	s, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return errNoRewriting
	}
	defer unix.Close(s)
	// A kernel that never answers is no reason to wait for ever.
	unix.SetsockoptTimeval(s, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5})
	packet := append(append(begin, b.messages...), all.messages...)
	if err := unix.Sendto(s, packet, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("send rules", err)
	}
	return acknowledged(s, wanted)
}

func acknowledged(s, wanted int) error {
	buf := make([]byte, 16<<10)
	for wanted > 0 {
		n, _, err := unix.Recvfrom(s, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return os.NewSyscallError("receive", err)
		}
		for rest := buf[:n]; len(rest) >= unix.SizeofNlMsghdr+4; wanted-- {
			size := int(binary.NativeEndian.Uint32(rest))
			if errno := -int32(binary.NativeEndian.Uint32(rest[unix.SizeofNlMsghdr:])); errno != 0 {
				return rulesError(unix.Errno(errno))
			}
			rest = rest[min(len(rest), (size+3)&^3):]
		}
	}
	return nil
}

// rulesError tells a kernel that lacks a part from all else that can go wrong.
func rulesError(errno unix.Errno) error {
	switch errno {
	case unix.EOPNOTSUPP, unix.ENOENT, unix.EPROTONOSUPPORT, unix.EINVAL:
		return errNoRewriting
	}
	return os.NewSyscallError("add rules", errno)
}

package network

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"strconv"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// expressions builds a rule of nftables that iptables reads as its own. See
// iptables/nft-ruleparse.c and net/netfilter/nft_compat.c.
type expressions struct {
	v6   bool
	list *nl.RtAttr
	// proto is the protocol that the rule is for, which matches have to know.
	proto uint32
	words []string
}

// encode is the attributes of rules of published ports; errors.ErrUnsupported for
// any other.
func (r rule) encode() ([]*nl.RtAttr, error) {
	x := &expressions{v6: r.v6, list: nl.NewRtAttr(unix.NLA_F_NESTED|unix.NFTA_RULE_EXPRESSIONS, nil), words: r.spec}
	for len(x.words) > 0 {
		if err := x.part(); err != nil {
			return nil, err
		}
	}
	compat := nl.NewRtAttr(unix.NLA_F_NESTED|unix.NFTA_RULE_COMPAT, nil)
	compat.AddRtAttr(unix.NFTA_RULE_COMPAT_PROTO, be32(x.proto))
	compat.AddRtAttr(unix.NFTA_RULE_COMPAT_FLAGS, be32(0))
	return []*nl.RtAttr{
		nl.NewRtAttr(unix.NFTA_RULE_TABLE, nl.ZeroTerminated(r.table)),
		nl.NewRtAttr(unix.NFTA_RULE_CHAIN, nl.ZeroTerminated(r.chain)),
		x.list, compat,
	}, nil
}

func be32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }

func (x *expressions) next() (word string) {
	if len(x.words) > 0 {
		word, x.words = x.words[0], x.words[1:]
	}
	return word
}

// part takes one option and its values.
func (x *expressions) part() error {
	op := uint32(unix.NFT_CMP_EQ)
	option := x.next()
	if option == "!" {
		op, option = unix.NFT_CMP_NEQ, x.next()
	}
	switch option {
	case "-s", "-d":
		return x.address(option, op)
	case "-i":
		x.meta(unix.NFT_META_IIFNAME, op, nl.ZeroTerminated(x.next()))
	case "-o":
		x.meta(unix.NFT_META_OIFNAME, op, nl.ZeroTerminated(x.next()))
	case "-p":
		x.proto = map[string]uint32{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP}[x.next()]
		x.meta(unix.NFT_META_L4PROTO, op, []byte{byte(x.proto)})
		if x.proto == 0 {
			return errors.ErrUnsupported
		}
	case "-m":
		return x.match()
	case "-j":
		return x.target()
	default:
		return errors.ErrUnsupported
	}
	return nil
}

// add appends an expression with its attributes, which count from 1.
func (x *expressions) add(name string, values ...[]byte) *nl.RtAttr {
	e := x.list.AddRtAttr(unix.NLA_F_NESTED|unix.NFTA_LIST_ELEM, nil)
	e.AddRtAttr(unix.NFTA_EXPR_NAME, nl.ZeroTerminated(name))
	data := e.AddRtAttr(unix.NLA_F_NESTED|unix.NFTA_EXPR_DATA, nil)
	for i, v := range values {
		data.AddRtAttr(i+1, v)
	}
	return data
}

func (x *expressions) compare(op uint32, value []byte) {
	x.add("cmp", be32(unix.NFT_REG_1), be32(op)).
		AddRtAttr(unix.NLA_F_NESTED|unix.NFTA_CMP_DATA, nil).AddRtAttr(unix.NFTA_DATA_VALUE, value)
}

func (x *expressions) meta(key int, op uint32, value []byte) {
	x.add("meta", be32(unix.NFT_REG_1), be32(uint32(key)))
	x.compare(op, value)
}

func (x *expressions) address(option string, op uint32) error {
	p, err := netip.ParsePrefix(x.next())
	if err != nil || !p.IsSingleIP() || p.Addr().Is6() != x.v6 {
		return errors.ErrUnsupported
	}
	// Where the addresses are in the headers: RFC 791, RFC 8200.
	size, at := 4, 12
	if x.v6 {
		size, at = 16, 8
	}
	if option == "-d" {
		at += size
	}
	x.add("payload", be32(unix.NFT_REG_1), be32(unix.NFT_PAYLOAD_NETWORK_HEADER), be32(uint32(at)), be32(uint32(size)))
	x.compare(op, p.Addr().AsSlice())
	return nil
}

// match is a module of iptables: its name, revision and structure.
func (x *expressions) match() error {
	switch name, option, value := x.next(), x.next(), x.next(); name + option {
	case "tcp--dport", "udp--dport": // struct xt_tcp, xt_udp
		port, err := strconv.ParseUint(value, 10, 16)
		if err != nil {
			return errors.ErrUnsupported
		}
		info := make([]byte, 16)
		binary.NativeEndian.PutUint16(info[2:], 65535)
		binary.NativeEndian.PutUint16(info[4:], uint16(port))
		binary.NativeEndian.PutUint16(info[6:], uint16(port))
		x.add("match", nl.ZeroTerminated(name), be32(0), info)
		return nil
	case "conntrack--ctstate": // struct xt_conntrack_mtinfo3
		if value != "DNAT" {
			break
		}
		info := make([]byte, 168)
		binary.NativeEndian.PutUint16(info[146:], 1)    // XT_CONNTRACK_STATE
		binary.NativeEndian.PutUint16(info[150:], 1<<7) // XT_CONNTRACK_STATE_DNAT
		x.add("match", nl.ZeroTerminated(name), be32(3), info)
		return nil
	}
	return errors.ErrUnsupported
}

func (x *expressions) target() error {
	x.add("counter", make([]byte, 8), make([]byte, 8))
	switch name := x.next(); name {
	case "ACCEPT":
		x.add("immediate", be32(unix.NFT_REG_VERDICT)).AddRtAttr(unix.NLA_F_NESTED|unix.NFTA_IMMEDIATE_DATA, nil).
			AddRtAttr(unix.NLA_F_NESTED|unix.NFTA_DATA_VERDICT, nil).AddRtAttr(unix.NFTA_VERDICT_CODE, be32(1)) // NF_ACCEPT
	case "DNAT": // struct nf_nat_range2
		x.next() // --to-destination
		to, err := netip.ParseAddrPort(x.next())
		if err != nil {
			return errors.ErrUnsupported
		}
		info := make([]byte, 48)
		binary.NativeEndian.PutUint32(info, 3) // NF_NAT_RANGE_MAP_IPS | NF_NAT_RANGE_PROTO_SPECIFIED
		for i := range 2 {
			copy(info[4+16*i:], to.Addr().AsSlice())
			binary.BigEndian.PutUint16(info[36+2*i:], to.Port())
		}
		x.add("target", nl.ZeroTerminated(name), be32(2), info)
	case "MASQUERADE":
		info := make([]byte, 40) // struct nf_nat_range
		if !x.v6 {
			info = info[:24] // struct nf_nat_ipv4_multi_range_compat
			binary.NativeEndian.PutUint32(info, 1)
		}
		x.add("target", nl.ZeroTerminated(name), be32(0), info)
	default:
		return errors.ErrUnsupported
	}
	return nil
}

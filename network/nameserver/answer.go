package nameserver

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/net/dns/dnsmessage"
)

// ttl is docker's, in seconds.
const ttl = 600

const (
	rcodeRefused = dnsmessage.RCodeRefused
	rcodeFailure = dnsmessage.RCodeServerFailure
)

// An answer is what becomes of a question: a reply, another server's business, or,
// with neither, nothing.
type answer struct {
	reply   []byte
	forward bool
	// size is what the client takes in one packet.
	size int
}

// request is a question that could be understood.
type request struct {
	dnsmessage.Header
	q dnsmessage.Question
	// name is in lower case, without the last dot; the reply repeats q's own.
	name []byte
	// edns says that the client sent an OPT record, and so expects one.
	edns bool
	size int
}

// answer replies to msg in buf's memory, which may be nil.
func (s *server) answer(msg, buf []byte, stream bool) answer {
	r, reply := readRequest(msg)
	if r == nil {
		return answer{reply: reply}
	}
	if stream {
		r.size = maxMessage
	}
	if r.q.Class != dnsmessage.ClassINET {
		return answer{forward: true, size: r.size}
	}
	z := s.zone.current()
	switch r.q.Type {
	case dnsmessage.TypeA, dnsmessage.TypeAAAA:
		if h := z.lookup(r.name); h != nil {
			return answer{reply: r.addresses(buf, h)}
		}
		if s.KeepSingle && !dotted(r.name) {
			return answer{reply: r.addresses(buf, new(host))}
		}
	case dnsmessage.TypePTR:
		if addr, ok := reverse(r.name); ok {
			if name, ok := z.reverse[addr]; ok {
				return answer{reply: r.pointer(buf, name)}
			}
		}
	default:
		// Of a container only addresses are known, and nobody else knows more: a
		// mail client is to take its address (RFC 5321, section 5.1).
		if z.lookup(r.name) != nil {
			return answer{reply: r.addresses(buf, new(host))}
		}
	}
	return answer{forward: true, size: r.size}
}

func dotted(name []byte) bool {
	for _, c := range name {
		if c == '.' {
			return true
		}
	}
	return false
}

// readRequest parses a question. Without a request there is at most an error to
// send back: never to a reply, or two servers might talk for ever.
func readRequest(msg []byte) (*request, []byte) {
	var p dnsmessage.Parser
	h, err := p.Start(msg)
	if err != nil || h.Response {
		return nil, nil
	}
	if h.OpCode != 0 {
		return nil, refuse(msg, dnsmessage.RCodeNotImplemented)
	}
	r := &request{Header: h, size: 512}
	if r.q, err = p.Question(); err != nil {
		return nil, refuse(msg, dnsmessage.RCodeFormatError)
	}
	if _, err := p.Question(); err != dnsmessage.ErrSectionDone {
		return nil, refuse(msg, dnsmessage.RCodeFormatError)
	}
	folded := r.q.Name
	r.name = lower(folded.Data[:folded.Length])
	if p.SkipAllAnswers() != nil || p.SkipAllAuthorities() != nil {
		return nil, refuse(msg, dnsmessage.RCodeFormatError)
	}
	for {
		a, err := p.AdditionalHeader()
		if err != nil {
			return r, nil
		}
		if a.Type == dnsmessage.TypeOPT {
			r.edns, r.size = true, max(512, int(a.Class))
		}
		if p.SkipAdditional() != nil {
			return r, nil
		}
	}
}

// lower makes a name of the wire one of the table, in place.
func lower(name []byte) []byte {
	for i, c := range name {
		if 'A' <= c && c <= 'Z' {
			name[i] = c + 'a' - 'A'
		}
	}
	if n := len(name); n > 0 && name[n-1] == '.' {
		name = name[:n-1]
	}
	return name
}

// refuse is an error as a reply to msg, nil if msg is too short to have one. The
// question is repeated unless it is what is wrong, or was not looked at.
func refuse(msg []byte, code dnsmessage.RCode) []byte {
	if len(msg) < 12 {
		return nil
	}
	reply := make([]byte, 12)
	copy(reply, msg[:2])
	flags := binary.BigEndian.Uint16(msg[2:])&(0x7800|0x0100) | 0x8080 | uint16(code)
	binary.BigEndian.PutUint16(reply[2:], flags)
	if q, err := question(msg); err == nil && code != dnsmessage.RCodeFormatError && code != dnsmessage.RCodeNotImplemented {
		reply[5] = 1
		reply = append(reply, q...)
	}
	return reply
}

// question is the only question of msg as it stands there.
func question(msg []byte) ([]byte, error) {
	if len(msg) < 12 || binary.BigEndian.Uint16(msg[4:]) != 1 {
		return nil, errNoQuestion
	}
	for i := 12; i < len(msg); i += int(msg[i]) + 1 {
		switch {
		case msg[i] == 0 && i+5 <= len(msg):
			return msg[12 : i+5], nil
		case msg[i] == 0, msg[i] > 63: // cut short, or compressed with nothing before it
			return nil, errNoQuestion
		}
	}
	return nil, errNoQuestion
}

// builder starts the reply in buf.
func (r *request) builder(buf []byte, truncated bool) dnsmessage.Builder {
	b := dnsmessage.NewBuilder(buf, dnsmessage.Header{
		ID: r.ID, Response: true, RecursionDesired: r.RecursionDesired, RecursionAvailable: true, Truncated: truncated,
	})
	b.StartQuestions()
	b.Question(r.q)
	b.StartAnswers()
	return b
}

func (r *request) finish(b *dnsmessage.Builder) []byte {
	if r.edns {
		b.StartAdditionals()
		b.OPTResource(dnsmessage.ResourceHeader{Name: rootName(), Class: maxQuestion}, dnsmessage.OPTResource{})
	}
	reply, err := b.Finish()
	if err != nil {
		return nil
	}
	return reply
}

func rootName() (n dnsmessage.Name) {
	n.Data[0], n.Length = '.', 1
	return n
}

// addresses are h's, each time another one first. Without one of the family the
// reply is empty: the name exists.
func (r *request) addresses(buf []byte, h *host) []byte {
	list, bits := h.v4, 4
	if r.q.Type == dnsmessage.TypeAAAA {
		list, bits = h.v6, 16
	}
	if r.q.Type != dnsmessage.TypeA && r.q.Type != dnsmessage.TypeAAAA {
		list = nil
	}
	each := int(r.q.Name.Length) + 1 + 10 + bits
	room := (r.size - 12 - int(r.q.Name.Length) - 1 - 4 - 11) / each
	b := r.builder(buf, len(list) > room)
	first := h.next(len(list))
	for i := range min(len(list), room) {
		r.address(&b, list[(first+i)%len(list)])
	}
	return r.finish(&b)
}

func (r *request) address(b *dnsmessage.Builder, addr netip.Addr) {
	head := dnsmessage.ResourceHeader{Name: r.q.Name, Class: dnsmessage.ClassINET, TTL: ttl}
	if addr.Is4() {
		b.AResource(head, dnsmessage.AResource{A: addr.As4()})
	} else {
		b.AAAAResource(head, dnsmessage.AAAAResource{AAAA: addr.As16()})
	}
}

func (r *request) pointer(buf []byte, name dnsmessage.Name) []byte {
	b := r.builder(buf, false)
	b.PTRResource(dnsmessage.ResourceHeader{Name: r.q.Name, Class: dnsmessage.ClassINET, TTL: ttl}, dnsmessage.PTRResource{PTR: name})
	return r.finish(&b)
}

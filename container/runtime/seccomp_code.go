package runtime

import (
	"slices"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// tree emits a binary search over spans; every path ends with a return.
func (p *program) tree(spans []span, fallback uint32) {
	if len(spans) == 1 {
		p.leaf(spans[0], fallback)
		return
	}
	mid := len(spans) / 2
	// Conditional jumps reach 255 instructions, the unconditional one any.
	p.code = append(p.code, unix.SockFilter{Code: jge, Jt: 1, K: spans[mid].start},
		unix.SockFilter{Code: jump, K: 0})
	at := len(p.code) - 1
	p.tree(spans[mid:], fallback)
	p.code[at].K = uint32(len(p.code) - at - 1)
	p.tree(spans[:mid], fallback)
}

func (p *program) leaf(s span, fallback uint32) {
	if s.rule == nil {
		p.emit(ret, s.value)
		return
	}
	for _, c := range s.rule.when {
		p.conditional(c)
	}
	if s.rule.final != nil {
		fallback = *s.rule.final
	}
	p.emit(ret, fallback)
}

// conditional emits a check of all arguments: it returns the answer when they
// hold and falls through when one does not.
func (p *program) conditional(c conditional) {
	body := &program{}
	var failures []int
	for _, a := range c.args {
		failures = append(failures, body.compare(a)...)
	}
	body.emit(ret, c.answer)
	end := len(body.code)
	for _, i := range failures {
		// Each listed jump has its failing side marked with placeholder.
		in := &body.code[i]
		if in.Jt == placeholder {
			in.Jt = uint8(end - i - 1)
		}
		if in.Jf == placeholder {
			in.Jf = uint8(end - i - 1)
		}
	}
	p.code = append(p.code, body.code...)
}

// placeholder marks a jump whose target is known only later.
const placeholder = 255

var operators = []specs.LinuxSeccompOperator{
	specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo,
	specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpMaskedEqual,
}

// compare emits a 64-bit comparison out of 32-bit ones, on a little-endian
// machine: it falls through when it holds. It returns the instructions that
// jump when it does not.
func (p *program) compare(a specs.LinuxSeccompArg) (failures []int) {
	low, high := uint32(dataArgs+8*a.Index), uint32(dataArgs+8*a.Index+4)
	lo, hi := uint32(a.Value), uint32(a.Value>>32)
	fail := func(code uint16, k uint32, jt, jf uint8) {
		failures = append(failures, len(p.code))
		p.code = append(p.code, unix.SockFilter{Code: code, Jt: jt, Jf: jf, K: k})
	}
	switch a.Op {
	case specs.OpEqualTo:
		p.emit(ld, high)
		fail(jeq, hi, 0, placeholder)
		p.emit(ld, low)
		fail(jeq, lo, 0, placeholder)
	case specs.OpMaskedEqual:
		// value is the mask, valueTwo what must remain of the argument.
		p.emit(ld, high)
		p.emit(and, hi)
		fail(jeq, uint32(a.ValueTwo>>32), 0, placeholder)
		p.emit(ld, low)
		p.emit(and, lo)
		fail(jeq, uint32(a.ValueTwo), 0, placeholder)
	case specs.OpNotEqual:
		p.emit(ld, high)
		p.code = append(p.code, unix.SockFilter{Code: jeq, Jt: 0, Jf: 2, K: hi})
		p.emit(ld, low)
		fail(jeq, lo, placeholder, 0)
	case specs.OpGreaterThan, specs.OpGreaterEqual:
		last := uint16(jgt)
		if a.Op == specs.OpGreaterEqual {
			last = jge
		}
		p.emit(ld, high)
		p.code = append(p.code, unix.SockFilter{Code: jgt, Jt: 3, Jf: 0, K: hi})
		fail(jeq, hi, 0, placeholder)
		p.emit(ld, low)
		fail(last, lo, 0, placeholder)
	case specs.OpLessThan, specs.OpLessEqual:
		last := uint16(jge)
		if a.Op == specs.OpLessEqual {
			last = jgt
		}
		p.emit(ld, high)
		fail(jgt, hi, placeholder, 0)
		p.code = append(p.code, unix.SockFilter{Code: jeq, Jt: 0, Jf: 2, K: hi})
		p.emit(ld, low)
		fail(last, lo, placeholder, 0)
	}
	return failures
}

func (p *program) emit(code uint16, k uint32) {
	p.code = append(p.code, unix.SockFilter{Code: code, K: k})
}

// bytes is the program as the kernel reads it.
func (p *program) bytes() []byte {
	size := len(p.code) * int(unsafe.Sizeof(unix.SockFilter{}))
	return slices.Clone(unsafe.Slice((*byte)(unsafe.Pointer(&p.code[0])), size))
}

package runtime

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// A program is a seccomp filter in classic BPF. For each ABI it searches the
// system call's number in a balanced tree of ranges that share an answer, so a
// call takes some ten instructions whatever the profile's length.
// See seccomp(2).
type program struct {
	code  []unix.SockFilter
	flags uint
}

// Offsets in struct seccomp_data.
const (
	dataNr   = 0
	dataArch = 4
	dataArgs = 16
)

const (
	ld   = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	and  = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
	jump = unix.BPF_JMP | unix.BPF_JA
	jeq  = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	jge  = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
	jgt  = unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K
	ret  = unix.BPF_RET | unix.BPF_K
)

var actions = map[specs.LinuxSeccompAction]uint32{
	specs.ActKill: unix.SECCOMP_RET_KILL_THREAD, specs.ActKillThread: unix.SECCOMP_RET_KILL_THREAD,
	specs.ActKillProcess: unix.SECCOMP_RET_KILL_PROCESS, specs.ActTrap: unix.SECCOMP_RET_TRAP,
	specs.ActErrno: unix.SECCOMP_RET_ERRNO, specs.ActTrace: unix.SECCOMP_RET_TRACE,
	specs.ActAllow: unix.SECCOMP_RET_ALLOW, specs.ActLog: unix.SECCOMP_RET_LOG,
}

var filterFlags = map[specs.LinuxSeccompFlag]uint{
	specs.LinuxSeccompFlagLog: unix.SECCOMP_FILTER_FLAG_LOG, specs.LinuxSeccompFlagSpecAllow: unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW,
	"SECCOMP_FILTER_FLAG_TSYNC": 0, // init has one thread that matters
}

// rule is what a profile says of one system call: the first set of conditions
// that holds gives the answer, else the last word.
type rule struct {
	when  []conditional
	final *uint32
}

type conditional struct {
	args   []specs.LinuxSeccompArg
	answer uint32
}

// compileSeccomp turns a profile into a program. Names that no ABI of the
// profile has are passed over, as the specification wants.
func compileSeccomp(s *specs.LinuxSeccomp) (*program, error) {
	if s.ListenerPath != "" || s.DefaultAction == specs.ActNotify {
		return nil, fmt.Errorf("seccomp: SCMP_ACT_NOTIFY: kist has no agent to notify")
	}
	fallback, err := answerOf(s.DefaultAction, s.DefaultErrnoRet)
	if err != nil {
		return nil, err
	}
	p := &program{code: make([]unix.SockFilter, 0, 2048)}
	for _, f := range s.Flags {
		bit, ok := filterFlags[f]
		if !ok {
			return nil, fmt.Errorf("seccomp: flag %q: unknown", f)
		}
		p.flags |= bit
	}
	rules, err := rulesByName(s)
	if err != nil {
		return nil, err
	}
	p.emit(ld, dataArch)
	for _, a := range nativeABIs(s.Architectures) {
		// Where another ABI's number arrives, the next ABI's part is tried.
		p.code = append(p.code, unix.SockFilter{Code: jeq, Jt: 1, K: a.audit}, unix.SockFilter{Code: jump})
		at := len(p.code)
		p.abi(a, rules, fallback)
		p.code[at-1].K = uint32(len(p.code) - at)
	}
	p.emit(ret, unix.SECCOMP_RET_KILL_PROCESS)
	const most = 4096 // BPF_MAXINSNS
	if len(p.code) > most {
		return nil, fmt.Errorf("seccomp: the profile compiles to %d instructions, the kernel takes %d", len(p.code), most)
	}
	return p, nil
}

// allows reports whether a profile lets calls through whatever their arguments are.
func allows(s *specs.LinuxSeccomp, names ...string) bool {
	return !slices.ContainsFunc(names, func(name string) bool {
		allowed := s.DefaultAction == specs.ActAllow
		for _, call := range s.Syscalls {
			if !slices.Contains(call.Names, name) {
				continue
			}
			if call.Action != specs.ActAllow || len(call.Args) > 0 {
				return true
			}
			allowed = true
		}
		return !allowed
	})
}

func answerOf(a specs.LinuxSeccompAction, errno *uint) (uint32, error) {
	v, ok := actions[a]
	if !ok {
		return 0, fmt.Errorf("seccomp: action %q: unknown", a)
	}
	switch {
	case (a == specs.ActErrno || a == specs.ActTrace) && errno != nil:
		v |= uint32(*errno) & unix.SECCOMP_RET_DATA
	case a == specs.ActErrno:
		v |= uint32(unix.EPERM)
	}
	return v, nil
}

func rulesByName(s *specs.LinuxSeccomp) (map[string]*rule, error) {
	rules := make(map[string]*rule, 512)
	for _, call := range s.Syscalls {
		answer, err := answerOf(call.Action, call.ErrnoRet)
		if err != nil {
			return nil, err
		}
		for _, a := range call.Args {
			if a.Index > 5 {
				return nil, fmt.Errorf("seccomp: %v: argument %d is not in 0-5", call.Names, a.Index)
			}
			if !slices.Contains(operators, a.Op) {
				return nil, fmt.Errorf("seccomp: %v: operator %q: unknown", call.Names, a.Op)
			}
		}
		for _, name := range call.Names {
			r := rules[name]
			if r == nil {
				r = &rule{}
				rules[name] = r
			}
			if len(call.Args) == 0 {
				r.final = &answer
				continue
			}
			for _, args := range alternatives(call.Args) {
				r.when = append(r.when, conditional{args, answer})
			}
		}
	}
	return rules, nil
}

// alternatives splits conditions on one argument given twice: libseccomp, and so
// every profile, means "or" by them, and "and" between different arguments.
func alternatives(args []specs.LinuxSeccompArg) [][]specs.LinuxSeccompArg {
	seen := map[uint]bool{}
	for _, a := range args {
		if seen[a.Index] {
			var each [][]specs.LinuxSeccompArg
			for _, one := range args {
				each = append(each, []specs.LinuxSeccompArg{one})
			}
			return each
		}
		seen[a.Index] = true
	}
	return [][]specs.LinuxSeccompArg{args}
}

// span is a range of numbers from start to the next span's start.
type span struct {
	start uint32
	rule  *rule // nil: the fallback
	value uint32
}

// abi emits the part for one ABI; it starts with the number not yet loaded.
func (p *program) abi(a abi, rules map[string]*rule, fallback uint32) {
	p.emit(ld, dataNr)
	spans := a.spans(rules, fallback)
	p.tree(spans, fallback)
}

// spans lays the rules out along the numbers, neighbours with one answer merged.
func (a abi) spans(rules map[string]*rule, fallback uint32) []span {
	spans := append(make([]span, 0, 128), span{0, nil, fallback})
	put := func(nr uint32, r *rule, value uint32) {
		last := &spans[len(spans)-1]
		if last.rule == nil && r == nil && last.value == value {
			return
		}
		if last.start == nr {
			*last = span{nr, r, value}
			return
		}
		spans = append(spans, span{nr, r, value})
	}
	highest := uint32(0)
	for _, table := range a.tables {
		next := table.base
		put(next, nil, fallback)
		for _, c := range sorted(table, rules) {
			if c.nr > next {
				put(next, nil, fallback)
			}
			if len(c.rule.when) == 0 {
				put(c.nr, nil, *c.rule.final)
			} else {
				put(c.nr, c.rule, 0)
			}
			next, highest = c.nr+1, c.nr
		}
		// A call younger than all that the profile's author knew does not exist for
		// it: libc falls back on ENOSYS, but takes EPERM for an answer.
		young := fallback
		if fallback == unix.SECCOMP_RET_ERRNO|uint32(unix.EPERM) && highest > 0 {
			young = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
		}
		put(next, nil, young)
	}
	return spans
}

// A ruledCall is a system call that the profile says something of.
type ruledCall struct {
	nr   uint32
	rule *rule
}

func sorted(t callTable, rules map[string]*rule) []ruledCall {
	calls := make([]ruledCall, 0, len(t.calls))
	for _, c := range t.calls {
		if r := rules[c.name]; r != nil {
			calls = append(calls, ruledCall{c.nr + t.base, r})
		}
	}
	slices.SortFunc(calls, func(a, b ruledCall) int { return cmp.Compare(a.nr, b.nr) })
	return slices.CompactFunc(calls, func(a, b ruledCall) bool { return a.nr == b.nr })
}

// loadFilter puts this thread, and so the payload, under the filter.
func (p *initProcess) loadFilter() error { return loadFilter(p.Filter, p.FilterFlags) }

func loadFilter(filter []byte, flags uint) error {
	const size = int(unsafe.Sizeof(unix.SockFilter{}))
	if len(filter) == 0 {
		return nil
	}
	code := unsafe.Slice((*unix.SockFilter)(unsafe.Pointer(&filter[0])), len(filter)/size)
	prog := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	_, _, e := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(flags), uintptr(unsafe.Pointer(&prog)))
	if e != 0 {
		return os.NewSyscallError("load seccomp filter", e)
	}
	return nil
}

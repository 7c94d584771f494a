package runtime

import (
	"encoding/binary"
	"encoding/json"
	goruntime "runtime"
	"slices"
	"testing"

	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// A syscall as a filter sees it.
type syscallData struct {
	nr, arch uint32
	args     [6]uint64
}

// packet lays it out for a machine that loads words in network order.
func (d syscallData) packet() []byte {
	b := binary.BigEndian.AppendUint32(nil, d.nr)
	b = binary.BigEndian.AppendUint32(b, d.arch)
	b = append(b, make([]byte, 8)...) // instruction_pointer
	for _, a := range d.args {
		b = binary.BigEndian.AppendUint32(b, uint32(a))
		b = binary.BigEndian.AppendUint32(b, uint32(a>>32))
	}
	return b
}

// machine runs a filter outside the kernel.
func machine(t testing.TB, p *program) *bpf.VM {
	t.Helper()
	var code []bpf.Instruction
	for _, c := range p.code {
		code = append(code, bpf.RawInstruction{Op: c.Code, Jt: c.Jt, Jf: c.Jf, K: c.K}.Disassemble())
	}
	vm, err := bpf.NewVM(code)
	if err != nil {
		t.Fatalf("the kernel would not take the filter: %v", err)
	}
	return vm
}

func verdict(t testing.TB, vm *bpf.VM, d syscallData) uint32 {
	t.Helper()
	v, err := vm.Run(d.packet())
	if err != nil {
		t.Fatalf("%+v: %v", d, err)
	}
	return uint32(v)
}

// expected is what the specification says of a call, read plainly.
func expected(s *specs.LinuxSeccomp, name string, args [6]uint64) (answer uint32, listed bool) {
	var final *uint32
	for _, rule := range s.Syscalls {
		if !slices.Contains(rule.Names, name) {
			continue
		}
		listed = true
		a, _ := answerOf(rule.Action, rule.ErrnoRet)
		if len(rule.Args) == 0 {
			final = &a
			continue
		}
		for _, set := range alternatives(rule.Args) {
			if !slices.ContainsFunc(set, func(c specs.LinuxSeccompArg) bool { return !holds(c, args[c.Index]) }) {
				return a, true
			}
		}
	}
	if final != nil {
		return *final, true
	}
	fallback, _ := answerOf(s.DefaultAction, s.DefaultErrnoRet)
	return fallback, listed
}

func holds(c specs.LinuxSeccompArg, v uint64) bool {
	switch c.Op {
	case specs.OpNotEqual:
		return v != c.Value
	case specs.OpLessThan:
		return v < c.Value
	case specs.OpLessEqual:
		return v <= c.Value
	case specs.OpEqualTo:
		return v == c.Value
	case specs.OpGreaterEqual:
		return v >= c.Value
	case specs.OpGreaterThan:
		return v > c.Value
	}
	return v&c.Value == c.ValueTwo // masked
}

// probes are arguments at the edges of every condition of a profile.
func probes(s *specs.LinuxSeccomp) [][6]uint64 {
	list := [][6]uint64{{}}
	for _, rule := range s.Syscalls {
		for _, a := range rule.Args {
			for _, v := range []uint64{a.Value - 1, a.Value, a.Value + 1, a.ValueTwo, ^a.Value, a.Value << 32, a.Value | 1<<63} {
				var args [6]uint64
				args[a.Index] = v
				list = append(list, args)
			}
		}
	}
	return list
}

// TestDefaultProfileAnswersAsMobySays compares every call of every ABI, with
// arguments at the edges of the conditions, under several sets of capabilities.
func TestDefaultProfileAnswersAsMobySays(t *testing.T) {
	if goruntime.GOARCH != "amd64" {
		t.Skip("needs x86-64")
	}
	for _, caps := range [][]string{nil, {"CAP_SYS_ADMIN"}, {"CAP_SYS_PTRACE", "CAP_SYS_CHROOT", "CAP_BPF"}, {"CAP_SYSLOG", "CAP_SYS_TIME", "CAP_SYS_NICE"}} {
		spec := &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps}}, Linux: &specs.Linux{}}
		profile, err := seccomp.GetDefaultProfile(spec)
		must(t, err)
		p, err := compileSeccomp(profile)
		must(t, err)
		vm := machine(t, p)
		all := probes(profile)
		for _, a := range nativeABIs(profile.Architectures) {
			for _, table := range a.tables {
				highest := uint32(0)
				for _, c := range table.calls {
					if _, listed := expected(profile, c.name, [6]uint64{}); listed {
						highest = max(highest, c.nr)
					}
				}
				for _, c := range table.calls {
					for _, args := range all {
						want, _ := expected(profile, c.name, args)
						if c.nr > highest {
							want = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
						}
						if got := verdict(t, vm, syscallData{c.nr + table.base, a.audit, args}); got != want {
							t.Fatalf("%v %s(%x) with %v: %#x, want %#x", a.name, c.name, args, caps, got, want)
						}
					}
				}
			}
		}
	}
}

// TestDefaultProfileDenies names calls by which containers were left; docker's
// documentation lists them.
func TestDefaultProfileDenies(t *testing.T) {
	if goruntime.GOARCH != "amd64" {
		t.Skip("needs x86-64")
	}
	profile, err := seccomp.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{}}, Linux: &specs.Linux{}})
	must(t, err)
	p, err := compileSeccomp(profile)
	must(t, err)
	vm := machine(t, p)
	denied := []string{"add_key", "keyctl", "request_key", "bpf", "clone3", "init_module", "kexec_load", "mount", "move_mount", "fsopen", "open_tree",
		"open_by_handle_at", "perf_event_open", "pivot_root", "reboot", "setns", "umount2", "unshare", "userfaultfd", "io_uring_setup", "swapon"}
	for _, c := range callsX86_64 {
		got := verdict(t, vm, syscallData{nr: c.nr, arch: unix.AUDIT_ARCH_X86_64})
		if allowed := got == unix.SECCOMP_RET_ALLOW; allowed && slices.Contains(denied, c.name) {
			t.Errorf("%s is allowed", c.name)
		}
	}
	const newUser = unix.CLONE_NEWUSER | 17
	if got := verdict(t, vm, syscallData{nr: unix.SYS_CLONE, arch: unix.AUDIT_ARCH_X86_64, args: [6]uint64{newUser}}); got == unix.SECCOMP_RET_ALLOW {
		t.Error("clone(CLONE_NEWUSER) is allowed")
	}
	if got := verdict(t, vm, syscallData{nr: 0, arch: unix.AUDIT_ARCH_ARM}); got != unix.SECCOMP_RET_KILL_PROCESS {
		t.Errorf("a call of another machine: %#x, want the end of the process", got)
	}
}

// FuzzSeccomp compiles what a profile's author may write: an error, or a filter
// that the kernel takes and that answers as the specification says.
func FuzzSeccomp(f *testing.F) {
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read","kill"],"action":"SCMP_ACT_ALLOW"}]}`), uint32(0), uint64(0), uint64(0))
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["clone"],"action":"SCMP_ACT_ERRNO","args":[{"index":0,"value":2114060288,"valueTwo":0,"op":"SCMP_CMP_MASKED_EQ"}]}]}`), uint32(56), uint64(0x10000000), uint64(1))
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_LOG","syscalls":[{"names":["write"],"action":"SCMP_ACT_TRAP","args":[{"index":0,"value":4294967296,"op":"SCMP_CMP_LT"},{"index":1,"value":7,"op":"SCMP_CMP_GE"}]}]}`), uint32(1), uint64(1<<32), uint64(7))
	f.Fuzz(func(t *testing.T, data []byte, nr uint32, a0, a1 uint64) {
		if goruntime.GOARCH != "amd64" {
			t.Skip("needs x86-64")
		}
		s := new(specs.LinuxSeccomp)
		if json.Unmarshal(data, s) != nil {
			return
		}
		p, err := compileSeccomp(s)
		if err != nil {
			return
		}
		vm := machine(t, p)
		c := callsX86_64[nr%uint32(len(callsX86_64))]
		args := [6]uint64{a0, a1}
		want, listed := expected(s, c.name, args)
		got := verdict(t, vm, syscallData{c.nr, unix.AUDIT_ARCH_X86_64, args})
		if listed && got != want {
			t.Errorf("%s(%x, %x) = %#x, want %#x under %s", c.name, a0, a1, got, want, data)
		}
	})
}

func TestAllowsIsUnconditional(t *testing.T) {
	arg := []specs.LinuxSeccompArg{{Index: 0, Op: specs.OpEqualTo}}
	for want, s := range map[bool][]specs.LinuxSeccomp{
		true: {
			{DefaultAction: specs.ActAllow},
			{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{Names: []string{"write", "read"}, Action: specs.ActAllow}}},
		},
		false: {
			{DefaultAction: specs.ActErrno},
			{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActErrno}}},
			{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActAllow, Args: arg}}},
			{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActAllow}, {Names: []string{"read"}, Action: specs.ActErrno, Args: arg}}},
		},
	} {
		for i := range s {
			if got := allows(&s[i], "read"); got != want {
				t.Errorf("allows(%+v, read) = %v, want %v", s[i], got, want)
			}
		}
	}
}

func BenchmarkCompileDefaultProfile(b *testing.B) {
	profile, err := seccomp.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{}}, Linux: &specs.Linux{}})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := compileSeccomp(profile); err != nil {
			b.Fatal(err)
		}
	}
}

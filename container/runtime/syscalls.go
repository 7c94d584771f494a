package runtime

import (
	goruntime "runtime"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

//go:generate go run syscalls_gen.go

// call is one system call of an ABI.
type call struct {
	name string
	nr   uint32
}

// callTable is a set of calls whose numbers count from base.
type callTable struct {
	base  uint32
	calls []call
}

// abi is what the kernel tells apart by seccomp_data.arch: x86_64 and x32 are
// one, told apart by a bit of the number.
type abi struct {
	name   specs.Arch
	audit  uint32 // AUDIT_ARCH_*
	tables []callTable
}

const x32Bit = 0x40000000

// nativeABIs are those in which a process of this machine can make calls, of
// those that the profile names; the machine's own is always among them.
func nativeABIs(wanted []specs.Arch) []abi {
	var all []abi
	switch goruntime.GOARCH {
	case "amd64":
		tables := []callTable{{0, callsX86_64[:]}}
		if slices.Contains(wanted, specs.ArchX32) {
			tables = append(tables, callTable{x32Bit, callsX32[:]})
		}
		all = []abi{{specs.ArchX86_64, unix.AUDIT_ARCH_X86_64, tables}, {specs.ArchX86, unix.AUDIT_ARCH_I386, []callTable{{0, callsI386[:]}}}}
	case "arm64":
		all = []abi{{specs.ArchAARCH64, unix.AUDIT_ARCH_AARCH64, []callTable{{0, callsARM64[:]}}}, {specs.ArchARM, unix.AUDIT_ARCH_ARM, []callTable{{0, callsARM[:]}}}}
	}
	return slices.DeleteFunc(all, func(a abi) bool { return a.name != all[0].name && !slices.Contains(wanted, a.name) })
}

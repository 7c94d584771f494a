package runtime

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// setup is the parent's first message: what init can begin with while the parent
// makes its cgroup.
type setup struct {
	Spec         *specs.Spec  `json:"spec"`
	Rootfs       string       `json:"rootfs"`
	State        *specs.State `json:"state"`
	NoPivot      bool         `json:"noPivot,omitempty"`
	NoNewKeyring bool         `json:"noNewKeyring,omitempty"`
	// WaitHooks makes init stop before pivot_root for hooks of the parent.
	WaitHooks bool `json:"waitHooks,omitempty"`
	// Listen says that the descriptor after the connection's is a listening
	// socket, at which another process will say start.
	Listen   bool `json:"listen,omitempty"`
	Rootless bool `json:"rootless,omitempty"`
	// Root says that the root file system comes with this message as a detached
	// mount, Sources which entries of the spec's mounts do; see openSources.
	Root    bool  `json:"root,omitempty"`
	Sources []int `json:"sources,omitempty"`
}

// entry is the second message: the cgroup is there. With it come the files of
// group.joinFiles.
type entry struct {
	CgroupPaths map[string]string `json:"cgroupPaths,omitempty"`
	// Filter is the compiled seccomp program, one sock_filter after the other.
	Filter []byte `json:"filter,omitempty"`
	// FilterFlags are those of seccomp(2).
	FilterFlags uint `json:"filterFlags,omitempty"`
}

// order is what the parent sends later: go on, or start the program.
type order struct {
	Start bool `json:"start,omitempty"`
}

// answer is what init sends: that it has come to a point, or why it has not.
type answer struct {
	Name    string      `json:"name,omitempty"`
	Failure *StartError `json:"failure,omitempty"`
	// Warnings come with "ready".
	Warnings []string `json:"warnings,omitempty"`
}

func newSetup(spec *specs.Spec, rec *record, o CreateOptions) *setup {
	m := &setup{Rootfs: rec.Rootfs, NoPivot: o.NoPivot, NoNewKeyring: o.NoNewKeyring,
		Listen: o.Detached, Rootless: rec.Rootless, State: rec.state(specs.StateCreating, 0)}
	// The profile goes over as the program that it compiles to.
	copied, linux := *spec, *spec.Linux
	linux.Seccomp, copied.Linux = nil, &linux
	m.Spec = &copied
	if h := spec.Hooks; h != nil {
		m.WaitHooks = len(h.Prestart) > 0 || len(h.CreateRuntime) > 0
	}
	return m
}

func newEntry(spec *specs.Spec, rec *record) (*entry, error) {
	e := &entry{CgroupPaths: rec.CgroupPaths}
	if spec.Linux.Seccomp != nil {
		program, err := compileSeccomp(spec.Linux.Seccomp)
		if err != nil {
			return nil, err
		}
		e.Filter, e.FilterFlags = program.bytes(), program.flags
	}
	return e, nil
}

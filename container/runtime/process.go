package runtime

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// limits sets what a process hands on to its children, while this one still may.
func (p *initProcess) limits() error {
	proc := p.Spec.Process
	if proc == nil {
		return nil
	}
	if err := p.setRlimits(0, proc.Rlimits); err != nil {
		return err
	}
	if err := p.fewFiles(); err != nil {
		return err
	}
	if err := setScheduler(proc); err != nil {
		return err
	}
	if err := labelExec(proc); err != nil {
		return err
	}
	if m := p.Spec.Linux.MemoryPolicy; m != nil {
		if err := setMemoryPolicy(m); err != nil {
			return err
		}
	}
	if per := p.Spec.Linux.Personality; per != nil {
		return setPersonality(per)
	}
	return nil
}

// labelExec sets the AppArmor profile and the SELinux label that this thread, or
// a child that it forks, gets with its next execve. The files are named without
// links, so that writeProc takes no other for them.
func labelExec(proc *specs.Process) error {
	dir := fmt.Sprintf("/proc/%d/task/%d/attr/", os.Getpid(), unix.Gettid())
	if proc.ApparmorProfile != "" {
		if err := writeProc(dir+"apparmor/exec", "exec "+proc.ApparmorProfile); err != nil {
			return fmt.Errorf("apparmor profile %s: %w", proc.ApparmorProfile, err)
		}
	}
	if proc.SelinuxLabel != "" {
		if err := writeProc(dir+"exec", proc.SelinuxLabel); err != nil {
			return fmt.Errorf("selinux label %s: %w", proc.SelinuxLabel, err)
		}
	}
	return nil
}

var rlimits = map[string]int{
	"RLIMIT_AS": unix.RLIMIT_AS, "RLIMIT_CORE": unix.RLIMIT_CORE, "RLIMIT_CPU": unix.RLIMIT_CPU,
	"RLIMIT_DATA": unix.RLIMIT_DATA, "RLIMIT_FSIZE": unix.RLIMIT_FSIZE, "RLIMIT_LOCKS": unix.RLIMIT_LOCKS,
	"RLIMIT_MEMLOCK": unix.RLIMIT_MEMLOCK, "RLIMIT_MSGQUEUE": unix.RLIMIT_MSGQUEUE, "RLIMIT_NICE": unix.RLIMIT_NICE,
	"RLIMIT_NOFILE": unix.RLIMIT_NOFILE, "RLIMIT_NPROC": unix.RLIMIT_NPROC, "RLIMIT_RSS": unix.RLIMIT_RSS,
	"RLIMIT_RTPRIO": unix.RLIMIT_RTPRIO, "RLIMIT_RTTIME": unix.RLIMIT_RTTIME,
	"RLIMIT_SIGPENDING": unix.RLIMIT_SIGPENDING, "RLIMIT_STACK": unix.RLIMIT_STACK,
}

// setRlimits sets those of process pid, 0 being this one.
func (p *initProcess) setRlimits(pid int, limits []specs.POSIXRlimit) error {
	if err := checkRlimits(limits); err != nil {
		return err
	}
	for _, l := range limits {
		// Prlimit, because package syscall's Setrlimit would also change what Go
		// restores at execve.
		which := rlimits[l.Type]
		err := unix.Prlimit(pid, which, &unix.Rlimit{Cur: l.Soft, Max: l.Hard}, nil)
		if errors.Is(err, unix.EPERM) {
			err = p.lowerRlimit(pid, l)
		}
		if err != nil {
			return fmt.Errorf("rlimit %s: %w", l.Type, err)
		}
	}
	return nil
}

// fewFiles refuses a limit under which accept gets no descriptor, not even the number
// that the parent's connection had: nobody would be there any more to be told.
func (p *initProcess) fewFiles() error {
	var now unix.Rlimit
	if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, nil, &now); err != nil {
		return os.NewSyscallError("prlimit", err)
	}
	if p.Listen && now.Cur <= uint64(p.connFd) {
		return fmt.Errorf("rlimit RLIMIT_NOFILE: %d is too few: the container's first process needs %d to wait for its start", now.Cur, p.connFd+1)
	}
	return nil
}

func checkRlimits(limits []specs.POSIXRlimit) error {
	seen := map[string]bool{}
	for _, l := range limits {
		if _, ok := rlimits[l.Type]; !ok {
			return fmt.Errorf("rlimit %q: no such limit", l.Type)
		}
		if seen[l.Type] {
			return fmt.Errorf("rlimit %q: given twice", l.Type)
		}
		seen[l.Type] = true
	}
	return nil
}

// lowerRlimit gives what this host lets us give, where raising the hard limit
// needs a CAP_SYS_RESOURCE that kist does not have, and says so.
func (p *initProcess) lowerRlimit(pid int, l specs.POSIXRlimit) error {
	now, err := grantable(l)
	if err != nil {
		return err
	}
	p.warnings = append(p.warnings, fmt.Sprintf("%s stays at %d: raising it to %d needs CAP_SYS_RESOURCE", l.Type, now.Max, l.Hard))
	return unix.Prlimit(pid, rlimits[l.Type], &now, nil)
}

// grantable is l cut to the hard limit of this process.
func grantable(l specs.POSIXRlimit) (unix.Rlimit, error) {
	var now unix.Rlimit
	err := unix.Prlimit(0, rlimits[l.Type], nil, &now)
	return unix.Rlimit{Cur: min(l.Soft, now.Max), Max: min(l.Hard, now.Max)}, err
}

// oomScore sets it from outside, where /proc is the host's own; see
// proc_pid_oom_score_adj(5). Lowering it needs the host's root.
func (r *Runtime) oomScore(pid int, proc *specs.Process) error {
	if proc == nil || proc.OOMScoreAdj == nil {
		return nil
	}
	err := os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte(strconv.Itoa(*proc.OOMScoreAdj)), 0)
	if err == nil || r.Rootless && errors.Is(err, os.ErrPermission) {
		return nil
	}
	return fmt.Errorf("oom_score_adj %d: %w", *proc.OOMScoreAdj, err)
}

// ownOOMScore is that of this process.
func ownOOMScore() int {
	data, _ := os.ReadFile("/proc/self/oom_score_adj")
	n, _ := strconv.Atoi(strings.TrimSpace(string(data)))
	return n
}

var policies = map[specs.LinuxSchedulerPolicy]uint32{
	specs.SchedOther: unix.SCHED_NORMAL, specs.SchedFIFO: unix.SCHED_FIFO, specs.SchedRR: unix.SCHED_RR,
	specs.SchedBatch: unix.SCHED_BATCH, specs.SchedIdle: unix.SCHED_IDLE, specs.SchedDeadline: unix.SCHED_DEADLINE,
}

var ioClasses = map[specs.IOPriorityClass]int{specs.IOPRIO_CLASS_RT: 1, specs.IOPRIO_CLASS_BE: 2, specs.IOPRIO_CLASS_IDLE: 3}

func setScheduler(proc *specs.Process) error {
	if s := proc.Scheduler; s != nil {
		policy, ok := policies[s.Policy]
		if !ok {
			return fmt.Errorf("scheduler policy %q: unknown", s.Policy)
		}
		attr := &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: policy, Nice: s.Nice, Priority: uint32(s.Priority),
			Runtime: s.Runtime, Deadline: s.Deadline, Period: s.Period}
		if err := unix.SchedSetAttr(0, attr, 0); err != nil {
			return os.NewSyscallError("sched_setattr", err)
		}
	}
	if io := proc.IOPriority; io != nil {
		class, ok := ioClasses[io.Class]
		if !ok {
			return fmt.Errorf("io priority class %q: unknown", io.Class)
		}
		const whoProcess, classShift = 1, 13
		if _, _, e := unix.Syscall(unix.SYS_IOPRIO_SET, whoProcess, 0, uintptr(class<<classShift|io.Priority)); e != 0 {
			return os.NewSyscallError("ioprio_set", e)
		}
	}
	return nil
}

// cpuSet reads a list like 0-3,7; see "List format" in cpuset(7).
func cpuSet(list string) (*unix.CPUSet, error) {
	set := new(unix.CPUSet)
	for _, part := range strings.Split(list, ",") {
		from, to, isRange := strings.Cut(strings.TrimSpace(part), "-")
		first, err := strconv.ParseUint(from, 10, 10)
		last := first
		if err == nil && isRange {
			last, err = strconv.ParseUint(to, 10, 10)
		}
		if err != nil || last < first {
			return nil, fmt.Errorf("CPU list %q: want numbers and ranges like 0-3,7", list)
		}
		for n := first; n <= last; n++ {
			set.Set(int(n))
		}
	}
	return set, nil
}

// Modes and flags of set_mempolicy(2).
var (
	memoryModes = map[specs.MemoryPolicyModeType]uintptr{
		specs.MpolDefault: 0, specs.MpolPreferred: 1, specs.MpolBind: 2, specs.MpolInterleave: 3,
		specs.MpolLocal: 4, specs.MpolPreferredMany: 5, specs.MpolWeightedInterleave: 6,
	}
	memoryFlags = map[specs.MemoryPolicyFlagType]uintptr{
		specs.MpolFNumaBalancing: 1 << 13, specs.MpolFRelativeNodes: 1 << 14, specs.MpolFStaticNodes: 1 << 15,
	}
)

func setMemoryPolicy(m *specs.LinuxMemoryPolicy) error {
	mode, ok := memoryModes[m.Mode]
	if !ok {
		return fmt.Errorf("memory policy %q: unknown", m.Mode)
	}
	for _, f := range m.Flags {
		bit, ok := memoryFlags[f]
		if !ok {
			return fmt.Errorf("memory policy flag %q: unknown", f)
		}
		mode |= bit
	}
	nodes := new(unix.CPUSet) // a bit for each node, as for each CPU
	if m.Nodes != "" {
		var err error
		if nodes, err = cpuSet(m.Nodes); err != nil {
			return err
		}
	}
	_, _, e := unix.Syscall(unix.SYS_SET_MEMPOLICY, mode, uintptr(unsafe.Pointer(nodes)), 8*unsafe.Sizeof(*nodes))
	if e != 0 {
		return os.NewSyscallError("set_mempolicy", e)
	}
	return nil
}

func setPersonality(per *specs.LinuxPersonality) error {
	domains := map[specs.LinuxPersonalityDomain]uintptr{specs.PerLinux: 0, specs.PerLinux32: 8}
	domain, ok := domains[per.Domain]
	if !ok || len(per.Flags) > 0 {
		return fmt.Errorf("personality %q %v: unknown", per.Domain, per.Flags)
	}
	_, _, e := unix.RawSyscall(unix.SYS_PERSONALITY, domain, 0, 0)
	if e != 0 {
		return os.NewSyscallError("personality", e)
	}
	return nil
}

// writeProc writes below /proc, and makes sure that it is a proc and that no
// link or other mount stands in the way.
func writeProc(file, value string) error {
	fd, err := unix.Openat2(unix.AT_FDCWD, file, &unix.OpenHow{
		Flags: unix.O_WRONLY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), file)
	defer f.Close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return err
	}
	if st.Type != unix.PROC_SUPER_MAGIC {
		return errors.New("/proc is not a proc file system")
	}
	_, err = f.WriteString(value)
	return err
}

// becomeUser gives up ids and capabilities, in the order in which each still may.
func becomeUser(proc *specs.Process) error {
	caps, err := capabilitySets(proc.Capabilities)
	if err != nil {
		return err
	}
	if err := dropBounding(caps.bounding); err != nil {
		return err
	}
	if proc.User.Umask != nil {
		unix.Umask(int(*proc.User.Umask))
	} else {
		unix.Umask(0o022)
	}
	// Keep the capabilities over setresuid; capset then takes what is not wanted.
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("keep capabilities", err)
	}
	if err := setIDs(&proc.User); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 0, 0, 0, 0); err != nil {
		return os.NewSyscallError("keep capabilities", err)
	}
	return caps.apply()
}

// setIDs changes this thread only; execve makes it the process.
func setIDs(u *specs.User) error {
	if err := setgroups(u.AdditionalGids); err != nil {
		return err
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(u.GID), uintptr(u.GID), uintptr(u.GID)); e != 0 {
		return fmt.Errorf("become group %d: %w (is it mapped into the container?)", u.GID, e)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(u.UID), uintptr(u.UID), uintptr(u.UID)); e != 0 {
		return fmt.Errorf("become user %d: %w (is it mapped into the container?)", u.UID, e)
	}
	return nil
}

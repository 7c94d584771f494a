package container

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/profiles/seccomp"
	moby "github.com/moby/sys/capability"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/container/monitor"
	"github.com/kist-containers/kist/internal/rootless"
)

// defaultCaps are docker's fourteen.
var defaultCaps = [...]string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
	"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

// maskedPaths and readonlyPaths are docker's.
var (
	maskedPaths = [...]string{
		"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
		"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
	}
	readonlyPaths = [...]string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

const defaultShm = 64 << 20

// specMaker builds the bundle's config.json of one start.
type specMaker struct {
	e    *Engine
	c    *Config
	root *os.File // the root file system
	// netns is the sandbox's path, "" where the runtime makes one.
	netns string
	// files are what is shown as /etc/hosts and the like: path to host file.
	files map[string]string
	// mounts are the user's.
	mounts []specs.Mount
	// env are variables of this start, beside the configuration's.
	env []string
	// secrets are what the monitor copies to its tmpfs.
	secrets []monitor.SecretFile
	// images are what the monitor mounts for some of them.
	images []monitor.ImageMount
}

func (m *specMaker) make() (*specs.Spec, error) {
	s := &specs.Spec{
		Version:     m.version(),
		Root:        &specs.Root{Path: "rootfs", Readonly: m.c.Security.ReadOnly},
		Linux:       &specs.Linux{},
		Annotations: m.c.Annotations,
	}
	for _, part := range []func(*specs.Spec) error{
		m.process, m.namespaces, m.mountList, m.paths, m.resources, m.devices, m.cdi, m.limits, m.seccomp,
	} {
		if err := part(s); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// version is the specification's: for another runtime the oldest, because crun
// before 1.9 takes no later one. What later ones added is ignored, not refused.
func (m *specMaker) version() string {
	if m.c.Runtime != "" {
		return "1.0.2"
	}
	return specs.Version
}

func (m *specMaker) process(s *specs.Spec) error {
	c := m.c
	user, home, err := m.e.user(m.root, c.User, c.GroupAdd)
	if err != nil {
		return err
	}
	caps, err := m.capabilities()
	if err != nil {
		return err
	}
	env, err := m.secretEnv()
	if err != nil {
		return err
	}
	user.Umask = c.Umask
	s.Process = &specs.Process{
		Terminal: c.Tty, User: user, Args: c.Args(), Cwd: path.Clean("/" + c.WorkingDir),
		Env:          mergeEnv(m.environment(home), append(env, m.env...)),
		Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
		// docker: a user other than root has none after the exec.
		NoNewPrivileges: c.Security.NoNewPrivs,
		ApparmorProfile: m.apparmor(),
		SelinuxLabel:    c.Security.selinux(),
	}
	if user.UID != 0 {
		s.Process.Capabilities.Effective, s.Process.Capabilities.Permitted = nil, nil
	}
	if c.Personality != "" {
		s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.LinuxPersonalityDomain(c.Personality)}
	}
	if c.Init {
		s.Process.Args = append([]string{initPath, "--"}, s.Process.Args...)
		s.Process.Args[0] = initPath
	}
	if c.Limits.OomScoreAdj != 0 {
		s.Process.OOMScoreAdj = &c.Limits.OomScoreAdj
	}
	return nil
}

// environment is docker's order: PATH, HOSTNAME, TERM, the container's, HOME.
func (m *specMaker) environment(home string) []string {
	env := []string{defaultPath}
	if m.c.Hostname != "" {
		env = append(env, "HOSTNAME="+m.c.Hostname)
	}
	if m.c.Tty {
		env = append(env, "TERM=xterm")
	}
	env = mergeEnv(env, m.c.Env)
	if !slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, "HOME=") }) {
		env = append(env, "HOME="+home)
	}
	return env
}

func (m *specMaker) apparmor() string {
	if a := m.c.Security.AppArmor; a != "unconfined" {
		return a
	}
	return ""
}

// capability is the kernel's name of docker's CHOWN, cap_chown or CAP_CHOWN.
func capability(name string) (string, error) {
	up := strings.ToUpper(name)
	if up == "ALL" {
		return up, nil
	}
	up = "CAP_" + strings.TrimPrefix(up, "CAP_")
	if slices.Contains(allCapabilities(), up) {
		return up, nil
	}
	return "", fmt.Errorf("capability %s: no such capability", name)
}

func allCapabilities() []string {
	var names []string
	for _, c := range moby.ListKnown() {
		names = append(names, "CAP_"+strings.ToUpper(c.String()))
	}
	return names
}

// ownCapabilities are those that kist may give: its own bounding set.
func ownCapabilities() []string {
	var names []string
	for _, c := range moby.ListKnown() {
		if v, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0); err == nil && v == 1 {
			names = append(names, "CAP_"+strings.ToUpper(c.String()))
		}
	}
	return names
}

// capabilities applies --cap-add and --cap-drop to the default set: with ALL
// dropped the added ones remain, with ALL added the dropped ones go.
func (m *specMaker) capabilities() ([]string, error) {
	sec := &m.c.Security
	base := slices.Clone(defaultCaps[:])
	if sec.Privileged {
		return ownCapabilities(), nil
	}
	add, err := capabilityNames(sec.CapAdd)
	if err != nil {
		return nil, err
	}
	drop, err := capabilityNames(sec.CapDrop)
	if err != nil {
		return nil, err
	}
	switch {
	case slices.Contains(add, "ALL"):
		base = ownCapabilities()
	case slices.Contains(drop, "ALL"):
		return slices.DeleteFunc(add, func(c string) bool { return c == "ALL" }), nil
	}
	base = slices.DeleteFunc(base, func(c string) bool { return slices.Contains(drop, c) })
	for _, c := range add {
		if c != "ALL" && !slices.Contains(base, c) {
			base = append(base, c)
		}
	}
	return base, nil
}

func capabilityNames(list []string) ([]string, error) {
	var names []string
	for _, name := range list {
		n, err := capability(name)
		if err != nil {
			return nil, err
		}
		names = append(names, n)
	}
	return names, nil
}

// namespaces follow docker's modes.
func (m *specMaker) namespaces(s *specs.Spec) error {
	c := m.c
	add := func(kind specs.LinuxNamespaceType, path string) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: kind, Path: path})
	}
	add(specs.MountNamespace, "")
	if c.Network.Mode != "host" {
		add(specs.NetworkNamespace, m.netns)
	}
	uts, cgroup := c.Spaces.UTS, c.Spaces.Cgroup
	if uts == "" && c.Network.Mode == "host" {
		uts = "host"
	}
	if cgroup == "" && !m.privateCgroups() {
		cgroup = "host"
	}
	for _, x := range []struct {
		mode, flag string
		kind       specs.LinuxNamespaceType
		file       string
	}{
		{c.Spaces.IPC, "ipc", specs.IPCNamespace, "ipc"}, {c.Spaces.PID, "pid", specs.PIDNamespace, "pid"},
		{uts, "uts", specs.UTSNamespace, "uts"}, {cgroup, "cgroupns", specs.CgroupNamespace, "cgroup"},
	} {
		path, private, err := m.space(x.mode, x.flag, x.file)
		if err != nil {
			return err
		}
		if private || path != "" {
			add(x.kind, path)
		}
		if private && x.kind == specs.UTSNamespace {
			s.Hostname, s.Domainname = c.Hostname, c.Domainname
		}
	}
	return m.userNamespace(s)
}

// privateCgroups: docker's default is host on v1 and private on v2. The private
// one hides the host's paths on both, so it is kist's unless the container is
// privileged.
func (m *specMaker) privateCgroups() bool {
	return !m.c.Security.Privileged
}

// space resolves a mode to a path to join: container:ID, or ns:PATH.
func (m *specMaker) space(mode, flag, file string) (path string, private bool, err error) {
	if path, ok := strings.CutPrefix(mode, "ns:"); ok {
		if _, err := os.Stat(path); err != nil {
			return "", false, fmt.Errorf("--%s %s: %w", flag, mode, errors.Unwrap(err))
		}
		return path, false, nil
	}
	other, joined := strings.CutPrefix(mode, "container:")
	if !joined {
		return "", mode != "host", nil
	}
	c, err := m.e.Lookup(other)
	if err != nil {
		return "", false, fmt.Errorf("--%s %s: %w", flag, mode, err)
	}
	st := m.e.Status(c.ID)
	if !st.Live() {
		return "", false, fmt.Errorf("--%s container:%s: %w", flag, c.Name, ErrNotRunning)
	}
	return fmt.Sprintf("/proc/%d/ns/%s", st.Pid, file), false, nil
}

func (m *specMaker) mountList(s *specs.Spec) error {
	plain := []string{"nosuid", "noexec", "nodev"}
	sysfs := append(slices.Clone(plain), "ro")
	if m.c.Security.Privileged {
		sysfs = plain
	}
	shm := m.c.Limits.ShmSize
	if shm == 0 {
		shm = defaultShm
	}
	cgroup := sysfs
	if m.c.Security.WritableCgroups {
		cgroup = plain
	}
	s.Mounts = []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: slices.Concat(plain, m.c.Security.ProcOptions)},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: m.devpts()},
		m.sysfs(sysfs),
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: cgroup},
	}
	s.Mounts = append(s.Mounts, m.ipcMounts(plain, shm)...)
	for _, dest := range slices.Sorted(maps.Keys(m.files)) {
		s.Mounts = append(s.Mounts, bindFile(m.files[dest], dest))
		for _, dir := range m.c.ChrootDirs {
			s.Mounts = append(s.Mounts, bindFile(m.files[dest], path.Join(dir, dest)))
		}
	}
	// A user's mount on one of these paths stands for it.
	s.Mounts = slices.DeleteFunc(s.Mounts, func(x specs.Mount) bool {
		return slices.ContainsFunc(m.mounts, func(u specs.Mount) bool { return u.Destination == x.Destination })
	})
	s.Mounts = append(s.Mounts, m.mounts...)
	if m.c.Init {
		binary, err := m.initBinary()
		if err != nil {
			return err
		}
		s.Mounts = append(s.Mounts, specs.Mount{Destination: initPath, Type: "bind", Source: binary, Options: []string{"bind", "ro", "nosuid", "nodev"}})
	}
	return nil
}

// bindFile shows a file that kist made.
func bindFile(from, at string) specs.Mount {
	return specs.Mount{Destination: at, Type: "bind", Source: from, Options: []string{"rbind", "rprivate"}}
}

// initBinary is what --init runs, by its path on the host: the /proc/self/exe of
// the process that mounts it is a copy that cannot be mounted, or another
// runtime's program.
func (m *specMaker) initBinary() (string, error) {
	if m.c.InitPath != "" {
		return m.c.InitPath, nil
	}
	path, err := os.Readlink("/proc/self/exe")
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		return "", fmt.Errorf("--init: kist's own binary: %w", err)
	}
	return path, nil
}

// sysfs cannot be mounted anew by a user namespace that shares the host's
// network: there the host's is shown.
func (m *specMaker) sysfs(options []string) specs.Mount {
	if m.e.Rootless && m.c.Network.Mode == "host" {
		return specs.Mount{Destination: "/sys", Type: "bind", Source: "/sys", Options: append([]string{"rbind", "rro"}, options...)}
	}
	return specs.Mount{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: options}
}

func (m *specMaker) devpts() []string {
	o := []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}
	if m.e.Rootless && !rootless.MapsGID(5) {
		return o
	}
	return append(o, "gid=5")
}

// ipcMounts are those that belong to the IPC namespace.
func (m *specMaker) ipcMounts(plain []string, shm int64) []specs.Mount {
	mode := m.c.Spaces.IPC
	if mode == "host" {
		return []specs.Mount{
			{Destination: "/dev/mqueue", Type: "bind", Source: "/dev/mqueue", Options: []string{"rbind", "rprivate"}},
			{Destination: "/dev/shm", Type: "bind", Source: "/dev/shm", Options: []string{"rbind", "rprivate"}},
		}
	}
	mounts := []specs.Mount{{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: plain}}
	if other, joined := strings.CutPrefix(mode, "container:"); joined {
		if c, err := m.e.Lookup(other); err == nil {
			src := fmt.Sprintf("/proc/%d/root/dev/shm", m.e.Status(c.ID).Pid)
			return append(mounts, specs.Mount{Destination: "/dev/shm", Type: "bind", Source: src, Options: []string{"bind", "rprivate"}})
		}
	}
	if mode == "none" {
		return mounts
	}
	return append(mounts, specs.Mount{Destination: "/dev/shm", Type: "tmpfs", Source: "shm",
		Options: append(slices.Clone(plain), "mode=1777", "size="+strconv.FormatInt(shm, 10))})
}

func (m *specMaker) paths(s *specs.Spec) error {
	sec := &m.c.Security
	if sec.Privileged || sec.Unmasked {
		return nil
	}
	hidden := func(path string) bool {
		return !slices.ContainsFunc(sec.Unmask, func(p string) bool {
			ok, _ := filepath.Match(p, path)
			return ok || p == "ALL"
		})
	}
	for _, p := range maskedPaths {
		if hidden(p) {
			s.Linux.MaskedPaths = append(s.Linux.MaskedPaths, p)
		}
	}
	for _, p := range readonlyPaths {
		if hidden(p) {
			s.Linux.ReadonlyPaths = append(s.Linux.ReadonlyPaths, p)
		}
	}
	s.Linux.MaskedPaths = append(s.Linux.MaskedPaths, sec.Mask...)
	return nil
}

// cgroupPath is where the container's cgroup is.
func (m *specMaker) cgroupPath() string {
	parent := m.c.Limits.CgroupParent
	if parent == "" {
		parent = m.e.CgroupParent
	}
	return filepath.Join("/", parent, m.c.ID)
}

func (m *specMaker) resources(s *specs.Spec) error {
	s.Linux.CgroupsPath = m.cgroupPath()
	r, err := m.c.Limits.resources()
	if err != nil {
		return err
	}
	s.Linux.Resources = r
	return nil
}

// ptr is nil for zero: "not given".
func ptr[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}

func (l *Limits) resources() (*specs.LinuxResources, error) {
	r := &specs.LinuxResources{}
	if l.Memory != 0 || l.MemoryReservation != 0 || l.MemorySwap != 0 || l.MemorySwappiness != nil || l.OomKillDisable {
		swap := l.MemorySwap
		if swap == 0 && l.Memory > 0 {
			swap = 2 * l.Memory // docker's default
			if !hasSwapControl() {
				swap = 0
			}
		}
		r.Memory = &specs.LinuxMemory{Limit: ptr(l.Memory), Reservation: ptr(l.MemoryReservation), Swap: ptr(swap), DisableOOMKiller: ptr(l.OomKillDisable)}
		if l.MemorySwappiness != nil && *l.MemorySwappiness >= 0 {
			n := uint64(*l.MemorySwappiness)
			r.Memory.Swappiness = &n
		}
	}
	cpu := &specs.LinuxCPU{Shares: ptr(uint64(l.CPUShares)), Quota: ptr(l.CPUQuota), Period: ptr(uint64(l.CPUPeriod)),
		RealtimePeriod: ptr(uint64(l.CPURtPeriod)), RealtimeRuntime: ptr(l.CPURtRuntime), Cpus: l.CpusetCpus, Mems: l.CpusetMems}
	if l.NanoCPUs > 0 {
		const period = 100000
		cpu.Period, cpu.Quota = ptr(uint64(period)), ptr(l.NanoCPUs*period/1e9)
	}
	if *cpu != (specs.LinuxCPU{}) {
		r.CPU = cpu
	}
	if l.PidsLimit != 0 {
		n := l.PidsLimit
		r.Pids = &specs.LinuxPids{Limit: &n}
	}
	r.Unified = l.Unified
	return r, l.blockIO(r)
}

func (l *Limits) blockIO(r *specs.LinuxResources) error {
	b := &specs.LinuxBlockIO{Weight: ptr(l.BlkioWeight)}
	for _, s := range l.BlkioWeightDevice {
		d, n, err := deviceRate(s)
		if err != nil {
			return fmt.Errorf("--blkio-weight-device %s: %w", s, err)
		}
		w := specs.LinuxWeightDevice{Weight: ptr(uint16(n))}
		w.Major, w.Minor = d.Major, d.Minor
		b.WeightDevice = append(b.WeightDevice, w)
	}
	for _, x := range []struct {
		flag string
		list []string
		dst  *[]specs.LinuxThrottleDevice
	}{
		{"read-bps", l.ReadBps, &b.ThrottleReadBpsDevice}, {"write-bps", l.WriteBps, &b.ThrottleWriteBpsDevice},
		{"read-iops", l.ReadIOps, &b.ThrottleReadIOPSDevice}, {"write-iops", l.WriteIOps, &b.ThrottleWriteIOPSDevice},
	} {
		for _, s := range x.list {
			d, n, err := deviceRate(s)
			if err != nil {
				return fmt.Errorf("--device-%s %s: %w", x.flag, s, err)
			}
			d.Rate = n
			*x.dst = append(*x.dst, d)
		}
	}
	if b.Weight != nil || len(b.WeightDevice)+len(b.ThrottleReadBpsDevice)+len(b.ThrottleWriteBpsDevice)+len(b.ThrottleReadIOPSDevice)+len(b.ThrottleWriteIOPSDevice) > 0 {
		r.BlockIO = b
	}
	return nil
}

func (m *specMaker) devices(s *specs.Spec) error {
	sec := &m.c.Security
	if sec.Privileged {
		s.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
		return addHostDevices(s)
	}
	// kist's own runtime begins with it anyway; another may not.
	s.Linux.Resources.Devices = append(s.Linux.Resources.Devices, specs.LinuxDeviceCgroup{Access: "rwm"})
	for _, d := range sec.Devices {
		if err := m.addDevice(s, d); err != nil {
			return fmt.Errorf("--device %s: %w", d.Host, err)
		}
	}
	for _, rule := range sec.DeviceRules {
		r, err := parseDeviceRule(rule)
		if err != nil {
			return err
		}
		s.Linux.Resources.Devices = append(s.Linux.Resources.Devices, r)
	}
	return nil
}

// limits sets --ulimit, those that this host does not let us raise as high as
// they go, with a warning, as in a CI job without CAP_SYS_RESOURCE.
func (m *specMaker) limits(s *specs.Spec) error {
	s.Linux.Sysctl = map[string]string{}
	if m.c.Network.Mode != "host" && m.netns == "" && !m.e.Rootless {
		s.Linux.Sysctl["net.ipv4.ip_unprivileged_port_start"] = "0"
		s.Linux.Sysctl["net.ipv4.ping_group_range"] = m.pingGroups()
	}
	for k, v := range m.c.Limits.Sysctls {
		if err := m.checkSysctl(k); err != nil {
			return err
		}
		s.Linux.Sysctl[k] = v
	}
	for _, u := range m.c.Limits.Ulimits {
		l := specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(u.Name), Soft: uint64(u.Soft), Hard: uint64(u.Hard)}
		if own, err := ownLimit(u.Name); err == nil && l.Hard > own && !mayRaiseLimits() {
			m.e.Warn("--ulimit %s: this host lets it go no higher than %d", u.Name, own)
			l.Hard, l.Soft = own, min(l.Soft, own)
		}
		s.Process.Rlimits = append(s.Process.Rlimits, l)
	}
	return nil
}

// checkSysctl lets through what belongs to a namespace of the container's own.
func (m *specMaker) checkSysctl(name string) error {
	c := m.c
	ipc := []string{"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced"}
	plain := strings.ReplaceAll(name, "/", ".")
	switch {
	case strings.Contains(plain, "..") || strings.Trim(plain, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != "":
	case strings.HasPrefix(plain, "net."):
		if c.Network.Mode != "host" && !strings.HasPrefix(c.Network.Mode, "container:") {
			return nil
		}
		return fmt.Errorf("--sysctl %s: not with --network %s: it is another's", name, c.Network.Mode)
	case slices.Contains(ipc, plain) || strings.HasPrefix(plain, "fs.mqueue."):
		if c.Spaces.IPC != "host" && !strings.HasPrefix(c.Spaces.IPC, "container:") {
			return nil
		}
		return fmt.Errorf("--sysctl %s: not with --ipc %s: it is another's", name, c.Spaces.IPC)
	}
	return fmt.Errorf("--sysctl %s: not a parameter of a container's own namespaces", name)
}

func (m *specMaker) seccomp(s *specs.Spec) error {
	if !seccompAvailable() {
		return nil
	}
	sec := &m.c.Security
	var err error
	switch {
	case sec.Seccomp == "unconfined", sec.Privileged && sec.Seccomp == "":
	case sec.Seccomp == "":
		s.Linux.Seccomp, err = seccomp.GetDefaultProfile(s)
	default:
		s.Linux.Seccomp, err = seccomp.LoadProfile(sec.Seccomp, s)
	}
	if err != nil {
		return fmt.Errorf("seccomp profile: %w", err)
	}
	return nil
}

// seccompAvailable reports whether the kernel has seccomp filters.
func seccompAvailable() bool {
	return !errors.Is(unix.Prctl(unix.PR_GET_SECCOMP, 0, 0, 0, 0), unix.EINVAL)
}

package container

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

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
		if c.Network.Mode != "host" && !joins(c.Network.Mode) {
			return nil
		}
		return fmt.Errorf("--sysctl %s: not with --network %s: it is another's", name, c.Network.Mode)
	case slices.Contains(ipc, plain) || strings.HasPrefix(plain, "fs.mqueue."):
		if c.Spaces.IPC != "host" && !joins(c.Spaces.IPC) {
			return nil
		}
		return fmt.Errorf("--sysctl %s: not with --ipc %s: it is another's", name, c.Spaces.IPC)
	}
	return fmt.Errorf("--sysctl %s: not a parameter of a container's own namespaces", name)
}

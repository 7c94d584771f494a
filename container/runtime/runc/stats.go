package runc

import "github.com/opencontainers/cgroups"

// stats is the data of runc's "stats" event.
type stats struct {
	CPU     cpuStats                `json:"cpu"`
	CPUSet  cgroups.CPUSetStats     `json:"cpuset"`
	Memory  memoryStats             `json:"memory"`
	Pids    pidsStats               `json:"pids"`
	Blkio   blkioStats              `json:"blkio"`
	Hugetlb map[string]hugetlbStats `json:"hugetlb"`
}

type cpuStats struct {
	Usage      cpuUsage   `json:"usage"`
	Throttling throttling `json:"throttling"`
}

type cpuUsage struct {
	Total        uint64   `json:"total,omitempty"` // nanoseconds, as all below
	Percpu       []uint64 `json:"percpu,omitempty"`
	PercpuKernel []uint64 `json:"percpu_kernel,omitempty"`
	PercpuUser   []uint64 `json:"percpu_user,omitempty"`
	Kernel       uint64   `json:"kernel"`
	User         uint64   `json:"user"`
}

type throttling struct {
	Periods          uint64 `json:"periods,omitempty"`
	ThrottledPeriods uint64 `json:"throttledPeriods,omitempty"`
	ThrottledTime    uint64 `json:"throttledTime,omitempty"`
}

type memoryStats struct {
	Cache     uint64            `json:"cache,omitempty"`
	Usage     memoryUsage       `json:"usage"`
	Swap      memoryUsage       `json:"swap"`
	Kernel    memoryUsage       `json:"kernel"`
	KernelTCP memoryUsage       `json:"kernelTCP"`
	Raw       map[string]uint64 `json:"raw,omitempty"`
}

type memoryUsage struct {
	Limit   uint64 `json:"limit"`
	Usage   uint64 `json:"usage,omitempty"`
	Max     uint64 `json:"max,omitempty"`
	Failcnt uint64 `json:"failcnt"`
}

type pidsStats struct {
	Current uint64 `json:"current,omitempty"`
	Limit   uint64 `json:"limit,omitempty"`
}

type blkioStats struct {
	IoServiceBytesRecursive []cgroups.BlkioStatEntry `json:"ioServiceBytesRecursive,omitempty"`
	IoServicedRecursive     []cgroups.BlkioStatEntry `json:"ioServicedRecursive,omitempty"`
	IoQueuedRecursive       []cgroups.BlkioStatEntry `json:"ioQueueRecursive,omitempty"`
	IoServiceTimeRecursive  []cgroups.BlkioStatEntry `json:"ioServiceTimeRecursive,omitempty"`
	IoWaitTimeRecursive     []cgroups.BlkioStatEntry `json:"ioWaitTimeRecursive,omitempty"`
	IoMergedRecursive       []cgroups.BlkioStatEntry `json:"ioMergedRecursive,omitempty"`
	IoTimeRecursive         []cgroups.BlkioStatEntry `json:"ioTimeRecursive,omitempty"`
	SectorsRecursive        []cgroups.BlkioStatEntry `json:"sectorsRecursive,omitempty"`
}

type hugetlbStats struct {
	Usage   uint64 `json:"usage,omitempty"`
	Max     uint64 `json:"max,omitempty"`
	Failcnt uint64 `json:"failcnt"`
}

func convertStats(s *cgroups.Stats) stats {
	cpu, mem, io := &s.CpuStats, &s.MemoryStats, &s.BlkioStats
	out := stats{
		CPU: cpuStats{
			Usage: cpuUsage{cpu.CpuUsage.TotalUsage, cpu.CpuUsage.PercpuUsage, cpu.CpuUsage.PercpuUsageInKernelmode,
				cpu.CpuUsage.PercpuUsageInUsermode, cpu.CpuUsage.UsageInKernelmode, cpu.CpuUsage.UsageInUsermode},
			Throttling: throttling{cpu.ThrottlingData.Periods, cpu.ThrottlingData.ThrottledPeriods, cpu.ThrottlingData.ThrottledTime},
		},
		CPUSet: s.CPUSetStats,
		Memory: memoryStats{mem.Cache, usageOf(mem.Usage), usageOf(mem.SwapUsage), usageOf(mem.KernelUsage), usageOf(mem.KernelTCPUsage), mem.Stats},
		Pids:   pidsStats(s.PidsStats),
		Blkio: blkioStats{io.IoServiceBytesRecursive, io.IoServicedRecursive, io.IoQueuedRecursive, io.IoServiceTimeRecursive,
			io.IoWaitTimeRecursive, io.IoMergedRecursive, io.IoTimeRecursive, io.SectorsRecursive},
		Hugetlb: map[string]hugetlbStats{},
	}
	for size, h := range s.HugetlbStats {
		out.Hugetlb[size] = hugetlbStats{h.Usage, h.MaxUsage, h.Failcnt}
	}
	return out
}

func usageOf(m cgroups.MemoryData) memoryUsage {
	return memoryUsage{m.Limit, m.Usage, m.MaxUsage, m.Failcnt}
}

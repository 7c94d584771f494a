package container

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	units "github.com/docker/go-units"

	"github.com/kist-containers/kist/internal/ui"
)

type resourceFlags struct {
	Memory            ui.Bytes `short:"m" help:"Memory limit." placeholder:"SIZE"`
	MemoryReservation ui.Bytes `help:"Soft memory limit." placeholder:"SIZE"`
	MemorySwap        ui.Bytes `help:"Limit of memory and swap together; -1 for no limit of swap." placeholder:"SIZE"`
	MemorySwappiness  *int64   `help:"Swappiness, 0 to 100." placeholder:"N"`
	KernelMemory      string   `hidden:""`
	CgroupConf        []string `sep:"none" help:"Write a file of its cgroup (cgroup v2)." placeholder:"FILE=VALUE"`
	CpuCount          string   `hidden:""`
	CpuPercent        string   `hidden:""`
	IoMaxbandwidth    string   `hidden:""`
	IoMaxiops         string   `hidden:""`
	OomKillDisable    bool     `help:"Do not kill the container when it is out of memory."`
	OomScoreAdj       int      `help:"The kernel's preference for killing it, -1000 to 1000." placeholder:"N"`
	Cpus              string   `help:"Number of CPUs, 1.5 for example." placeholder:"N"`
	CpuShares         int64    `short:"c" help:"Relative CPU weight (1024)." placeholder:"N"`
	CpuPeriod         int64    `help:"CFS period in microseconds." placeholder:"USEC"`
	CpuQuota          int64    `help:"CFS quota in microseconds." placeholder:"USEC"`
	CpuRtPeriod       int64    `help:"Real-time period in microseconds." placeholder:"USEC"`
	CpuRtRuntime      int64    `help:"Real-time runtime in microseconds." placeholder:"USEC"`
	CpusetCpus        string   `help:"CPUs it may use: 0-3, 0,1." placeholder:"LIST"`
	CpusetMems        string   `help:"Memory nodes it may use." placeholder:"LIST"`
	PidsLimit         int64    `help:"Limit of processes; -1 for none." placeholder:"N"`
	BlkioWeight       uint16   `help:"Block IO weight, 10 to 1000." placeholder:"N"`
	BlkioWeightDevice []string `sep:"none" help:"Block IO weight of a device." placeholder:"DEVICE:N"`
	DeviceReadBps     []string `sep:"none" help:"Limit reading from a device." placeholder:"DEVICE:BYTES"`
	DeviceWriteBps    []string `sep:"none" help:"Limit writing to a device." placeholder:"DEVICE:BYTES"`
	DeviceReadIops    []string `sep:"none" help:"Limit reads per second from a device." placeholder:"DEVICE:N"`
	DeviceWriteIops   []string `sep:"none" help:"Limit writes per second to a device." placeholder:"DEVICE:N"`
	Ulimit            []string `sep:"none" help:"Resource limit of processes." placeholder:"NAME=SOFT[:HARD]"`
	Sysctl            []string `sep:"none" help:"Kernel parameter of its namespaces." placeholder:"KEY=VALUE"`
	Cgroups           string   `default:"enabled" help:"enabled, or disabled to stay in the cgroup of kist." placeholder:"MODE"`
	CgroupParent      string   `help:"Cgroup above the container's." placeholder:"PATH"`
	Cgroupns          string   `name:"cgroupns" help:"Cgroup namespace: private or host." placeholder:"MODE"`
}

func (f *createFlags) resources(c *Config) error {
	if err := f.limits(c); err != nil {
		return err
	}
	return c.Limits.check()
}

// limits reads the flags; whether they make sense together is for check.
func (f *createFlags) limits(c *Config) error {
	l := &c.Limits
	switch f.Cgroups {
	case "", "enabled", "no-conmon": // the monitor never is in the container's
	case "disabled":
		l.NoCgroup = true
	case "split":
		return errors.New("--cgroups split: kist does not divide its caller's cgroup; give one with --cgroup-parent")
	default:
		return fmt.Errorf("--cgroups %s: want enabled, disabled or no-conmon", f.Cgroups)
	}
	if f.KernelMemory != "" {
		return errors.New("--kernel-memory: the memory controller has no such limit (Linux dropped it in 5.16); --memory counts the kernel's memory too")
	}
	if f.CpuCount+f.CpuPercent+f.IoMaxbandwidth+f.IoMaxiops != "" {
		return errors.New("--cpu-count, --cpu-percent, --io-maxbandwidth, --io-maxiops: only Windows has them")
	}
	l.Memory, l.MemoryReservation, l.MemorySwap = int64(f.Memory), int64(f.MemoryReservation), int64(f.MemorySwap)
	l.MemorySwappiness, l.OomKillDisable, l.OomScoreAdj = f.MemorySwappiness, f.OomKillDisable, f.OomScoreAdj
	l.CPUShares, l.CPUPeriod, l.CPUQuota = f.CpuShares, f.CpuPeriod, f.CpuQuota
	l.CPURtPeriod, l.CPURtRuntime, l.CpusetCpus, l.CpusetMems = f.CpuRtPeriod, f.CpuRtRuntime, f.CpusetCpus, f.CpusetMems
	l.PidsLimit, l.BlkioWeight, l.CgroupParent = f.PidsLimit, f.BlkioWeight, f.CgroupParent
	l.BlkioWeightDevice, l.ReadBps, l.WriteBps, l.ReadIOps, l.WriteIOps = f.BlkioWeightDevice, f.DeviceReadBps, f.DeviceWriteBps, f.DeviceReadIops, f.DeviceWriteIops
	c.Spaces.Cgroup = f.Cgroupns
	if f.Cpus != "" {
		n, err := strconv.ParseFloat(f.Cpus, 64)
		if err != nil || n <= 0 || n > 1<<20 {
			return fmt.Errorf("--cpus %s: want a number of CPUs such as 1.5", f.Cpus)
		}
		l.NanoCPUs = int64(n * 1e9)
	}
	for _, s := range f.Ulimit {
		u, err := parseUlimit(s)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(l.Ulimits, func(o Ulimit) bool { return o.Name == u.Name }) {
			return fmt.Errorf("--ulimit %s: %s is given twice", s, u.Name)
		}
		if u.Name != "host" {
			l.Ulimits = append(l.Ulimits, u)
		}
	}
	for _, s := range f.Sysctl {
		if key, _, ok := strings.Cut(s, "="); !ok || key == "" {
			return fmt.Errorf("--sysctl %s: want KEY=VALUE", s)
		}
	}
	l.Sysctls = pairs(f.Sysctl)
	for _, s := range f.CgroupConf {
		if file, _, ok := strings.Cut(s, "="); !ok || !strings.Contains(file, ".") || strings.ContainsAny(file, "/\x00") {
			return fmt.Errorf("--cgroup-conf %s: want FILE=VALUE, memory.high=64M for example", s)
		}
	}
	l.Unified = pairs(f.CgroupConf)
	return nil
}

// check holds docker's bounds.
func (l *Limits) check() error {
	const leastMemory = 6 << 20
	switch {
	case l.Memory > 0 && l.Memory < leastMemory:
		return errors.New("--memory: the minimum is 6 MiB")
	case l.Memory < 0:
		return errors.New("--memory: want at least 6 MiB")
	case l.MemorySwap < -1:
		return errors.New("--memory-swap: want a size, or -1 for no limit")
	case l.MemoryReservation != 0 && l.MemoryReservation < leastMemory:
		return errors.New("--memory-reservation: the minimum is 6 MiB")
	case l.OomKillDisable && l.Memory == 0:
		return errors.New("--oom-kill-disable: needs --memory too, or the whole host runs out of memory")
	case l.MemorySwap > 0 && l.Memory == 0:
		return errors.New("--memory-swap: needs --memory too")
	case l.MemorySwap > 0 && l.MemorySwap < l.Memory:
		return errors.New("--memory-swap: must be at least --memory, it is the sum of memory and swap")
	case l.Memory > 0 && l.MemoryReservation > l.Memory:
		return errors.New("--memory-reservation: must be at most --memory")
	case l.NanoCPUs > 0 && (l.CPUQuota != 0 || l.CPUPeriod != 0):
		return errors.New("--cpus and --cpu-quota or --cpu-period contradict each other")
	case l.CPUPeriod != 0 && (l.CPUPeriod < 1000 || l.CPUPeriod > 1000000):
		return errors.New("--cpu-period: want 1000 to 1000000 microseconds")
	case l.CPUQuota > 0 && l.CPUQuota < 1000 || l.CPUQuota < -1:
		return errors.New("--cpu-quota: want at least 1000 microseconds")
	case l.CPURtPeriod < 0 || l.CPURtRuntime < 0 || l.CPURtPeriod > 0 && l.CPURtRuntime > l.CPURtPeriod:
		return errors.New("--cpu-rt-runtime: want at most --cpu-rt-period, both in microseconds")
	case l.PidsLimit < -1:
		return errors.New("--pids-limit: want a number, or -1 for no limit")
	case l.ShmSize < 0:
		return errors.New("--shm-size: must not be negative")
	case l.CPUShares < 0:
		return errors.New("--cpu-shares: want a positive number")
	case l.BlkioWeight != 0 && (l.BlkioWeight < 10 || l.BlkioWeight > 1000):
		return errors.New("--blkio-weight: want 10 to 1000")
	case l.MemorySwappiness != nil && (*l.MemorySwappiness < -1 || *l.MemorySwappiness > 100):
		return errors.New("--memory-swappiness: want 0 to 100")
	case l.OomScoreAdj < -1000 || l.OomScoreAdj > 1000:
		return errors.New("--oom-score-adj: want -1000 to 1000")
	}
	return nil
}

func parseUlimit(s string) (Ulimit, error) {
	if s == "host" {
		return Ulimit{Name: "host"}, nil
	}
	u, err := units.ParseUlimit(s)
	if err != nil {
		if name, value, ok := strings.Cut(s, "="); ok && name != "" && value != "" {
			return Ulimit{}, fmt.Errorf("--ulimit %s: %w", s, err) // it says which part
		}
		return Ulimit{}, fmt.Errorf("--ulimit %s: want NAME=SOFT[:HARD], nofile=1024:4096 for example", s)
	}
	return Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard}, nil
}

package runc

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"strconv"

	"github.com/docker/go-units"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/kist-containers/kist/container/runtime"
)

type updateCmd struct {
	Resources         string  `short:"r" help:"File with linux.resources of config.json, or - for standard input." placeholder:"FILE"`
	BlkioWeight       *uint16 `name:"blkio-weight" help:"Relative weight of block I/O, 10 to 1000." placeholder:"N"`
	CPUPeriod         *uint64 `name:"cpu-period" help:"CPU period in microseconds." placeholder:"N"`
	CPUQuota          *int64  `name:"cpu-quota" help:"CPU time per period in microseconds." placeholder:"N"`
	CPUBurst          *uint64 `name:"cpu-burst" help:"CPU time to save up, in microseconds." placeholder:"N"`
	CPUShare          *uint64 `name:"cpu-share" help:"Relative weight of CPU time." placeholder:"N"`
	CPURtPeriod       *uint64 `name:"cpu-rt-period" help:"Real-time period in microseconds." placeholder:"N"`
	CPURtRuntime      *int64  `name:"cpu-rt-runtime" help:"Real-time share of it in microseconds." placeholder:"N"`
	CPUIdle           *int64  `name:"cpu-idle" help:"1: run when nothing else does." placeholder:"N"`
	CpusetCpus        string  `name:"cpuset-cpus" help:"CPUs to use." placeholder:"LIST"`
	CpusetMems        string  `name:"cpuset-mems" help:"Memory nodes to use." placeholder:"LIST"`
	Memory            string  `help:"Memory limit in bytes." placeholder:"SIZE"`
	MemoryReservation string  `name:"memory-reservation" help:"Soft memory limit." placeholder:"SIZE"`
	MemorySwap        string  `name:"memory-swap" help:"Limit of memory and swap together." placeholder:"SIZE"`
	KernelMemory      string  `name:"kernel-memory" help:"Accepted; the kernel has given it up." hidden:""`
	KernelMemoryTCP   string  `name:"kernel-memory-tcp" help:"Accepted; the kernel has given it up." hidden:""`
	PidsLimit         *int64  `name:"pids-limit" help:"Most processes." placeholder:"N"`
	L3CacheSchema     string  `name:"l3-cache-schema" hidden:""`
	MemBwSchema       string  `name:"mem-bw-schema" hidden:""`
	ID                string  `arg:"" help:"Name of the container."`
}

// Run is `update`.
func (c *updateCmd) Run(r *runtime.Runtime) error {
	if c.L3CacheSchema != "" || c.MemBwSchema != "" {
		return errors.New("--l3-cache-schema, --mem-bw-schema: Intel RDT is not supported")
	}
	res := new(specs.LinuxResources)
	var err error
	if c.Resources != "" {
		err = readResources(c.Resources, res)
	} else {
		err = c.fill(res)
	}
	if err != nil {
		return err
	}
	return r.Update(c.ID, res)
}

func readResources(file string, res *specs.LinuxResources) error {
	in := os.Stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	const most = 4 << 20
	return json.NewDecoder(io.LimitReader(in, most)).Decode(res)
}

func (c *updateCmd) fill(res *specs.LinuxResources) error {
	res.Memory = &specs.LinuxMemory{}
	for _, x := range []struct {
		text string
		to   **int64
	}{{c.Memory, &res.Memory.Limit}, {c.MemoryReservation, &res.Memory.Reservation}, {c.MemorySwap, &res.Memory.Swap}} {
		if x.text == "" {
			continue
		}
		n, err := bytesOf(x.text)
		if err != nil {
			return err
		}
		*x.to = &n
	}
	res.CPU = &specs.LinuxCPU{
		Shares: c.CPUShare, Quota: c.CPUQuota, Period: c.CPUPeriod, Burst: c.CPUBurst, RealtimePeriod: c.CPURtPeriod,
		RealtimeRuntime: c.CPURtRuntime, Idle: c.CPUIdle, Cpus: c.CpusetCpus, Mems: c.CpusetMems,
	}
	res.Pids = &specs.LinuxPids{Limit: c.PidsLimit}
	res.BlockIO = &specs.LinuxBlockIO{Weight: c.BlkioWeight}
	return nil
}

// bytesOf reads a number of bytes, -1 for no limit, or a size like 64m.
func bytesOf(text string) (int64, error) {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return n, nil
	}
	return units.RAMInBytes(text)
}

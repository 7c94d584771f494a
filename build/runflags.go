package build

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	units "github.com/docker/go-units"
	"github.com/kist-containers/kist/internal/ui"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// What --allow grants.
const (
	allowHost     = "network.host"
	allowInsecure = "security.insecure"
)

// runFlags are the flags of `kist build` about its RUN steps.
type runFlags struct {
	Secret     []string `sep:"none" help:"Secret for RUN --mount=type=secret: id=NAME[,src=FILE|,env=VAR]." placeholder:"SPEC"`
	SSH        []string `name:"ssh" sep:"none" help:"Agent or keys for RUN --mount=type=ssh: default or ID[=SOCKET|KEY[,KEY]]." placeholder:"SPEC"`
	Allow      []string `help:"Grant network.host or security.insecure." placeholder:"RIGHT"`
	AddHost    []string `sep:"none" help:"Line of /etc/hosts." placeholder:"NAME:IP"`
	Network    string   `help:"Network of RUN: default, none or host." default:"default" placeholder:"MODE"`
	ShmSize    string   `help:"Size of /dev/shm." placeholder:"SIZE"`
	Ulimit     []string `sep:"none" help:"Limit of processes." placeholder:"NAME=SOFT[:HARD]"`
	Memory     string   `short:"m" help:"Memory limit." placeholder:"SIZE"`
	MemorySwap string   `help:"Memory and swap limit, -1 for no limit on swap." placeholder:"SIZE"`
	CPUs       float64  `name:"cpus" help:"How many CPUs." placeholder:"N"`
	CPUShares  uint64   `name:"cpu-shares" short:"c" help:"Weight of CPU time." placeholder:"N"`
	CPUPeriod  uint64   `name:"cpu-period" help:"Period of the CPU quota in microseconds." placeholder:"N"`
	CPUQuota   int64    `name:"cpu-quota" help:"CPU quota in microseconds." placeholder:"N"`
	CpusetCpus string   `help:"CPUs, 0-3,7." placeholder:"LIST"`
	CpusetMems string   `help:"Memory nodes." placeholder:"LIST"`
	// CgroupParent is in the place of the builder's own.
	CgroupParent string   `help:"Cgroup above those of RUN steps." placeholder:"PATH"`
	SecurityOpt  []string `hidden:"" sep:"none"`
	Resource     []string `hidden:"" sep:"none" help:"memory=, memory-swap=, cpus=, cpu-shares=, cpu-period=, cpu-quota=, cpuset-cpus= or cpuset-mems=."`
}

func (f *runFlags) apply(r *Request) (err error) {
	r.Allow, r.Hosts, r.Network = f.Allow, f.AddHost, f.Network
	if len(f.SecurityOpt) > 0 {
		return ui.Hint(fmt.Errorf("--security-opt %s: steps have docker's default isolation or none", f.SecurityOpt[0]),
			"kist build --allow security.insecure … with RUN --security=insecure")
	}
	for _, a := range f.Allow {
		if a != allowHost && a != allowInsecure {
			return fmt.Errorf("--allow %s: want %s or %s", a, allowHost, allowInsecure)
		}
	}
	for _, h := range f.AddHost {
		if _, _, err := parseHost(h); err != nil {
			return err
		}
	}
	switch f.Network {
	case "default", "none", "host", "bridge":
	default:
		return fmt.Errorf("--network %s: want default, none or host", f.Network)
	}
	if f.Network == "bridge" {
		r.Network = "default"
	}
	if r.Secrets, err = parseSecrets(f.Secret); err != nil {
		return err
	}
	if r.SSH, err = parseSSH(f.SSH); err != nil {
		return err
	}
	if r.ShmSize, err = size("--shm-size", f.ShmSize); err != nil {
		return err
	}
	for _, u := range f.Ulimit {
		l, err := units.ParseUlimit(u)
		if err != nil {
			return fmt.Errorf("--ulimit %s: %w", u, err)
		}
		r.Ulimits = append(r.Ulimits, specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(l.Name), Soft: uint64(l.Soft), Hard: uint64(l.Hard)})
	}
	r.Resources, err = f.resources()
	return err
}

func size(flag, s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	n, err := units.RAMInBytes(s)
	if err != nil {
		return 0, fmt.Errorf("%s %s: want a size such as 64m", flag, s)
	}
	return n, nil
}

// resources are the limits of RUN steps, nil for none.
func (f *runFlags) resources() (*specs.LinuxResources, error) {
	if err := f.split(); err != nil {
		return nil, err
	}
	res := &specs.LinuxResources{}
	memory, err := size("--memory", f.Memory)
	if err != nil {
		return nil, err
	}
	if memory > 0 {
		res.Memory = &specs.LinuxMemory{Limit: &memory}
		if f.MemorySwap != "" {
			swap := int64(-1)
			if f.MemorySwap != "-1" {
				if swap, err = size("--memory-swap", f.MemorySwap); err != nil {
					return nil, err
				}
			}
			res.Memory.Swap = &swap
		}
	}
	cpu := &specs.LinuxCPU{Cpus: f.CpusetCpus, Mems: f.CpusetMems}
	if f.CPUs > 0 {
		const period = 100_000
		f.CPUPeriod, f.CPUQuota = period, int64(f.CPUs*period)
	}
	if f.CPUShares > 0 {
		cpu.Shares = &f.CPUShares
	}
	if f.CPUPeriod > 0 {
		cpu.Period = &f.CPUPeriod
	}
	if f.CPUQuota != 0 {
		cpu.Quota = &f.CPUQuota
	}
	if *cpu != (specs.LinuxCPU{}) {
		res.CPU = cpu
	}
	if res.CPU == nil && res.Memory == nil {
		return nil, nil
	}
	return res, nil
}

// split reads --resource KEY=VALUE[,…] into the flags of the same names.
func (f *runFlags) split() (err error) {
	for _, r := range f.Resource {
		for kv := range strings.SplitSeq(r, ",") {
			k, v, _ := strings.Cut(kv, "=")
			switch k {
			case "memory":
				f.Memory = v
			case "memory-swap":
				f.MemorySwap = v
			case "cpuset-cpus":
				f.CpusetCpus = v
			case "cpuset-mems":
				f.CpusetMems = v
			case "cpus":
				f.CPUs, err = strconv.ParseFloat(v, 64)
			case "cpu-shares":
				f.CPUShares, err = strconv.ParseUint(v, 10, 64)
			case "cpu-period":
				f.CPUPeriod, err = strconv.ParseUint(v, 10, 64)
			case "cpu-quota":
				f.CPUQuota, err = strconv.ParseInt(v, 10, 64)
			default:
				return fmt.Errorf("--resource %s: no such key %q", r, k)
			}
			if err != nil {
				return fmt.Errorf("--resource %s: %q is not a number", r, v)
			}
		}
	}
	return nil
}

// parseSecrets reads id=NAME[,src=FILE|,env=VAR][,type=file|env].
func parseSecrets(flags []string) (map[string]Secret, error) {
	all := map[string]Secret{}
	for _, f := range flags {
		var id, kind string
		var s Secret
		for kv := range strings.SplitSeq(f, ",") {
			k, v, _ := strings.Cut(kv, "=")
			switch k {
			case "id":
				id = v
			case "src", "source":
				s.File = v
			case "env":
				s.Env = v
			case "type":
				kind = v
			default:
				return nil, fmt.Errorf("--secret %s: no such key %q", f, k)
			}
		}
		if id == "" {
			return nil, fmt.Errorf("--secret %s: wants id=NAME", f)
		}
		_, inEnv := os.LookupEnv(id)
		switch {
		case kind == "env" && s.Env == "":
			s = Secret{Env: cmpOr(s.File, id)}
		case s.File == "" && s.Env == "" && kind == "" && inEnv:
			s.Env = id
		case s.File == "" && s.Env == "":
			s.File = id
		}
		if s.File != "" {
			abs, err := filepath.Abs(s.File)
			if err != nil {
				return nil, err
			}
			s.File = abs
		}
		all[id] = s
	}
	return all, nil
}

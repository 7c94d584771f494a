package container

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/opencontainers/cgroups"
	"golang.org/x/sys/unix"
)

// applicable refuses limits that this host cannot apply, before anything is
// made: a limit is never ignored. Whether the controllers are there at all is
// the runtime's to say.
func (l *Limits) applicable() error {
	if most := runtime.NumCPU(); l.NanoCPUs > int64(most)*1e9 {
		return fmt.Errorf("--cpus: this host has %d CPUs, so want 0.01 to %d.00", most, most)
	}
	for _, x := range []struct{ flag, list, have string }{
		{"--cpuset-cpus", l.CpusetCpus, "cpu"}, {"--cpuset-mems", l.CpusetMems, "node"},
	} {
		if err := onHost(x.list, x.have); err != nil {
			return fmt.Errorf("%s %s: %w", x.flag, x.list, err)
		}
	}
	if _, err := l.resources(); err != nil { // looks at the devices it names
		return err
	}
	if cgroups.IsCgroup2UnifiedMode() {
		return l.applicableV2()
	}
	return l.applicableV1()
}

func (l *Limits) applicableV2() error {
	for _, x := range []struct {
		flag  string
		given bool
		with  string
	}{
		{"--memory-swappiness", l.MemorySwappiness != nil && *l.MemorySwappiness >= 0, "memory"},
		{"--oom-kill-disable", l.OomKillDisable, "memory"},
		{"--cpu-rt-period", l.CPURtPeriod != 0, "cpu"},
		{"--cpu-rt-runtime", l.CPURtRuntime != 0, "cpu"},
	} {
		if x.given {
			return fmt.Errorf("%s: the %s controller of cgroup v2 has no such limit", x.flag, x.with)
		}
	}
	if l.MemorySwap > 0 && !hasSwapControl() {
		return errors.New("--memory-swap: the memory controller of this host does not account swap")
	}
	return nil
}

func (l *Limits) applicableV1() error {
	switch {
	case len(l.Unified) > 0:
		return errors.New("--cgroup-conf: this host has cgroup v1, the files are those of v2")
	case l.MemorySwap > 0 && !hasSwapControl():
		return errors.New("--memory-swap: the memory controller of this host does not account swap")
	case (l.CPURtPeriod != 0 || l.CPURtRuntime != 0) && !exists(filepath.Join(cgroupDir, "cpu", "cpu.rt_runtime_us")):
		return errors.New("--cpu-rt-runtime: the cpu controller of this host has no real-time groups (CONFIG_RT_GROUP_SCHED)")
	}
	return nil
}

const cgroupDir = "/sys/fs/cgroup"

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// hasSwapControl reports whether the kernel accounts swap. On v2 the root group
// has no limits, so another one is asked.
func hasSwapControl() bool {
	if !cgroups.IsCgroup2UnifiedMode() {
		return exists(filepath.Join(cgroupDir, "memory", "memory.memsw.limit_in_bytes"))
	}
	for _, depth := range []string{"*", "*/*"} {
		if found, _ := filepath.Glob(filepath.Join(cgroupDir, depth, "memory.swap.max")); len(found) > 0 {
			return true
		}
	}
	// No group has the memory controller yet; /proc/swaps is there with CONFIG_SWAP.
	return exists("/proc/swaps")
}

// mostInList bounds the numbers of a list of CPUs or memory nodes.
const mostInList = 8192

// parseList reads the kernel's lists: "0-3,7"; see cpuset(7), List format.
func parseList(list string) (map[int]bool, error) {
	all := map[int]bool{}
	if list == "" {
		return all, nil
	}
	for _, part := range strings.Split(list, ",") {
		first, last, isRange := strings.Cut(part, "-")
		a, err := strconv.ParseUint(strings.TrimSpace(first), 10, 16)
		b := a
		if err == nil && isRange {
			b, err = strconv.ParseUint(strings.TrimSpace(last), 10, 16)
		}
		if err != nil || b < a || b >= mostInList {
			return nil, fmt.Errorf("%q: want a list such as 0-3,7", part)
		}
		for n := a; n <= b; n++ {
			all[int(n)] = true
		}
	}
	return all, nil
}

// onHost reports what of a list this host does not have.
func onHost(list, kind string) error {
	if list == "" {
		return nil
	}
	want, err := parseList(list)
	if err != nil {
		return err
	}
	text, err := os.ReadFile("/sys/devices/system/" + kind + "/online")
	if err != nil {
		text = []byte("0") // a machine without NUMA has the one node
	}
	online := strings.TrimSpace(string(text))
	have, err := parseList(online)
	if err != nil {
		return err
	}
	for n := range want {
		if !have[n] {
			return fmt.Errorf("this host has %s", online)
		}
	}
	return nil
}

// ownLimit is this process's hard limit.
func ownLimit(name string) (uint64, error) {
	n, ok := ulimitNumbers[name]
	if !ok {
		return 0, errors.New("no such limit")
	}
	var r unix.Rlimit
	err := unix.Prlimit(0, n, nil, &r)
	return r.Max, err
}

package container

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/cgroups"
)

// sample is one reading of a container's counters.
type sample struct {
	stats    *cgroups.Stats
	rx, tx   uint64 // bytes
	system   uint64 // the machine's CPU time, nanoseconds
	haveData bool
}

// samples reads all containers at the same time.
func (e *Engine) samples(list []listed) map[string]sample {
	all := map[string]sample{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	slots := make(chan struct{}, 2*runtime.GOMAXPROCS(0))
	for _, l := range list {
		if !l.Live() {
			continue
		}
		wg.Go(func() {
			slots <- struct{}{}
			s := e.sample(l)
			<-slots
			mu.Lock()
			all[l.ID] = s
			mu.Unlock()
		})
	}
	wg.Wait()
	return all
}

func (e *Engine) sample(l listed) sample {
	s := sample{system: systemCPU()}
	stats, err := e.runtime().Stats(l.ID)
	if err != nil {
		return s
	}
	s.stats, s.haveData = stats, true
	s.rx, s.tx = traffic(l.Pid)
	return s
}

// systemCPU is the machine's CPU time in nanoseconds: the first line of
// /proc/stat without guest times; see proc_stat(5).
func systemCPU() uint64 {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := bytes.Cut(data, []byte("\n"))
	f := strings.Fields(string(line))
	var ticks uint64
	for _, v := range f[1:min(9, len(f))] {
		n, _ := strconv.ParseUint(v, 10, 64)
		ticks += n
	}
	const perTick = uint64(time.Second) / 100 // USER_HZ
	return ticks * perTick
}

// traffic adds up a network namespace's interfaces but lo.
func traffic(pid int) (rx, tx uint64) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/net/dev", pid))
	if err != nil {
		return 0, 0
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		name, rest, ok := strings.Cut(lines.Text(), ":")
		w := strings.Fields(rest)
		if !ok || strings.TrimSpace(name) == "lo" || len(w) < 9 {
			continue
		}
		r, _ := strconv.ParseUint(w[0], 10, 64)
		t, _ := strconv.ParseUint(w[8], 10, 64)
		rx, tx = rx+r, tx+t
	}
	return rx, tx
}

// cpuPercent is docker's: 100 is one CPU.
func cpuPercent(a, b sample) float64 {
	if !a.haveData || !b.haveData {
		return 0
	}
	used := float64(b.stats.CpuStats.CpuUsage.TotalUsage) - float64(a.stats.CpuStats.CpuUsage.TotalUsage)
	total := float64(b.system) - float64(a.system)
	if used <= 0 || total <= 0 {
		return 0
	}
	return used / total * float64(runtime.NumCPU()) * 100
}

// memoryUse is docker's: without the cache that can be dropped at once, against
// the limit or the machine's memory.
func memoryUse(s *cgroups.Stats) (usage, limit uint64) {
	usage, limit = s.MemoryStats.Usage.Usage, s.MemoryStats.Usage.Limit
	inactive := s.MemoryStats.Stats["total_inactive_file"]
	if inactive == 0 {
		inactive = s.MemoryStats.Stats["inactive_file"]
	}
	if inactive < usage {
		usage -= inactive
	}
	if total := machineMemory(); limit == 0 || limit > total {
		limit = total
	}
	return usage, limit
}

// machineMemory is MemTotal of /proc/meminfo in bytes.
func machineMemory() uint64 {
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	var kib uint64
	fmt.Sscanf(string(data), "MemTotal: %d kB", &kib)
	return kib << 10
}

func blockIO(s *cgroups.Stats) (read, written uint64) {
	for _, x := range s.BlkioStats.IoServiceBytesRecursive {
		switch strings.ToLower(x.Op) {
		case "read":
			read += x.Value
		case "write":
			written += x.Value
		}
	}
	return read, written
}

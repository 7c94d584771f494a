package container

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/cgroups"

	"github.com/kist-containers/kist/internal/ui"
)

// StatsCmd is `kist stats`.
type StatsCmd struct {
	All        bool     `short:"a" help:"Show stopped containers too."`
	Format     string   `help:"Format by a template, table or json." placeholder:"TEMPLATE"`
	NoStream   bool     `help:"Show the first result and end."`
	NoTrunc    bool     `help:"Do not shorten."`
	Containers []string `arg:"" optional:"" name:"container" help:"Containers; all running ones by default."`
}

// statsRow is a row as docker's templates know it.
type statsRow struct {
	Container, Name, ID, CPUPerc, MemUsage, MemPerc, NetIO, BlockIO, PIDs string
}

var statsTable = ui.Table{
	Headers: map[string]string{
		"Container": "CONTAINER", "Name": "NAME", "ID": "CONTAINER ID", "CPUPerc": "CPU %", "MemUsage": "MEM USAGE / LIMIT",
		"MemPerc": "MEM %", "NetIO": "NET I/O", "BlockIO": "BLOCK I/O", "PIDs": "PIDS",
	},
	Default: "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}",
	Quiet:   "{{.ID}}",
}

// sample is one reading of a container's counters.
type sample struct {
	stats    *cgroups.Stats
	rx, tx   uint64 // bytes
	system   uint64 // the machine's CPU time, nanoseconds
	haveData bool
}

// interval is docker's sampling interval.
const interval = time.Second

// Run shows what containers use, again and again.
func (c *StatsCmd) Run(ctx context.Context, e *Engine, out *ui.Output) error {
	before := map[string]sample{}
	live := ui.IsTerminal(out.Out) && !c.NoStream && c.Format == ""
	for first := true; ; first = false {
		list, err := c.list(e)
		if err != nil {
			return fmt.Errorf("stats: %w", err)
		}
		now := e.samples(list)
		if !first {
			if err := c.show(e, out, list, before, now, live); err != nil {
				return err
			}
			if c.NoStream {
				return nil
			}
		}
		before = now
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(interval):
		}
	}
}

func (c *StatsCmd) list(e *Engine) ([]listed, error) {
	if len(c.Containers) == 0 {
		return e.list(nil, c.All)
	}
	var list []listed
	for _, name := range c.Containers {
		ct, err := e.Lookup(name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		list = append(list, listed{ct, e.Status(ct.ID)})
	}
	return list, nil
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

func (c *StatsCmd) show(e *Engine, out *ui.Output, list []listed, before, now map[string]sample, live bool) error {
	rows := make([]any, len(list))
	for i, l := range list {
		rows[i] = c.row(l, before[l.ID], now[l.ID])
	}
	var b bytes.Buffer
	if err := statsTable.Write(&b, c.Format, false, rows); err != nil {
		return err
	}
	if live {
		out.Printf("\x1b[H\x1b[2J") // home and clear: the table is redrawn in place
	}
	_, err := out.Out.Write(b.Bytes())
	return err
}

func (c *StatsCmd) row(l listed, a, b sample) statsRow {
	r := statsRow{Container: l.ID, Name: l.Name, ID: l.ID, CPUPerc: "--", MemUsage: "-- / --", MemPerc: "--", NetIO: "--", BlockIO: "--", PIDs: "--"}
	if !c.NoTrunc {
		r.ID, r.Container = shortID(l.ID), shortID(l.ID)
	}
	if !b.haveData {
		return r
	}
	cpu := 0.0
	if a.haveData {
		used := float64(b.stats.CpuStats.CpuUsage.TotalUsage) - float64(a.stats.CpuStats.CpuUsage.TotalUsage)
		if total := float64(b.system) - float64(a.system); used > 0 && total > 0 {
			cpu = used / total * float64(runtime.NumCPU()) * 100
		}
	}
	usage, limit := memoryUse(b.stats)
	r.CPUPerc = fmt.Sprintf("%.2f%%", cpu)
	r.MemUsage = ui.Binary(int64(usage)) + " / " + ui.Binary(int64(limit))
	r.MemPerc = "0.00%"
	if limit > 0 {
		r.MemPerc = fmt.Sprintf("%.2f%%", float64(usage)/float64(limit)*100)
	}
	r.NetIO = ui.Size(int64(b.rx)) + " / " + ui.Size(int64(b.tx))
	read, written := blockIO(b.stats)
	r.BlockIO = ui.Size(int64(read)) + " / " + ui.Size(int64(written))
	r.PIDs = strconv.FormatUint(b.stats.PidsStats.Current, 10)
	return r
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

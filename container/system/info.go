package system

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/container"
	"github.com/kist-containers/kist/image"
	"github.com/kist-containers/kist/internal/cli"
	"github.com/kist-containers/kist/internal/ui"
)

// InfoCmd is `kist info`.
type InfoCmd struct {
	Format string `short:"f" help:"Format by a template, or json." placeholder:"TEMPLATE"`
}

// Info is docker's JSON of `info`, with what applies to kist.
type Info struct {
	ID                                                                 string
	Containers, ContainersRunning, ContainersPaused, ContainersStopped int
	Images                                                             int
	Driver                                                             string
	DriverStatus                                                       [][2]string
	MemoryLimit, SwapLimit, CpuCfsPeriod, CpuCfsQuota, CPUShares       bool
	CPUSet, PidsLimit, OomKillDisable, IPv4Forwarding                  bool
	Debug                                                              bool
	SystemTime                                                         string
	LoggingDriver, CgroupDriver, CgroupVersion                         string
	KernelVersion, OperatingSystem, OSVersion, OSType, Architecture    string
	NCPU                                                               int
	MemTotal                                                           int64
	IndexServerAddress                                                 string
	DockerRootDir                                                      string
	Name                                                               string
	Labels                                                             []string
	ServerVersion                                                      string
	Runtimes                                                           map[string]struct {
		Path string `json:"path"`
	}
	DefaultRuntime     string
	LiveRestoreEnabled bool
	InitBinary         string
	SecurityOptions    []string
	Warnings           []string
	Plugins            map[string][]string
}

// Run shows the facts.
func (c *InfoCmd) Run(e *container.Engine, s *image.Store, out *ui.Output) error {
	i, err := gather(e, s)
	if err != nil {
		return fmt.Errorf("info: %w", err)
	}
	if c.Format != "" {
		return ui.Inspect(out.Out, c.Format, []any{i})
	}
	i.print(out)
	return nil
}

func gather(e *container.Engine, s *image.Store) (*Info, error) {
	n, err := e.Counts()
	if err != nil {
		return nil, err
	}
	images, err := s.List()
	if err != nil {
		return nil, err
	}
	i := &Info{
		Containers: n.All, ContainersRunning: n.Running, ContainersPaused: n.Paused, ContainersStopped: n.Stopped, Images: len(images),
		Driver: "overlay", DriverStatus: [][2]string{{"Daemon", "none: every command works on the files itself"}},
		SystemTime: time.Now().Format(time.RFC3339Nano), LoggingDriver: "json-file", CgroupDriver: "cgroupfs", CgroupVersion: cgroupVersion(),
		OSType: "linux", Architecture: machine(), NCPU: runtime.NumCPU(), IndexServerAddress: "https://index.docker.io/v1/",
		DockerRootDir: e.Roots.Data, ServerVersion: cli.Version, DefaultRuntime: "kist", LiveRestoreEnabled: true, InitBinary: "kist",
		SecurityOptions: []string{"name=seccomp,profile=builtin"}, Labels: []string{}, Warnings: []string{},
		Runtimes: map[string]struct {
			Path string `json:"path"`
		}{"kist": {"kist"}},
		Plugins: map[string][]string{"Volume": {"local"}, "Network": {"bridge", "host", "ipvlan", "macvlan", "none"}, "Log": {"json-file", "local", "journald", "syslog", "none"}},
	}
	if e.Rootless {
		i.SecurityOptions = append(i.SecurityOptions, "name=rootless")
	}
	i.host()
	return i, nil
}

// host fills in what the machine tells.
func (i *Info) host() {
	i.KernelVersion = strings.TrimSpace(read("/proc/sys/kernel/osrelease"))
	i.Name, _ = os.Hostname()
	for line := range strings.SplitSeq(read("/etc/os-release"), "\n") {
		key, value, _ := strings.Cut(line, "=")
		switch value = strings.Trim(value, `"`); key {
		case "PRETTY_NAME":
			i.OperatingSystem = value
		case "VERSION_ID":
			i.OSVersion = value
		}
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		i.MemTotal = int64(info.Totalram) * int64(info.Unit)
	}
	has := controllers()
	i.MemoryLimit, i.SwapLimit = has["memory"], has["memory"]
	i.CpuCfsPeriod, i.CpuCfsQuota, i.CPUShares = has["cpu"], has["cpu"], has["cpu"]
	i.CPUSet, i.PidsLimit = has["cpuset"], has["pids"]
	i.OomKillDisable = has["memory"] && i.CgroupVersion == "1"
	i.IPv4Forwarding = strings.TrimSpace(read("/proc/sys/net/ipv4/ip_forward")) == "1"
	for name, ok := range map[string]bool{"memory limit": i.MemoryLimit, "cpu limits": i.CPUShares, "pids limit": i.PidsLimit, "cpuset": i.CPUSet} {
		if !ok {
			i.Warnings = append(i.Warnings, "WARNING: No "+name+" support")
		}
	}
}

func read(path string) string {
	data, _ := os.ReadFile(path)
	return string(data)
}

func machine() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return runtime.GOARCH
	}
	return string(bytes.TrimRight(u.Machine[:], "\x00"))
}

func cgroupVersion() string {
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		return "2"
	}
	return "1"
}

// controllers are those that this machine has, of either version of cgroups.
func controllers() map[string]bool {
	has := map[string]bool{}
	for _, name := range strings.Fields(read("/sys/fs/cgroup/cgroup.controllers")) {
		has[name] = true
	}
	entries, _ := os.ReadDir("/sys/fs/cgroup")
	for _, e := range entries {
		for name := range strings.SplitSeq(e.Name(), ",") {
			has[name] = true
		}
	}
	return has
}

func (i *Info) print(out *ui.Output) {
	out.Printf("Client:\n Version:    %s\n\nServer: none (kist has no daemon)\n", i.ServerVersion)
	out.Printf(" Containers: %d\n  Running: %d\n  Paused: %d\n  Stopped: %d\n Images: %d\n", i.Containers, i.ContainersRunning, i.ContainersPaused, i.ContainersStopped, i.Images)
	for _, kv := range [][2]string{
		{"Server Version", i.ServerVersion}, {"Storage Driver", i.Driver}, {"Logging Driver", i.LoggingDriver},
		{"Cgroup Driver", i.CgroupDriver}, {"Cgroup Version", i.CgroupVersion}, {"Default Runtime", i.DefaultRuntime},
		{"Security Options", strings.Join(i.SecurityOptions, " ")}, {"Kernel Version", i.KernelVersion}, {"Operating System", i.OperatingSystem},
		{"OSType", i.OSType}, {"Architecture", i.Architecture}, {"CPUs", fmt.Sprint(i.NCPU)}, {"Total Memory", ui.Binary(i.MemTotal)},
		{"Name", i.Name}, {"Root Dir", i.DockerRootDir},
	} {
		out.Printf(" %s: %s\n", kv[0], kv[1])
	}
	for _, w := range i.Warnings {
		out.Notef("%s", w)
	}
}

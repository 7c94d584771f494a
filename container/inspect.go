package container

import (
	"strings"
	"time"

	"github.com/kist-containers/kist/network"
)

// Inspection is docker's JSON of a container: github.com/moby/moby/api,
// types/container.InspectResponse, with the same forms of what is empty.
type Inspection struct {
	ID              string `json:"Id"`
	Created         string
	Path            string
	Args            []string
	State           InspectState
	Image           string
	ResolvConfPath  string
	HostnamePath    string
	HostsPath       string
	LogPath         string
	Name            string
	RestartCount    int
	Driver          string
	Platform        string
	MountLabel      string
	ProcessLabel    string
	AppArmorProfile string
	ExecIDs         []string
	HostConfig      InspectHost
	GraphDriver     InspectGraph
	SizeRw          *int64 `json:",omitempty"`
	SizeRootFs      *int64 `json:",omitempty"`
	Mounts          []InspectMount
	Config          InspectConfig
	NetworkSettings any
}

// InspectState is docker's State.
type InspectState struct {
	Status                                       string
	Running, Paused, Restarting, OOMKilled, Dead bool
	Pid, ExitCode                                int
	Error                                        string
	StartedAt, FinishedAt                        string
	Health                                       *InspectHealth `json:",omitempty"`
}

// InspectHealth is docker's State.Health.
type InspectHealth struct {
	Status        string
	FailingStreak int
	Log           []InspectProbe
}

// InspectProbe is one result of a health check.
type InspectProbe struct {
	Start, End time.Time
	ExitCode   int
	Output     string
}

// InspectGraph tells where the layers are.
type InspectGraph struct {
	Data map[string]string
	Name string
}

// InspectMount is docker's entry of Mounts.
type InspectMount struct {
	Type        string
	Name        string `json:",omitempty"`
	Source      string
	Destination string
	Driver      string `json:",omitempty"`
	Mode        string
	RW          bool
	Propagation string
}

// InspectConfig is docker's Config.
type InspectConfig struct {
	Hostname, Domainname, User              string
	AttachStdin, AttachStdout, AttachStderr bool
	ExposedPorts                            map[string]struct{} `json:",omitempty"`
	Tty, OpenStdin, StdinOnce               bool
	Env, Cmd                                []string
	Healthcheck                             *InspectCheck `json:",omitempty"`
	Image                                   string
	Volumes                                 map[string]struct{}
	WorkingDir                              string
	Entrypoint, OnBuild                     []string
	Labels                                  map[string]string
	StopSignal                              string `json:",omitempty"`
	StopTimeout                             *int   `json:",omitempty"`
}

// InspectCheck is docker's Healthcheck: durations in nanoseconds.
type InspectCheck struct {
	Test                                          []string
	Interval, Timeout, StartPeriod, StartInterval time.Duration `json:",omitempty"`
	Retries                                       int           `json:",omitempty"`
}

// InspectHost is docker's HostConfig.
type InspectHost struct {
	Binds           []string
	ContainerIDFile string
	LogConfig       struct {
		Type   string
		Config map[string]string
	}
	NetworkMode   string
	PortBindings  map[string][]InspectPort
	RestartPolicy struct {
		Name              string
		MaximumRetryCount int
	}
	AutoRemove                                                 bool
	VolumeDriver                                               string
	VolumesFrom                                                []string
	ConsoleSize                                                [2]uint
	Annotations                                                map[string]string `json:",omitempty"`
	CapAdd, CapDrop                                            []string
	CgroupnsMode                                               string
	Dns, DnsOptions, DnsSearch                                 []string
	ExtraHosts, GroupAdd                                       []string
	IpcMode, Cgroup                                            string
	Links                                                      []string
	OomScoreAdj                                                int
	PidMode                                                    string
	Privileged, PublishAllPorts, ReadonlyRootfs                bool
	SecurityOpt                                                []string
	StorageOpt                                                 map[string]string `json:",omitempty"`
	Tmpfs                                                      map[string]string `json:",omitempty"`
	UTSMode, UsernsMode                                        string
	ShmSize                                                    int64
	Sysctls                                                    map[string]string `json:",omitempty"`
	Runtime, Isolation                                         string
	CpuShares, Memory, NanoCpus                                int64
	CgroupParent                                               string
	BlkioWeight                                                uint16
	BlkioWeightDevice                                          []InspectWeight
	BlkioDeviceReadBps, BlkioDeviceWriteBps                    []InspectRate
	BlkioDeviceReadIOps, BlkioDeviceWriteIOps                  []InspectRate
	CpuPeriod, CpuQuota, CpuRealtimePeriod, CpuRealtimeRuntime int64
	CpusetCpus, CpusetMems                                     string
	Devices                                                    []InspectDevice
	DeviceCgroupRules                                          []string
	DeviceRequests                                             []InspectRequest
	MemoryReservation, MemorySwap                              int64
	MemorySwappiness                                           *int64
	OomKillDisable                                             bool
	PidsLimit                                                  *int64
	Ulimits                                                    []InspectUlimit
	CpuCount, CpuPercent                                       int64
	IOMaximumIOps, IOMaximumBandwidth                          uint64
	MaskedPaths, ReadonlyPaths                                 []string
	Init                                                       *bool `json:",omitempty"`
}

// InspectPort is one host side of a published port.
type InspectPort struct{ HostIp, HostPort string }

// InspectWeight is the weight of a block device, InspectRate its bytes or
// operations a second.
type (
	InspectWeight struct {
		Path   string
		Weight uint16
	}
	InspectRate struct {
		Path string
		Rate uint64
	}
)

// InspectDevice is a device node of the host's.
type InspectDevice struct{ PathOnHost, PathInContainer, CgroupPermissions string }

// InspectRequest asks for devices by their kind: --gpus, or CDI's names.
type InspectRequest struct {
	Driver       string
	Count        int
	DeviceIDs    []string
	Capabilities [][]string
	Options      map[string]string
}

// InspectUlimit is docker's form of a limit.
type InspectUlimit struct {
	Name       string
	Hard, Soft int64
}

func rfc(t time.Time) string {
	if t.IsZero() {
		return "0001-01-01T00:00:00Z"
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// Inspect describes a container as docker does.
func (e *Engine) Inspect(c *Config, size bool) *Inspection {
	st := e.Status(c.ID)
	args := c.Args()
	i := &Inspection{
		ID: c.ID, Created: rfc(c.Created), Path: args[0], Args: args[1:], Image: c.ImageID, Name: "/" + c.Name,
		ResolvConfPath: e.runDir(c.ID, "resolv.conf"), HostnamePath: e.runDir(c.ID, "hostname"), HostsPath: e.runDir(c.ID, "hosts"),
		LogPath: c.logConfig(e).Path, RestartCount: st.Restarts, Driver: "overlay2", Platform: "linux", AppArmorProfile: c.Security.AppArmor,
		State: InspectState{
			Status: st.Word, Running: st.Busy(), Paused: st.Word == StatusPaused, Restarting: st.Word == StatusRestarting,
			OOMKilled: st.OOMKilled, Pid: st.Pid, ExitCode: st.ExitCode, Error: st.Error, StartedAt: rfc(st.StartedAt), FinishedAt: rfc(st.FinishedAt),
		},
		GraphDriver: e.inspectGraph(c),
	}
	i.State.Health = e.inspectHealth(c, st)
	i.HostConfig, i.Config, i.Mounts = c.inspectHost(), c.inspectConfig(), e.inspectMounts(c)
	i.NetworkSettings = e.inspectNetwork(c, st)
	if size {
		written := treeSize(e.dataDir(c.ID, upperDir))
		total := written
		if img, err := e.Images.Resolve(c.ImageID); err == nil {
			total += img.Size
		}
		i.SizeRw, i.SizeRootFs = &written, &total
	}
	return i
}

// inspectNetwork is the sandbox of a container. docker: a port that is exposed and
// not published is there, and null.
func (e *Engine) inspectNetwork(c *Config, st Status) *network.Settings {
	set := e.Networks.InspectContainer(c.ID)
	if mode := c.Network.Mode; network.Predefined(mode) {
		endpoint := ""
		if st.Busy() {
			endpoint = c.ID
		}
		set.Networks[mode] = network.InspectPredefined(mode, endpoint)
		return set // docker: of these no port is told
	}
	if !st.Busy() || len(set.Networks) == 0 {
		return set
	}
	for _, p := range c.exposedPorts() {
		if _, ok := set.Ports[p]; !ok {
			set.Ports[p] = nil
		}
	}
	return set
}

func (e *Engine) inspectGraph(c *Config) InspectGraph {
	return InspectGraph{Name: "overlay2", Data: map[string]string{
		"LowerDir": strings.Join(c.Lowers, ":"), "MergedDir": e.dataDir(c.ID, bundleDir, "rootfs"),
		"UpperDir": e.dataDir(c.ID, upperDir), "WorkDir": e.dataDir(c.ID, workDir),
	}}
}

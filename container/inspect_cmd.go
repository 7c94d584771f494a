package container

import (
	"errors"
	"fmt"
	"time"

	"github.com/kist-containers/kist/internal/ui"
	"github.com/kist-containers/kist/volume"
)

// InspectCmd is `kist inspect` for containers.
type InspectCmd struct {
	Format     string   `short:"f" help:"Format by a template, or json." placeholder:"TEMPLATE"`
	Size       bool     `short:"s" help:"Show sizes."`
	Type       string   `help:"Kind of object: container, image." placeholder:"TYPE"`
	Containers []string `arg:"" name:"name" help:"Containers or images."`
}

// Run prints all that is known, as JSON.
func (c *InspectCmd) Run(e *Engine, out *ui.Output) error {
	var objects []any
	var errs []error
	for _, name := range c.Containers {
		o, err := c.inspect(e, name)
		if err != nil {
			errs = append(errs, fmt.Errorf("inspect %s: %w", name, err))
			continue
		}
		objects = append(objects, o)
	}
	if err := ui.Inspect(out.Out, c.Format, objects); err != nil {
		return fmt.Errorf("inspect: %w", err)
	}
	return together(out, errs)
}

func (c *InspectCmd) inspect(e *Engine, name string) (any, error) {
	if c.Type == "" || c.Type == "container" {
		ct, err := e.Lookup(name)
		if err == nil {
			return e.Inspect(ct, c.Size), nil
		}
		if c.Type == "container" || !errors.Is(err, ErrNotFound) {
			return nil, err
		}
	}
	if c.Type == "" || c.Type == "image" {
		if img, err := e.Images.Resolve(name); err == nil {
			return img.Inspect(), nil
		} else if c.Type == "image" {
			return nil, err
		}
	}
	if c.Type != "" {
		return nil, fmt.Errorf("--type %s: no such kind of object", c.Type)
	}
	return nil, ui.Hint(errors.New("no such container or image"), "kist ps -a; kist images")
}

// Inspection is docker's JSON of a container.
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
	Image                                   string
	Volumes                                 map[string]struct{}
	WorkingDir                              string
	Entrypoint                              []string
	Labels                                  map[string]string
	StopSignal                              string `json:",omitempty"`
	StopTimeout                             *int   `json:",omitempty"`
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
	AutoRemove                                  bool
	CapAdd, CapDrop                             []string
	CgroupnsMode                                string
	Dns, DnsOptions, DnsSearch, ExtraHosts      []string
	GroupAdd                                    []string
	IpcMode, PidMode, UTSMode, UsernsMode       string
	OomScoreAdj                                 int
	Privileged, PublishAllPorts, ReadonlyRootfs bool
	SecurityOpt                                 []string
	Tmpfs                                       map[string]string `json:",omitempty"`
	ShmSize                                     int64
	Sysctls                                     map[string]string `json:",omitempty"`
	Runtime                                     string
	CpuShares, Memory, NanoCpus                 int64
	CgroupParent                                string
	BlkioWeight                                 uint16
	CpuPeriod, CpuQuota                         int64
	CpusetCpus, CpusetMems                      string
	MemoryReservation, MemorySwap               int64
	MemorySwappiness                            *int64
	OomKillDisable                              bool
	PidsLimit                                   int64
	Ulimits                                     []Ulimit
	Init                                        *bool `json:",omitempty"`
	MaskedPaths, ReadonlyPaths                  []string
}

// InspectPort is one host side of a published port.
type InspectPort struct {
	HostIp, HostPort string
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
		LogPath: c.logConfig(e).Path, RestartCount: st.Restarts, Driver: "overlay", Platform: "linux", AppArmorProfile: c.Security.AppArmor,
		State: InspectState{
			Status: st.Word, Running: st.Busy(), Paused: st.Word == StatusPaused, Restarting: st.Word == StatusRestarting,
			OOMKilled: st.OOMKilled, Pid: st.Pid, ExitCode: st.ExitCode, Error: st.Error, StartedAt: rfc(st.StartedAt), FinishedAt: rfc(st.FinishedAt),
		},
		GraphDriver: InspectGraph{Name: "overlay", Data: map[string]string{"UpperDir": e.dataDir(c.ID, upperDir), "WorkDir": e.dataDir(c.ID, workDir)}},
	}
	i.State.Health = e.inspectHealth(c)
	i.HostConfig, i.Config, i.Mounts = c.inspectHost(), c.inspectConfig(), e.inspectMounts(c)
	i.NetworkSettings = e.Networks.InspectContainer(c.ID)
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

func (c *Config) inspectConfig() InspectConfig {
	ports, volumes := map[string]struct{}{}, map[string]struct{}(nil)
	for _, p := range c.Exposed {
		ports[p] = struct{}{}
	}
	for _, m := range c.Mounts {
		if m.Anonymous {
			if volumes == nil {
				volumes = map[string]struct{}{}
			}
			volumes[m.Target] = struct{}{}
		}
	}
	return InspectConfig{
		Hostname: c.Hostname, Domainname: c.Domainname, User: c.User, AttachStdout: true, AttachStderr: true, AttachStdin: c.StdinOnce,
		ExposedPorts: ports, Tty: c.Tty, OpenStdin: c.OpenStdin, StdinOnce: c.StdinOnce, Env: c.Env, Cmd: c.Cmd, Image: c.Image,
		Volumes: volumes, WorkingDir: c.WorkingDir, Entrypoint: c.Entrypoint, Labels: c.Labels, StopSignal: c.StopSignal, StopTimeout: c.StopTimeoutSec,
	}
}

func (c *Config) inspectHost() InspectHost {
	l, s := &c.Limits, &c.Security
	h := InspectHost{
		NetworkMode: c.Network.Mode, AutoRemove: c.AutoRemove, CapAdd: s.CapAdd, CapDrop: s.CapDrop, CgroupnsMode: c.Spaces.Cgroup,
		Dns: c.Network.DNS, DnsOptions: c.Network.DNSOptions, DnsSearch: c.Network.DNSSearch, ExtraHosts: c.Network.ExtraHosts,
		GroupAdd: c.GroupAdd, IpcMode: c.Spaces.IPC, PidMode: c.Spaces.PID, UTSMode: c.Spaces.UTS, UsernsMode: c.Spaces.User,
		OomScoreAdj: l.OomScoreAdj, Privileged: s.Privileged, PublishAllPorts: c.Network.PublishAll, ReadonlyRootfs: s.ReadOnly,
		SecurityOpt: s.Options, ShmSize: l.ShmSize, Sysctls: l.Sysctls, Runtime: c.Runtime, CpuShares: l.CPUShares, Memory: l.Memory,
		NanoCpus: l.NanoCPUs, CgroupParent: l.CgroupParent, BlkioWeight: l.BlkioWeight, CpuPeriod: l.CPUPeriod, CpuQuota: l.CPUQuota,
		CpusetCpus: l.CpusetCpus, CpusetMems: l.CpusetMems, MemoryReservation: l.MemoryReservation, MemorySwap: l.MemorySwap,
		MemorySwappiness: l.MemorySwappiness, OomKillDisable: l.OomKillDisable, PidsLimit: l.PidsLimit, Ulimits: l.Ulimits,
		PortBindings: map[string][]InspectPort{},
	}
	if h.ShmSize == 0 {
		h.ShmSize = defaultShm
	}
	if h.Runtime == "" {
		h.Runtime = "kist"
	}
	if l.Memory > 0 && h.MemorySwap == 0 {
		h.MemorySwap = 2 * l.Memory
	}
	h.LogConfig.Type, h.LogConfig.Config = c.Log.Driver, c.Log.Options
	if h.LogConfig.Type == "" {
		h.LogConfig.Type = "json-file"
	}
	h.RestartPolicy.Name, h.RestartPolicy.MaximumRetryCount = c.Restart.Name, c.Restart.MaximumRetryCount
	if h.RestartPolicy.Name == "" {
		h.RestartPolicy.Name = "no"
	}
	if c.Init {
		h.Init = &c.Init
	}
	if !s.Privileged && !s.Unmasked {
		h.MaskedPaths, h.ReadonlyPaths = maskedPaths[:], readonlyPaths[:]
	}
	for _, m := range c.Mounts {
		switch {
		case m.Type == volume.TypeTmpfs:
			if h.Tmpfs == nil {
				h.Tmpfs = map[string]string{}
			}
			h.Tmpfs[m.Target] = ""
		case !m.Anonymous:
			bind := m.Source + ":" + m.Target
			if m.ReadOnly {
				bind += ":ro"
			}
			h.Binds = append(h.Binds, bind)
		}
	}
	bindings, _ := c.ports()
	for _, b := range bindings {
		key := fmt.Sprintf("%d/%s", b.ContainerPort, b.Proto)
		h.PortBindings[key] = append(h.PortBindings[key], InspectPort{b.HostIP, portText(b.HostPort)})
	}
	return h
}

func portText(n uint16) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

func (e *Engine) inspectMounts(c *Config) []InspectMount {
	list := []InspectMount{}
	for _, m := range c.Mounts {
		o := InspectMount{Type: m.Type, Source: m.Source, Destination: m.Target, RW: !m.ReadOnly, Propagation: m.Propagation}
		switch m.Type {
		case volume.TypeVolume:
			o.Name, o.Driver, o.Source = m.Source, "local", ""
			if v, err := e.Volumes.Get(m.Source); err == nil {
				o.Source, o.Driver = v.Path, v.Driver
			}
		case volume.TypeBind:
			if o.Propagation == "" {
				o.Propagation = "rprivate"
			}
		}
		list = append(list, o)
	}
	return list
}

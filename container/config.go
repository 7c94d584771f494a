package container

import (
	"time"

	"github.com/kist-containers/kist/container/monitor"
	"github.com/kist-containers/kist/volume"
)

// Config is what is stored of a container: everything a start needs, settled
// when it was created.
type Config struct {
	Version int       `json:"version"`
	ID      string    `json:"id"`
	Name    string    `json:"name"`
	Created time.Time `json:"created"`

	// Image is the name that was given, ImageID what it stood for.
	Image   string `json:"image,omitempty"`
	ImageID string `json:"imageId,omitempty"`
	// Rootfs is a plain directory instead of an image, under a throwaway overlay
	// with RootfsOverlay.
	Rootfs        string `json:"rootfs,omitempty"`
	RootfsOverlay bool   `json:"rootfsOverlay,omitempty"`
	// Lowers are the layers' directories, top first.
	Lowers []string `json:"lowers,omitempty"`

	Entrypoint  []string          `json:"entrypoint,omitempty"`
	Cmd         []string          `json:"cmd,omitempty"`
	Env         []string          `json:"env,omitempty"`
	WorkingDir  string            `json:"workingDir,omitempty"`
	User        string            `json:"user,omitempty"`
	GroupAdd    []string          `json:"groupAdd,omitempty"`
	Hostname    string            `json:"hostname,omitempty"`
	Domainname  string            `json:"domainname,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Tty         bool              `json:"tty,omitempty"`
	OpenStdin   bool              `json:"openStdin,omitempty"`
	StdinOnce   bool              `json:"stdinOnce,omitempty"`
	// Attach are the streams that were attached at the creation.
	Attach []string `json:"attach,omitempty"`
	// Exposed are the image's and --expose's ports: "80/tcp".
	Exposed []string `json:"exposed,omitempty"`

	StopSignal     string                `json:"stopSignal,omitempty"`
	StopTimeoutSec *int                  `json:"stopTimeoutSec,omitempty"`
	AutoRemove     bool                  `json:"autoRemove,omitempty"`
	Init           bool                  `json:"init,omitempty"`
	Restart        monitor.RestartPolicy `json:"restart"`
	Health         *monitor.Health       `json:"health,omitempty"`
	Log            monitor.LogConfig     `json:"log"`
	Runtime        string                `json:"runtime,omitempty"`
	PidFile        string                `json:"pidFile,omitempty"`
	// CreateCommand are the arguments of the kist run or create that made it.
	CreateCommand []string `json:"createCommand,omitempty"`
	// MonitorPidFile is where the monitor's number goes.
	MonitorPidFile string `json:"monitorPidFile,omitempty"`

	// TimeZone is the host's file that is shown as /etc/localtime.
	TimeZone string `json:"timeZone,omitempty"`
	// Umask is the program's, nil for 0022.
	Umask       *uint32  `json:"umask,omitempty"`
	Personality string   `json:"personality,omitempty"`
	InitPath    string   `json:"initPath,omitempty"`
	Accounts    Accounts `json:"accounts,omitzero"`
	// Systemd is true (also for ""): room is made for systemd if it is the
	// command; false, or always.
	Systemd string `json:"systemd,omitempty"`
	// SystemdSize bounds systemd's tmpfs mounts, in bytes; 0 is no bound.
	SystemdSize int64 `json:"systemdSize,omitempty"`
	// Requires are containers that are started before this one.
	Requires []string `json:"requires,omitempty"`
	// RemoveImage removes the image after the container.
	RemoveImage bool `json:"removeImage,omitempty"`
	// TimeoutSec is how long a run may take, 0 for ever.
	TimeoutSec uint `json:"timeoutSec,omitempty"`
	// Notify is who tells a service manager that the container is ready: see
	// monitor.Notify. ignore, also for "", is nobody.
	Notify  string      `json:"notify,omitempty"`
	Secrets []SecretUse `json:"secrets,omitempty"`
	// ChrootDirs get the files of the network too.
	ChrootDirs []string `json:"chrootDirs,omitempty"`
	// LayerSize bounds the writable layer, in bytes.
	LayerSize int64 `json:"layerSize,omitempty"`

	Mounts   []volume.Mount `json:"mounts,omitempty"`
	Security Security       `json:"security"`
	Limits   Limits         `json:"limits"`
	Spaces   Namespaces     `json:"namespaces"`
	Network  NetworkConfig  `json:"network"`
}

// Security is what a container may do.
type Security struct {
	Privileged bool     `json:"privileged,omitempty"`
	CapAdd     []string `json:"capAdd,omitempty"`
	CapDrop    []string `json:"capDrop,omitempty"`
	ReadOnly   bool     `json:"readOnly,omitempty"`
	NoNewPrivs bool     `json:"noNewPrivs,omitempty"`
	// Seccomp is "" for the default profile, unconfined, or a profile's JSON.
	Seccomp  string   `json:"seccomp,omitempty"`
	AppArmor string   `json:"apparmor,omitempty"`
	Label    []string `json:"label,omitempty"`
	// Unmasked shows what /proc and /sys hide by default.
	Unmasked    bool     `json:"unmasked,omitempty"`
	Mask        []string `json:"mask,omitempty"`
	Unmask      []string `json:"unmask,omitempty"`
	Devices     []Device `json:"devices,omitempty"`
	DeviceRules []string `json:"deviceRules,omitempty"`
	// CDI are devices by their CDI name, GPUs docker's --gpus; their files are in
	// CDIDirs, or in the usual directories.
	CDI     []string `json:"cdi,omitempty"`
	GPUs    []string `json:"gpus,omitempty"`
	CDIDirs []string `json:"cdiDirs,omitempty"`
	// ProcOptions are options of the mount of /proc.
	ProcOptions     []string `json:"procOptions,omitempty"`
	WritableCgroups bool     `json:"writableCgroups,omitempty"`
	// SystemdCgroups is what an image may decide; see runtime.DefaultMounts.
	SystemdCgroups bool `json:"systemdCgroups,omitempty"`
	// Options are the --security-opt as they were given.
	Options []string `json:"options,omitempty"`
}

// Device is docker's --device.
type Device struct {
	Host        string `json:"host"`
	Container   string `json:"container"`
	Permissions string `json:"permissions"`
}

// Ulimit is docker's --ulimit; -1 is no limit.
type Ulimit struct {
	Name string `json:"name"`
	Soft int64  `json:"soft"`
	Hard int64  `json:"hard"`
}

// Limits are a container's resources: sizes in bytes, zero for "not given".
type Limits struct {
	Memory            int64             `json:"memory,omitempty"`
	MemoryReservation int64             `json:"memoryReservation,omitempty"`
	MemorySwap        int64             `json:"memorySwap,omitempty"`
	MemorySwappiness  *int64            `json:"memorySwappiness,omitempty"`
	OomKillDisable    bool              `json:"oomKillDisable,omitempty"`
	OomScoreAdj       int               `json:"oomScoreAdj,omitempty"`
	NanoCPUs          int64             `json:"nanoCpus,omitempty"`
	CPUShares         int64             `json:"cpuShares,omitempty"`
	CPUPeriod         int64             `json:"cpuPeriod,omitempty"`
	CPUQuota          int64             `json:"cpuQuota,omitempty"`
	CPURtPeriod       int64             `json:"cpuRtPeriod,omitempty"`
	CPURtRuntime      int64             `json:"cpuRtRuntime,omitempty"`
	CpusetCpus        string            `json:"cpusetCpus,omitempty"`
	CpusetMems        string            `json:"cpusetMems,omitempty"`
	PidsLimit         int64             `json:"pidsLimit,omitempty"`
	BlkioWeight       uint16            `json:"blkioWeight,omitempty"`
	BlkioWeightDevice []string          `json:"blkioWeightDevice,omitempty"`
	ReadBps           []string          `json:"readBps,omitempty"`
	WriteBps          []string          `json:"writeBps,omitempty"`
	ReadIOps          []string          `json:"readIops,omitempty"`
	WriteIOps         []string          `json:"writeIops,omitempty"`
	Ulimits           []Ulimit          `json:"ulimits,omitempty"`
	ShmSize           int64             `json:"shmSize,omitempty"`
	Sysctls           map[string]string `json:"sysctls,omitempty"`
	CgroupParent      string            `json:"cgroupParent,omitempty"`
	// NoCgroup leaves the container in its monitor's cgroup.
	NoCgroup bool `json:"noCgroup,omitempty"`
	// Unified are files of cgroup v2 and what is written to them.
	Unified map[string]string `json:"unified,omitempty"`
}

// Namespaces are a container's modes: "" is docker's default, else private,
// host, or container:ID.
type Namespaces struct {
	IPC    string `json:"ipc,omitempty"`
	PID    string `json:"pid,omitempty"`
	UTS    string `json:"uts,omitempty"`
	Cgroup string `json:"cgroup,omitempty"`
	// User is "" or host, keep-id, auto, or a mapping "container:host:size".
	User string `json:"user,omitempty"`
	// UIDs and GIDs are the mapping that User stands for.
	UIDs []IDMap `json:"uids,omitempty"`
	GIDs []IDMap `json:"gids,omitempty"`
}

// NetworkConfig is what a container wants of its networks.
type NetworkConfig struct {
	// Mode is bridge (also for ""), none, host or container:ID, or the name of
	// the first network.
	Mode       string     `json:"mode,omitempty"`
	Ports      []string   `json:"ports,omitempty"`
	PublishAll bool       `json:"publishAll,omitempty"`
	DNS        []string   `json:"dns,omitempty"`
	DNSSearch  []string   `json:"dnsSearch,omitempty"`
	DNSOptions []string   `json:"dnsOptions,omitempty"`
	ExtraHosts []string   `json:"extraHosts,omitempty"`
	Networks   []Endpoint `json:"networks,omitempty"`
	// NoHosts and NoHostname leave the image's files alone.
	NoHosts bool `json:"noHosts,omitempty"`
	// HostsFile is what /etc/hosts begins with: "" for nothing, image, or a file of
	// the host.
	HostsFile  string `json:"hostsFile,omitempty"`
	NoHostname bool   `json:"noHostname,omitempty"`
}

// Endpoint is a container's wish for one network.
type Endpoint struct {
	Network    string            `json:"network"`
	Aliases    []string          `json:"aliases,omitempty"`
	IPv4       string            `json:"ipv4,omitempty"`
	IPv6       string            `json:"ipv6,omitempty"`
	LinkLocal  []string          `json:"linkLocal,omitempty"`
	MAC        string            `json:"mac,omitempty"`
	DriverOpts map[string]string `json:"driverOpts,omitempty"`
	GwPriority int               `json:"gwPriority,omitempty"`
}

// Args are the program and its arguments.
func (c *Config) Args() []string {
	return append(append([]string{}, c.Entrypoint...), c.Cmd...)
}

// StopTimeout is how long a stop waits before SIGKILL: docker's ten seconds
// unless the container has its own; negative waits for ever.
func (c *Config) StopTimeout() time.Duration {
	if c.StopTimeoutSec == nil {
		return 10 * time.Second
	}
	return time.Duration(*c.StopTimeoutSec) * time.Second
}

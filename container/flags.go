package container

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	units "github.com/docker/go-units"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/container/monitor"
	"github.com/kist-containers/kist/internal/state"
	"github.com/kist-containers/kist/internal/ui"
	"github.com/kist-containers/kist/volume"
)

// createFlags are the flags that `create` and `run` share, grouped as a reader
// would look for them.
type createFlags struct {
	processFlags  `embed:""`
	identityFlags `embed:""`
	storageFlags  `embed:""`
	networkFlags  `embed:""`
	resourceFlags `embed:""`
	securityFlags `embed:""`
	lifeFlags     `embed:""`
}

type processFlags struct {
	Attach      []string `short:"a" sep:"none" help:"Attach to STDIN, STDOUT or STDERR." placeholder:"STREAM"`
	Interactive bool     `short:"i" help:"Keep standard input open."`
	Tty         bool     `short:"t" help:"Give it a terminal."`
	Env         []string `short:"e" sep:"none" help:"Set a variable; KEY alone takes the caller's." placeholder:"KEY=VALUE"`
	EnvFile     []string `sep:"none" help:"Read variables from a file." placeholder:"FILE"`
	EnvHost     bool     `help:"Take over the caller's variables."`
	Workdir     string   `short:"w" help:"Working directory." placeholder:"DIR"`
	User        string   `short:"u" help:"User, by name or id." placeholder:"USER[:GROUP]"`
	GroupAdd    []string `sep:"none" help:"Add a supplementary group." placeholder:"GROUP"`
	Entrypoint  *string  `help:"Replace the image's entrypoint." placeholder:"PROGRAM"`
	Init        bool     `help:"Run an init that forwards signals and reaps processes."`
	Tz          string   `help:"Time zone (TZ), or local." placeholder:"ZONE"`
}

type identityFlags struct {
	Name       string   `help:"Name of the container." placeholder:"NAME"`
	Hostname   string   `short:"h" help:"Host name." placeholder:"NAME"`
	Domainname string   `help:"Domain name." placeholder:"NAME"`
	Label      []string `short:"l" sep:"none" help:"Set a label." placeholder:"KEY=VALUE"`
	LabelFile  []string `sep:"none" help:"Read labels from a file." placeholder:"FILE"`
	Annotation []string `sep:"none" help:"Add an annotation for the OCI runtime." placeholder:"KEY=VALUE"`
	Cidfile    string   `name:"cidfile" help:"Write the container's ID to a file." placeholder:"FILE"`
	Pidfile    string   `name:"pidfile" help:"Write PID 1's number to a file." placeholder:"FILE"`
	Platform   string   `help:"Platform of the image: os[/arch[/variant]]." placeholder:"PLATFORM"`
	Pull       string   `default:"missing" enum:"always,missing,never,newer" help:"When to pull the image: always, missing, never."`
	Quiet      bool     `short:"q" help:"Show no progress of a pull."`
	Rootfs     bool     `help:"The image is a directory of this machine; DIR:O puts a throwaway overlay over it."`
	Runtime    string   `help:"OCI runtime to use instead of kist's own." placeholder:"PATH"`
	Isolation  string   `hidden:""`
	Link       []string `hidden:"" sep:"none"`
}

type storageFlags struct {
	Volume       []string `short:"v" sep:"none" help:"Mount a volume or a directory." placeholder:"[SOURCE:]TARGET[:OPTIONS]"`
	Mount        []string `sep:"none" help:"Mount something: type=bind|volume|tmpfs,source=…,target=…" placeholder:"SPEC"`
	Tmpfs        []string `sep:"none" help:"Mount a tmpfs." placeholder:"TARGET[:OPTIONS]"`
	VolumesFrom  []string `sep:"none" help:"Mount the volumes of another container." placeholder:"CONTAINER[:ro]"`
	VolumeDriver string   `help:"Driver of volumes that are made." placeholder:"DRIVER"`
	ReadOnly     bool     `help:"Mount the root file system read-only."`
	ShmSize      ui.Bytes `help:"Size of /dev/shm (64m)." placeholder:"SIZE"`
}

type networkFlags struct {
	Network      []string `name:"network" aliases:"net" sep:"none" help:"Network: bridge, none, host, container:NAME or a network's name." placeholder:"NETWORK"`
	Publish      []string `short:"p" sep:"none" help:"Publish a port." placeholder:"[[IP:]HOST:]PORT[/PROTO]"`
	PublishAll   bool     `short:"P" help:"Publish all exposed ports."`
	Expose       []string `sep:"none" help:"Expose a port." placeholder:"PORT[/PROTO]"`
	Dns          []string `sep:"none" help:"DNS server." placeholder:"IP"`
	DnsSearch    []string `sep:"none" help:"DNS search domain." placeholder:"DOMAIN"`
	DnsOption    []string `name:"dns-option" aliases:"dns-opt" sep:"none" help:"DNS option." placeholder:"OPTION"`
	AddHost      []string `sep:"none" help:"Add a line to /etc/hosts." placeholder:"NAME:IP"`
	NetworkAlias []string `aliases:"net-alias" sep:"none" help:"Name on the network." placeholder:"NAME"`
	Ip           string   `help:"IPv4 address on the network." placeholder:"IP"`
	Ip6          string   `help:"IPv6 address on the network." placeholder:"IP"`
	MacAddress   string   `help:"MAC address." placeholder:"MAC"`
	LinkLocalIp  []string `sep:"none" help:"Link-local address." placeholder:"IP"`
}

type resourceFlags struct {
	Memory            ui.Bytes `short:"m" help:"Memory limit." placeholder:"SIZE"`
	MemoryReservation ui.Bytes `help:"Soft memory limit." placeholder:"SIZE"`
	MemorySwap        ui.Bytes `help:"Limit of memory and swap together; -1 for no limit of swap." placeholder:"SIZE"`
	MemorySwappiness  *int64   `help:"Swappiness, 0 to 100." placeholder:"N"`
	KernelMemory      string   `hidden:""`
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
	CgroupParent      string   `help:"Cgroup above the container's." placeholder:"PATH"`
	Cgroupns          string   `name:"cgroupns" help:"Cgroup namespace: private or host." placeholder:"MODE"`
}

type securityFlags struct {
	CapAdd           []string `sep:"none" help:"Add a capability." placeholder:"CAP"`
	CapDrop          []string `sep:"none" help:"Drop a capability." placeholder:"CAP"`
	Privileged       bool     `help:"Give it all capabilities and devices, and hide nothing."`
	SecurityOpt      []string `sep:"none" help:"no-new-privileges, seccomp=FILE|unconfined, apparmor=…, systempaths=unconfined, mask=…, unmask=…" placeholder:"OPTION"`
	Device           []string `sep:"none" help:"Give it a device." placeholder:"HOST[:CONTAINER[:rwm]]"`
	DeviceCgroupRule []string `sep:"none" help:"Allow devices by number." placeholder:"RULE"`
	Ipc              string   `help:"IPC namespace: private, host, container:NAME, none, shareable." placeholder:"MODE"`
	Pid              string   `help:"PID namespace: private, host or container:NAME." placeholder:"MODE"`
	Uts              string   `help:"UTS namespace: private or host." placeholder:"MODE"`
	Userns           string   `help:"User namespace: host, auto, keep-id or CONTAINER:HOST:SIZE." placeholder:"MODE"`
}

type lifeFlags struct {
	Rm                  bool          `help:"Remove the container after its exit."`
	Restart             string        `default:"no" help:"no, always, unless-stopped or on-failure[:N]." placeholder:"POLICY"`
	StopSignal          string        `help:"Signal that stops it (SIGTERM)." placeholder:"SIGNAL"`
	StopTimeout         *int          `help:"Seconds from the stop signal to SIGKILL (10)." placeholder:"SECONDS"`
	HealthCmd           string        `help:"Command that checks its health." placeholder:"COMMAND"`
	HealthInterval      time.Duration `help:"Time between two checks (30s)."`
	HealthTimeout       time.Duration `help:"Time a check may take (30s)."`
	HealthStartPeriod   time.Duration `help:"Time to get ready, in which failures do not count."`
	HealthStartInterval time.Duration `help:"Time between two checks in the start period (5s)."`
	HealthRetries       int           `help:"Failures in a row that make it unhealthy (3)."`
	NoHealthcheck       bool          `name:"no-healthcheck" help:"Do not check its health."`
	LogDriver           string        `help:"Where its output is kept: json-file, local or none." placeholder:"DRIVER"`
	LogOpt              []string      `sep:"none" help:"Option of the log driver: max-size=10m, max-file=3." placeholder:"KEY=VALUE"`
}

// settle turns flags into a configuration, without the image's part. It reads
// what the flags name (files of variables) and nothing else.
func (f *createFlags) settle() (*Config, error) {
	c := &Config{Version: 1}
	for _, part := range []func(*Config) error{f.process, f.identity, f.storage, f.network, f.resources, f.security, f.life} {
		if err := part(c); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (f *createFlags) process(c *Config) error {
	env, err := f.environment()
	if err != nil {
		return err
	}
	if f.Tz != "" {
		env = append(env, "TZ="+f.Tz)
	}
	if f.Workdir != "" && !filepath.IsAbs(f.Workdir) {
		return fmt.Errorf("-w %s: the working directory must be an absolute path", f.Workdir)
	}
	c.Env, c.WorkingDir, c.User, c.GroupAdd = env, f.Workdir, f.User, f.GroupAdd
	c.Tty, c.OpenStdin, c.Init = f.Tty, f.Interactive, f.Init
	for _, a := range f.Attach {
		a = strings.ToLower(a)
		if !slices.Contains([]string{"stdin", "stdout", "stderr"}, a) {
			return fmt.Errorf("-a %s: want STDIN, STDOUT or STDERR", a)
		}
		c.Attach = append(c.Attach, a)
	}
	return nil
}

// environment is what -e and --env-file set, files first as in docker.
func (f *createFlags) environment() ([]string, error) {
	var env []string
	if f.EnvHost {
		env = os.Environ()
	}
	for _, name := range f.EnvFile {
		lines, err := readPairs(name)
		if err != nil {
			return nil, fmt.Errorf("--env-file %s: %w", name, err)
		}
		env = append(env, lines...)
	}
	for _, e := range f.Env {
		key, _, ok := strings.Cut(e, "=")
		if key == "" || strings.ContainsRune(e, 0) {
			return nil, fmt.Errorf("-e %s: no variable's name", e)
		}
		if !ok {
			v, set := os.LookupEnv(key)
			if !set {
				continue // docker: a variable that the caller does not have
			}
			e = key + "=" + v
		}
		env = append(env, e)
	}
	return env, nil
}

// readPairs reads a file of KEY=VALUE or KEY lines, "#" for comments.
func readPairs(name string) ([]string, error) {
	file, err := os.Open(name)
	if err != nil {
		var path *fs.PathError
		if errors.As(err, &path) {
			return nil, path.Err
		}
		return nil, err
	}
	defer file.Close()
	var pairs []string
	lines := bufio.NewScanner(file)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimLeft(strings.TrimPrefix(lines.Text(), "\ufeff"), " \t")
		if line == "" || line[0] == '#' {
			continue
		}
		key, _, ok := strings.Cut(line, "=")
		if key == "" || strings.ContainsAny(key, " \t") {
			return nil, fmt.Errorf("line %d: %q is no variable's name", n, key)
		}
		if !ok {
			v, set := os.LookupEnv(key)
			if !set {
				continue
			}
			line = key + "=" + v
		}
		pairs = append(pairs, line)
	}
	return pairs, lines.Err()
}

func (f *createFlags) identity(c *Config) (err error) {
	if f.Name != "" && !(state.ValidName(f.Name) && len(f.Name) > 1) {
		return fmt.Errorf("--name %s: want at least two of [a-zA-Z0-9_.-], the first a letter or digit", f.Name)
	}
	if len(f.Hostname) > 64 || strings.ContainsAny(f.Hostname, "/ \t\n\x00") {
		return fmt.Errorf("-h %s: not a host name of at most 64 bytes", f.Hostname)
	}
	if f.Isolation != "" && f.Isolation != "default" {
		return errors.New("--isolation: only Windows has it")
	}
	if len(f.Link) > 0 {
		return ui.Hint(errors.New("--link: kist has no links; containers on one network find each other by name"),
			"kist network create NET, then --network NET for both")
	}
	c.Name, c.Hostname, c.Domainname, c.Runtime = f.Name, f.Hostname, f.Domainname, f.Runtime
	if c.Runtime == "kist" || c.Runtime == "runc" {
		c.Runtime = ""
	}
	if f.Pidfile != "" {
		if c.PidFile, err = filepath.Abs(f.Pidfile); err != nil {
			return err
		}
	}
	var labels []string
	for _, name := range f.LabelFile {
		lines, err := readPairs(name)
		if err != nil {
			return fmt.Errorf("--label-file %s: %w", name, err)
		}
		labels = append(labels, lines...)
	}
	c.Labels = pairs(append(labels, f.Label...))
	c.Annotations = pairs(f.Annotation)
	return nil
}

func pairs(list []string) map[string]string {
	if len(list) == 0 {
		return nil
	}
	m := map[string]string{}
	for _, s := range list {
		k, v, _ := strings.Cut(s, "=")
		m[k] = v
	}
	return m
}

func (f *createFlags) storage(c *Config) error {
	cwd, err := os.Getwd()
	if err != nil {
		return err
	}
	add := func(m volume.Mount, err error) error {
		if f.VolumeDriver != "" && m.Driver == "" && m.Type == volume.TypeVolume {
			m.Driver = f.VolumeDriver
		}
		c.Mounts = append(c.Mounts, m)
		return err
	}
	for _, v := range f.Volume {
		if err := add(volume.ParseVolume(v, cwd)); err != nil {
			return err
		}
	}
	for _, m := range f.Mount {
		if err := add(volume.ParseMount(m, cwd)); err != nil {
			return err
		}
	}
	for _, t := range f.Tmpfs {
		if err := add(volume.ParseTmpfs(t)); err != nil {
			return err
		}
	}
	c.Security.ReadOnly, c.Limits.ShmSize = f.ReadOnly, int64(f.ShmSize)
	return volume.Sort(c.Mounts)
}

func (f *createFlags) network(c *Config) error {
	n := &c.Network
	n.Ports, n.PublishAll = f.Publish, f.PublishAll
	n.DNS, n.DNSSearch, n.DNSOptions, n.ExtraHosts = f.Dns, f.DnsSearch, f.DnsOption, f.AddHost
	c.Exposed = f.Expose
	n.Mode = "bridge"
	if len(f.Network) > 0 {
		n.Mode = f.Network[0]
	}
	if n.Mode == "default" {
		n.Mode = "bridge"
	}
	special := n.Mode == "none" || n.Mode == "host" || strings.HasPrefix(n.Mode, "container:")
	if special && len(f.Network) > 1 {
		return fmt.Errorf("--network %s: cannot be combined with another network", n.Mode)
	}
	if special && (f.Ip != "" || f.Ip6 != "" || len(f.NetworkAlias) > 0 || f.MacAddress != "" && n.Mode != "none") {
		return fmt.Errorf("--network %s: it takes no address and no alias", n.Mode)
	}
	if strings.HasPrefix(n.Mode, "container:") {
		for flag, given := range map[string]bool{"-p": len(f.Publish) > 0, "-h": f.Hostname != "", "--dns": len(f.Dns) > 0, "--add-host": len(f.AddHost) > 0} {
			if given {
				return fmt.Errorf("%s and --network %s contradict each other: the other container decides", flag, n.Mode)
			}
		}
	}
	if special {
		return nil
	}
	for i, name := range append([]string{n.Mode}, f.Network[min(1, len(f.Network)):]...) {
		ep := Endpoint{Network: name}
		if i == 0 {
			ep.Aliases, ep.IPv4, ep.IPv6, ep.MAC, ep.LinkLocal = f.NetworkAlias, f.Ip, f.Ip6, f.MacAddress, f.LinkLocalIp
		}
		n.Networks = append(n.Networks, ep)
	}
	return nil
}

func (f *createFlags) resources(c *Config) error {
	l := &c.Limits
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
		if u.Name != "host" {
			l.Ulimits = append(l.Ulimits, u)
		}
	}
	l.Sysctls = pairs(f.Sysctl)
	return l.check()
}

// check holds docker's bounds.
func (l *Limits) check() error {
	const leastMemory = 6 << 20
	switch {
	case l.Memory != 0 && l.Memory < leastMemory:
		return errors.New("--memory: the minimum is 6 MiB")
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
	case l.CPUQuota > 0 && l.CPUQuota < 1000:
		return errors.New("--cpu-quota: want at least 1000 microseconds")
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
		return Ulimit{}, fmt.Errorf("--ulimit %s: want NAME=SOFT[:HARD], nofile=1024:4096 for example", s)
	}
	return Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard}, nil
}

func (f *createFlags) security(c *Config) error {
	s := &c.Security
	s.Privileged, s.CapAdd, s.CapDrop, s.DeviceRules = f.Privileged, f.CapAdd, f.CapDrop, f.DeviceCgroupRule
	for _, name := range append(slices.Clone(f.CapAdd), f.CapDrop...) {
		if _, err := capability(name); err != nil {
			return err
		}
	}
	c.Spaces.IPC, c.Spaces.PID, c.Spaces.UTS, c.Spaces.User = f.Ipc, f.Pid, f.Uts, f.Userns
	for _, d := range f.Device {
		dev, err := parseDevice(d)
		if err != nil {
			return err
		}
		s.Devices = append(s.Devices, dev)
	}
	for _, o := range f.SecurityOpt {
		if err := s.option(o); err != nil {
			return err
		}
	}
	s.Options = f.SecurityOpt
	return c.Spaces.check()
}

func (s *Security) option(o string) error {
	key, value, hasValue := strings.Cut(o, "=")
	if !hasValue {
		key, value, hasValue = strings.Cut(o, ":")
	}
	switch key {
	case "no-new-privileges":
		s.NoNewPrivs = true
		if hasValue {
			v, err := strconv.ParseBool(value)
			if err != nil {
				return fmt.Errorf("--security-opt %s: want true or false", o)
			}
			s.NoNewPrivs = v
		}
	case "seccomp":
		if value == "unconfined" || value == "builtin" {
			s.Seccomp = strings.TrimPrefix(value, "builtin")
			return nil
		}
		data, err := os.ReadFile(value)
		if err != nil {
			return fmt.Errorf("--security-opt %s: %w", o, err)
		}
		if !json.Valid(data) {
			return fmt.Errorf("--security-opt %s: not a profile: not valid JSON", o)
		}
		s.Seccomp = string(data)
	case "apparmor":
		s.AppArmor = value
	case "label":
		s.Label = append(s.Label, value)
	case "systempaths":
		if value != "unconfined" {
			return fmt.Errorf("--security-opt %s: want systempaths=unconfined", o)
		}
		s.Unmasked = true
	case "mask":
		s.Mask = append(s.Mask, strings.Split(value, ":")...)
	case "unmask":
		s.Unmask = append(s.Unmask, strings.Split(value, ":")...)
	case "writable-cgroups":
	default:
		return fmt.Errorf("--security-opt %s: no such option", o)
	}
	return nil
}

func (n *Namespaces) check() error {
	for _, x := range []struct {
		flag, value string
		allowed     []string
		container   bool
	}{
		{"--ipc", n.IPC, []string{"", "private", "host", "none", "shareable"}, true},
		{"--pid", n.PID, []string{"", "private", "host"}, true},
		{"--uts", n.UTS, []string{"", "private", "host"}, false},
		{"--cgroupns", n.Cgroup, []string{"", "private", "host"}, false},
	} {
		_, other := strings.CutPrefix(x.value, "container:")
		if !slices.Contains(x.allowed, x.value) && !(other && x.container) {
			return fmt.Errorf("%s %s: no such mode", x.flag, x.value)
		}
	}
	return nil
}

func parseDevice(s string) (Device, error) {
	parts := strings.Split(s, ":")
	d := Device{Host: parts[0], Container: parts[0], Permissions: "rwm"}
	switch {
	case len(parts) > 3 || !strings.HasPrefix(d.Host, "/"):
		return d, fmt.Errorf("--device %s: want HOST[:CONTAINER[:rwm]]", s)
	case len(parts) == 2 && validPermissions(parts[1]):
		d.Permissions = parts[1]
	case len(parts) >= 2:
		d.Container = parts[1]
	}
	if len(parts) == 3 {
		d.Permissions = parts[2]
	}
	if !validPermissions(d.Permissions) || !strings.HasPrefix(d.Container, "/") {
		return d, fmt.Errorf("--device %s: want HOST[:CONTAINER[:rwm]]", s)
	}
	return d, nil
}

func validPermissions(s string) bool { return s != "" && strings.Trim(s, "rwm") == "" }

func (f *createFlags) life(c *Config) error {
	c.AutoRemove, c.StopTimeoutSec = f.Rm, f.StopTimeout
	var err error
	if f.StopSignal != "" {
		if _, err := parseSignal(f.StopSignal); err != nil {
			return fmt.Errorf("--stop-signal %s: %w", f.StopSignal, err)
		}
		c.StopSignal = f.StopSignal
	}
	if c.Restart, err = parseRestart(f.Restart); err != nil {
		return err
	}
	if f.Rm && c.Restart.Name != "" {
		return errors.New("--rm and --restart contradict each other")
	}
	c.Log = monitor.LogConfig{Driver: f.LogDriver, Options: pairs(f.LogOpt)}
	if err := monitor.CheckLog(c.Log); err != nil {
		return err
	}
	return f.health(c)
}

func (f *createFlags) health(c *Config) error {
	h := &monitor.Health{Interval: f.HealthInterval, Timeout: f.HealthTimeout, StartPeriod: f.HealthStartPeriod,
		StartInterval: f.HealthStartInterval, Retries: f.HealthRetries}
	given := f.HealthCmd != "" || h.Interval != 0 || h.Timeout != 0 || h.StartPeriod != 0 || h.StartInterval != 0 || h.Retries != 0
	switch {
	case f.NoHealthcheck && given:
		return errors.New("--no-healthcheck and --health-… contradict each other")
	case f.NoHealthcheck:
		c.Health = &monitor.Health{Test: []string{"NONE"}}
	case given:
		if f.HealthCmd != "" {
			h.Test = []string{"CMD-SHELL", f.HealthCmd}
			if f.HealthCmd == "none" {
				h.Test = []string{"NONE"}
			}
		}
		for _, d := range []time.Duration{h.Interval, h.Timeout, h.StartPeriod, h.StartInterval} {
			if d < 0 || d > 0 && d < time.Millisecond {
				return errors.New("--health-…: a duration must be at least 1ms")
			}
		}
		if h.Retries < 0 {
			return errors.New("--health-retries: must not be negative")
		}
		c.Health = h
	}
	return nil
}

func parseRestart(s string) (monitor.RestartPolicy, error) {
	name, count, hasCount := strings.Cut(s, ":")
	p := monitor.RestartPolicy{Name: name}
	switch {
	case name == "" || name == "no" && !hasCount:
		p.Name = ""
	case (name == "always" || name == "unless-stopped") && !hasCount:
	case name == "on-failure":
		if hasCount {
			n, err := strconv.Atoi(count)
			if err != nil || n < 0 {
				return p, fmt.Errorf("--restart %s: %q is not a number of tries", s, count)
			}
			p.MaximumRetryCount = n
		}
	default:
		return p, fmt.Errorf("--restart %s: want no, always, unless-stopped or on-failure[:N]", s)
	}
	return p, nil
}

// parseSignal reads TERM, SIGTERM, RTMIN+3 or a number.
func parseSignal(s string) (unix.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil {
		if n < 1 || n > 64 {
			return 0, errors.New("no such signal")
		}
		return unix.Signal(n), nil
	}
	name := "SIG" + strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if sig := unix.SignalNum(name); sig != 0 {
		return sig, nil
	}
	const rtmin, rtmax = 34, 64
	for prefix, base := range map[string]int{"SIGRTMIN": rtmin, "SIGRTMAX": rtmax} {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			n := 0
			if rest != "" {
				var err error
				if n, err = strconv.Atoi(rest); err != nil {
					continue
				}
			}
			if sig := base + n; sig >= rtmin && sig <= rtmax {
				return unix.Signal(sig), nil
			}
		}
	}
	return 0, errors.New("no such signal")
}

// fromImage completes a configuration with what the image says, where the flags
// say nothing. argv is what followed the image on the command line.
func (c *Config) fromImage(img *v1.Config, entrypoint *string, argv []string) error {
	c.Cmd = argv
	switch {
	case entrypoint == nil:
		c.Entrypoint = img.Entrypoint
		if len(argv) == 0 {
			c.Cmd = img.Cmd
		}
	case *entrypoint != "":
		c.Entrypoint = []string{*entrypoint}
	}
	if len(c.Args()) == 0 {
		return errors.New("no command: neither the image nor the command line has one")
	}
	c.Env = mergeEnv(img.Env, c.Env)
	setDefault(&c.WorkingDir, img.WorkingDir)
	setDefault(&c.User, img.User)
	setDefault(&c.StopSignal, img.StopSignal)
	labels := map[string]string{}
	for _, m := range []map[string]string{img.Labels, c.Labels} {
		for k, v := range m {
			labels[k] = v
		}
	}
	c.Labels = labels
	for port := range img.ExposedPorts {
		c.Exposed = append(c.Exposed, port)
	}
	slices.Sort(c.Exposed)
	c.imageVolumes(img.Volumes)
	c.imageHealth(img.Healthcheck)
	return nil
}

func setDefault(s *string, value string) {
	if *s == "" {
		*s = value
	}
}

// imageVolumes adds the image's volumes as anonymous ones, where nothing else is
// mounted. A path that cannot be one is the image's fault and passed over.
func (c *Config) imageVolumes(volumes map[string]struct{}) {
	for path := range volumes {
		m, err := volume.ParseVolume(path, "/")
		if err != nil || m.Source != "" {
			continue
		}
		taken := slices.ContainsFunc(c.Mounts, func(o volume.Mount) bool { return o.Target == m.Target })
		if !taken {
			c.Mounts = append(c.Mounts, m)
		}
	}
}

func (c *Config) imageHealth(h *v1.HealthConfig) {
	if h == nil || len(h.Test) == 0 {
		return
	}
	if c.Health == nil {
		c.Health = &monitor.Health{}
	}
	if len(c.Health.Test) > 0 {
		return
	}
	c.Health.Test = h.Test
	if c.Health.Interval == 0 {
		c.Health.Interval = h.Interval
	}
	if c.Health.Timeout == 0 {
		c.Health.Timeout = h.Timeout
	}
	if c.Health.StartPeriod == 0 {
		c.Health.StartPeriod = h.StartPeriod
	}
	if c.Health.Retries == 0 {
		c.Health.Retries = h.Retries
	}
}

// mergeEnv is base with the variables of over set or replaced, in order.
func mergeEnv(base, over []string) []string {
	env := slices.Clone(base)
	for _, e := range over {
		key, _, _ := strings.Cut(e, "=")
		i := slices.IndexFunc(env, func(x string) bool { return strings.HasPrefix(x, key+"=") })
		if i >= 0 {
			env[i] = e
		} else {
			env = append(env, e)
		}
	}
	return env
}

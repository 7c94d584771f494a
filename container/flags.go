package container

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/kist-containers/kist/internal/state"
	"github.com/kist-containers/kist/internal/ui"
	"github.com/kist-containers/kist/network"
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
	imageFlags    `embed:""`
	secretFlags   `embed:""`
	refusedFlags  `embed:""`

	// detached says that nobody is attached from the start on.
	detached bool
}

type processFlags struct {
	Attach         []string `short:"a" sep:"none" help:"Attach to STDIN, STDOUT or STDERR." placeholder:"STREAM"`
	Interactive    bool     `short:"i" help:"Keep standard input open."`
	Tty            bool     `short:"t" help:"Give it a terminal."`
	Env            []string `short:"e" sep:"none" help:"Set a variable; KEY alone takes the caller's." placeholder:"KEY=VALUE"`
	EnvFile        []string `sep:"none" help:"Read variables from a file." placeholder:"FILE"`
	envFlags       `embed:""`
	Workdir        string   `short:"w" help:"Working directory." placeholder:"DIR"`
	User           string   `short:"u" help:"User, by name or id." placeholder:"USER[:GROUP]"`
	GroupAdd       []string `sep:"none" help:"Add a supplementary group." placeholder:"GROUP"`
	Entrypoint     *string  `help:"Replace the image's entrypoint." placeholder:"PROGRAM"`
	Init           bool     `help:"Run an init that forwards signals and reaps processes."`
	InitPath       string   `help:"Use this program as the init." placeholder:"FILE"`
	Tz             string   `help:"Time zone, or local for this machine's." placeholder:"ZONE"`
	Umask          string   `help:"File mode mask (0022)." placeholder:"MODE"`
	Personality    string   `help:"Execution domain: LINUX or LINUX32." placeholder:"DOMAIN"`
	Systemd        string   `default:"true" help:"Make room for systemd: true (if it is the command), false or always." placeholder:"MODE"`
	ShmSizeSystemd ui.Bytes `name:"shm-size-systemd" help:"Size of systemd's tmpfs mounts." placeholder:"SIZE"`
	accountFlags   `embed:""`
}

type identityFlags struct {
	Name       string   `help:"Name of the container." placeholder:"NAME"`
	Hostname   string   `short:"h" help:"Host name." placeholder:"NAME"`
	Domainname string   `help:"Domain name." placeholder:"NAME"`
	Label      []string `short:"l" sep:"none" help:"Set a label." placeholder:"KEY=VALUE"`
	LabelFile  []string `sep:"none" help:"Read labels from a file." placeholder:"FILE"`
	Annotation []string `sep:"none" help:"Add an annotation for the OCI runtime." placeholder:"KEY=VALUE"`
	Replace    bool     `help:"Remove a container of the same name first."`
	Requires   []string `help:"Containers to start before this one." placeholder:"CONTAINER,…"`
	Cidfile    string   `name:"cidfile" help:"Write the container's ID to a file." placeholder:"FILE"`
	Pidfile    string   `name:"pidfile" help:"Write PID 1's number to a file." placeholder:"FILE"`
	Rootfs     bool     `help:"The image is a directory of this machine; DIR:O puts a throwaway overlay over it."`
	Runtime    string   `help:"OCI runtime to use instead of kist's own." placeholder:"NAME|PATH"`
}

type storageFlags struct {
	Volume        []string `short:"v" sep:"none" help:"Mount a volume or a directory." placeholder:"[SOURCE:]TARGET[:OPTIONS]"`
	Mount         []string `sep:"none" help:"Mount something: type=bind|volume|tmpfs,source=…,target=…" placeholder:"SPEC"`
	Tmpfs         []string `sep:"none" help:"Mount a tmpfs." placeholder:"TARGET[:OPTIONS]"`
	VolumesFrom   []string `sep:"none" help:"Mount the volumes of another container." placeholder:"CONTAINER[:ro]"`
	VolumeDriver  string   `help:"Driver of volumes that are made." placeholder:"DRIVER"`
	ImageVolume   string   `help:"What becomes of the image's volumes: bind, tmpfs or ignore." enum:",bind,anonymous,tmpfs,ignore" default:"" placeholder:"MODE"`
	StorageOpt    []string `sep:"none" help:"Bound the writable layer: size=10G." placeholder:"KEY=VALUE"`
	ReadOnly      bool     `help:"Mount the root file system read-only."`
	ReadOnlyTmpfs bool     `name:"read-only-tmpfs" negatable:"" help:"With --read-only, mount a tmpfs on /run, /tmp and /var/tmp."`
	Chrootdirs    []string `help:"Directories that get the container's hosts, hostname and resolv.conf too." placeholder:"DIR,…"`
	ShmSize       ui.Bytes `help:"Size of /dev/shm (64m)." placeholder:"SIZE"`
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
	Ip6          string   `name:"ip6" help:"IPv6 address on the network." placeholder:"IP"`
	MacAddress   string   `help:"MAC address." placeholder:"MAC"`
	LinkLocalIp  []string `sep:"none" help:"Link-local address." placeholder:"IP"`
	HostsFile    string   `name:"hosts-file" help:"What /etc/hosts begins with: none, image, or a file of the host." placeholder:"FILE"`
	NoHosts      bool     `help:"Leave the image's /etc/hosts alone."`
	NoHostname   bool     `help:"Leave the image's /etc/hostname alone."`
}

// settle turns flags into a configuration, without the image's part. It reads
// what the flags name (files of variables) and nothing else.
func (f *createFlags) settle() (*Config, error) {
	c := &Config{Version: 1}
	for _, part := range []func(*Config) error{f.refused, f.process, f.accounts, f.identity, f.storage, f.network, f.resources, f.security, f.life, f.secrets} {
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
	if c.TimeZone, err = timeZone(f.Tz); err != nil {
		return err
	}
	if f.Umask != "" {
		n, err := strconv.ParseUint(f.Umask, 8, 32)
		if err != nil || n > 0o777 {
			return fmt.Errorf("--umask %s: want an octal number up to 0777", f.Umask)
		}
		mask := uint32(n)
		c.Umask = &mask
	}
	switch c.Personality = strings.ToUpper(f.Personality); c.Personality {
	case "", "LINUX", "LINUX32":
	default:
		return fmt.Errorf("--personality %s: want LINUX or LINUX32", f.Personality)
	}
	if !slices.Contains([]string{"", "true", "false", "always"}, f.Systemd) {
		return fmt.Errorf("--systemd %s: want true, false or always", f.Systemd)
	}
	c.Systemd, c.SystemdSize = f.Systemd, int64(f.ShmSizeSystemd)
	if f.Workdir != "" && !filepath.IsAbs(f.Workdir) {
		return fmt.Errorf("-w %s: the working directory must be an absolute path", f.Workdir)
	}
	c.Env, c.WorkingDir, c.User, c.GroupAdd = env, f.Workdir, f.User, f.GroupAdd
	c.Tty, c.OpenStdin, c.Init = f.Tty, f.Interactive, f.Init
	if f.InitPath != "" {
		if c.InitPath, err = filepath.Abs(f.InitPath); err != nil {
			return err
		}
		if _, err := os.Stat(c.InitPath); err != nil {
			return fmt.Errorf("--init-path %s: %w", f.InitPath, errors.Unwrap(err))
		}
	}
	for _, a := range f.Attach {
		a = strings.ToLower(a)
		if !slices.Contains([]string{"stdin", "stdout", "stderr"}, a) {
			return fmt.Errorf("-a %s: want STDIN, STDOUT or STDERR", a)
		}
		c.Attach = append(c.Attach, a)
	}
	if len(c.Attach) == 0 && !f.detached {
		c.Attach = []string{"stdout", "stderr"}
		if f.Interactive {
			c.Attach = append(c.Attach, "stdin")
		}
	}
	return nil
}

const wantName = "want at least two of [a-zA-Z0-9_.-], the first a letter or digit"

func validName(name string) bool { return state.ValidName(name) && len(name) > 1 }

func (f *createFlags) identity(c *Config) (err error) {
	if f.Name != "" && !validName(f.Name) {
		return fmt.Errorf("--name %s: %s", f.Name, wantName)
	}
	if len(f.Hostname) > 64 || strings.ContainsAny(f.Hostname, "/ \t\n\x00") {
		return fmt.Errorf("-h %s: not a host name of at most 64 bytes", f.Hostname)
	}
	c.Name, c.Hostname, c.Domainname = f.Name, f.Hostname, f.Domainname
	if c.Runtime, err = findRuntime(f.Runtime); err != nil {
		return err
	}
	if f.Replace && f.Name == "" {
		return errors.New("--replace: needs --name too")
	}
	c.Requires = f.Requires
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
	for flag, list := range map[string][]string{"-l": f.Label, "--annotation": f.Annotation} {
		for _, s := range list {
			if s == "" || s[0] == '=' {
				return fmt.Errorf("%s %s: no name", flag, s)
			}
		}
	}
	c.Labels = pairs(append(labels, f.Label...))
	c.Annotations = pairs(f.Annotation)
	return nil
}

// findRuntime returns the path of another OCI runtime, "" for kist's own.
func findRuntime(name string) (string, error) {
	if name == "" || name == "kist" {
		return "", nil
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", ui.Hint(fmt.Errorf("--runtime %s: no such program", name), "leave --runtime out: kist is a runtime itself")
	}
	return filepath.Abs(path)
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
	if f.ReadOnly && f.ReadOnlyTmpfs {
		c.addTmpfs("/run", "/tmp", "/var/tmp")
	}
	for _, d := range f.Chrootdirs {
		if !filepath.IsAbs(d) {
			return fmt.Errorf("--chrootdirs %s: want an absolute path", d)
		}
		c.ChrootDirs = append(c.ChrootDirs, filepath.Clean(d))
	}
	if err := f.storageOptions(c); err != nil {
		return err
	}
	return volume.Sort(c.Mounts)
}

// hostsFile settles --hosts-file.
func (f *createFlags) hostsFile(n *NetworkConfig) (err error) {
	switch {
	case f.HostsFile == "" || f.HostsFile == "none":
		return nil
	case f.NoHosts:
		return errors.New("--no-hosts and --hosts-file contradict each other")
	case f.HostsFile == hostsOfImage:
		n.HostsFile = hostsOfImage
		return nil
	}
	if n.HostsFile, err = filepath.Abs(f.HostsFile); err != nil {
		return err
	}
	if _, err := readRegular(n.HostsFile); err != nil {
		return fmt.Errorf("--hosts-file: %w", err)
	}
	return nil
}

// hostLines are --add-host as docker shows them: NAME=IP as NAME:IP.
func hostLines(list []string) []string {
	var lines []string
	for _, h := range list {
		name, ip, ok := strings.Cut(h, "=")
		if ok {
			h = name + ":" + strings.Trim(ip, "[]")
		}
		lines = append(lines, h)
	}
	return lines
}

func (f *createFlags) network(c *Config) error {
	n := &c.Network
	n.Ports, n.PublishAll = f.Publish, f.PublishAll
	n.DNS, n.DNSSearch, n.DNSOptions, n.ExtraHosts = f.Dns, f.DnsSearch, f.DnsOption, hostLines(f.AddHost)
	n.NoHosts, n.NoHostname = f.NoHosts, f.NoHostname
	if err := f.hostsFile(n); err != nil {
		return err
	}
	if f.NoHosts && len(f.AddHost) > 0 {
		return errors.New("--no-hosts and --add-host contradict each other")
	}
	var err error
	if c.Exposed, err = exposePorts(f.Expose); err != nil {
		return err
	}
	networks, err := f.endpoints()
	if err != nil {
		return err
	}
	n.Mode = networks[0].Network
	special := !c.served()
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
	if f.MacAddress != "" {
		if err := network.CheckMAC(f.MacAddress); err != nil {
			return fmt.Errorf("--mac-address %w", err)
		}
	}
	if special {
		return nil
	}
	f.firstEndpoint(&networks[0])
	n.Networks = networks
	return nil
}

// endpoints are the wishes of --network, of which there is always one.
func (f *createFlags) endpoints() ([]Endpoint, error) {
	var list []Endpoint
	for _, w := range f.Network {
		ep := network.EndpointConfig{Network: w}
		if !strings.HasPrefix(w, "container:") && !strings.HasPrefix(w, "ns:") {
			var err error
			if ep, err = network.ParseEndpoint(w); err != nil {
				return nil, err
			}
		}
		if ep.Network == "default" || ep.Network == "private" {
			ep.Network = network.DefaultBridge
		}
		list = append(list, Endpoint(ep))
	}
	if len(list) == 0 {
		list = []Endpoint{{Network: network.DefaultBridge}}
	}
	return list, nil
}

// firstEndpoint gives the first network the flags that name none.
func (f *createFlags) firstEndpoint(ep *Endpoint) {
	ep.Aliases = append(ep.Aliases, f.NetworkAlias...)
	ep.LinkLocal = append(ep.LinkLocal, f.LinkLocalIp...)
	ep.IPv4, ep.IPv6, ep.MAC = cmp.Or(f.Ip, ep.IPv4), cmp.Or(f.Ip6, ep.IPv6), cmp.Or(f.MacAddress, ep.MAC)
}

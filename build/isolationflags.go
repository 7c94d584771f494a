package build

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/kist-containers/kist/container"
	"github.com/kist-containers/kist/container/runtime"
	"github.com/kist-containers/kist/volume"
)

// isolationFlags are podman's flags about RUN steps.
type isolationFlags struct {
	CapAdd     []string `help:"Capability that RUN has besides the default ones." placeholder:"CAP"`
	CapDrop    []string `help:"Capability that RUN does not have." placeholder:"CAP"`
	Device     []string `sep:"none" help:"Device of the host for RUN." placeholder:"HOST[:CONTAINER[:rwm]]"`
	Volume     []string `short:"v" sep:"none" help:"Directory or file of the host for RUN." placeholder:"HOST:CONTAINER[:ro]"`
	GroupAdd   []string `help:"Further group of RUN's user." placeholder:"GROUP"`
	DNS        []string `name:"dns" help:"Name server of RUN." placeholder:"IP"`
	DNSSearch  []string `name:"dns-search" help:"Search domain of RUN." placeholder:"DOMAIN"`
	DNSOption  []string `name:"dns-option" sep:"none" help:"Option of RUN's resolver." placeholder:"OPTION"`
	NoHosts    bool     `help:"Leave the image's /etc/hosts alone."`
	NoHostname bool     `help:"Leave the image's /etc/hostname alone."`
	HTTPProxy  bool     `name:"http-proxy" negatable:"" help:"Give RUN the proxy variables of this environment."`
	IPC        string   `name:"ipc" help:"IPC namespace of RUN: private or host." placeholder:"MODE"`
	UTS        string   `name:"uts" help:"UTS namespace of RUN: private or host." placeholder:"MODE"`
	Cgroupns   string   `help:"Cgroup namespace of RUN: private or host." placeholder:"MODE"`
	PID        string   `name:"pid" hidden:""`
	Userns     string   `hidden:""`
	HooksDir   []string `hidden:"" sep:"none"`
}

func (f *isolationFlags) apply(r *Request) (err error) {
	i := &r.Isolation
	*i = Isolation{CapAdd: f.CapAdd, CapDrop: f.CapDrop, Devices: f.Device, Groups: f.GroupAdd, NoHosts: f.NoHosts, NoHostname: f.NoHostname}
	if _, err := runtime.Capabilities(f.CapAdd, f.CapDrop); err != nil {
		return err
	}
	if err := f.refused(); err != nil {
		return err
	}
	for _, x := range []struct {
		flag, mode string
		host       *bool
	}{{"--ipc", f.IPC, &i.HostIPC}, {"--uts", f.UTS, &i.HostUTS}, {"--cgroupns", f.Cgroupns, &i.HostCgroups}} {
		switch x.mode {
		case "", "private", "container":
		case "host":
			*x.host = true
		default:
			return fmt.Errorf("%s %s: want private or host", x.flag, x.mode)
		}
	}
	for _, d := range f.Device {
		if _, err := container.ParseDevice(d); err != nil {
			return err
		}
	}
	for _, v := range f.Volume {
		m, err := hostVolume(v)
		if err != nil {
			return err
		}
		i.Volumes = append(i.Volumes, m)
	}
	if f.HTTPProxy {
		for _, name := range proxyNames() {
			if v, ok := os.LookupEnv(name); ok && r.Args[name] == "" {
				r.Args[name] = v
			}
		}
	}
	return f.names(i)
}

// refused words what a build of kist's cannot have.
func (f *isolationFlags) refused() error {
	switch {
	case f.PID != "" && f.PID != "private":
		return fmt.Errorf("--pid %s: what a RUN step leaves running ends with its own pid namespace", f.PID)
	case f.Userns != "" && f.Userns != "host":
		return fmt.Errorf("--userns %s: RUN steps have the user namespace that kist itself runs in", f.Userns)
	case len(f.HooksDir) > 0:
		return fmt.Errorf("--hooks-dir %s: RUN steps run no programs of the host", f.HooksDir[0])
	}
	return nil
}

// hostVolume reads -v HOST:CONTAINER[:OPTIONS].
func hostVolume(s string) (volume.Mount, error) {
	cwd, err := os.Getwd()
	if err != nil {
		return volume.Mount{}, err
	}
	m, err := volume.ParseVolume(s, cwd)
	switch {
	case err != nil:
	case m.Type != volume.TypeBind:
		err = fmt.Errorf("-v %s: a build has directories and files of the host only", s)
	case m.Overlay || m.Chown || m.IDMap:
		err = fmt.Errorf("-v %s: the options O, U and idmap are for containers", s)
	default:
		if _, err = os.Stat(m.Source); err != nil {
			err = fmt.Errorf("-v %s: %w", s, errors.Unwrap(err))
		}
	}
	return m, err
}

// names checks what goes into resolv.conf.
func (f *isolationFlags) names(i *Isolation) error {
	for _, d := range f.DNS {
		if _, err := netip.ParseAddr(d); err != nil {
			return fmt.Errorf("--dns %s: not an address", d)
		}
	}
	for _, w := range slices.Concat(f.DNSSearch, f.DNSOption) {
		if w == "" || strings.ContainsAny(w, " \t\r\n") {
			return fmt.Errorf("--dns-search, --dns-option %q: want one word", w)
		}
	}
	i.DNS, i.Search, i.DNSOptions = f.DNS, f.DNSSearch, f.DNSOption
	return nil
}

package container

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/container/monitor"
	"github.com/kist-containers/kist/container/runtime"
)

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// specMaker builds the bundle's config.json of one start.
type specMaker struct {
	e    *Engine
	c    *Config
	root *os.File // the root file system
	// netns is the sandbox's path, "" where the runtime makes one.
	netns string
	// files are what is shown as /etc/hosts and the like: path to host file.
	files map[string]string
	// mounts are the user's.
	mounts []specs.Mount
	// env are variables of this start, beside the configuration's.
	env []string
	// secrets are what the monitor copies to its tmpfs.
	secrets []monitor.SecretFile
	// images are what the monitor mounts for some of them.
	images []monitor.ImageMount
}

func (m *specMaker) make() (*specs.Spec, error) {
	s := &specs.Spec{
		Version:     m.version(),
		Root:        &specs.Root{Path: "rootfs", Readonly: m.c.Security.ReadOnly},
		Linux:       &specs.Linux{},
		Annotations: m.c.Annotations,
	}
	for _, part := range []func(*specs.Spec) error{
		m.process, m.namespaces, m.mountList, m.paths, m.resources, m.devices, m.cdi, m.limits, m.seccomp,
	} {
		if err := part(s); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// version is the specification's: for another runtime the oldest, because crun
// before 1.9 takes no later one. What later ones added is ignored, not refused.
func (m *specMaker) version() string {
	if m.c.Runtime != "" {
		return "1.0.2"
	}
	return specs.Version
}

func (m *specMaker) process(s *specs.Spec) error {
	c := m.c
	user, home, err := m.e.user(m.root, c.User, c.GroupAdd)
	if err != nil {
		return err
	}
	caps, err := c.Security.capabilities()
	if err != nil {
		return err
	}
	env, err := m.secretEnv()
	if err != nil {
		return err
	}
	user.Umask = c.Umask
	s.Process = &specs.Process{
		Terminal: c.Tty, User: user, Args: c.Args(), Cwd: path.Clean("/" + c.WorkingDir),
		Env:          mergeEnv(m.environment(home), append(env, m.env...)),
		Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
		// docker: a user other than root has none after the exec.
		NoNewPrivileges: c.Security.NoNewPrivs,
		ApparmorProfile: m.apparmor(),
		SelinuxLabel:    c.Security.selinux(),
	}
	if user.UID != 0 {
		s.Process.Capabilities.Effective, s.Process.Capabilities.Permitted = nil, nil
	}
	if c.Personality != "" {
		s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.LinuxPersonalityDomain(c.Personality)}
	}
	if c.Init {
		s.Process.Args = append([]string{initPath, "--"}, s.Process.Args...)
		s.Process.Args[0] = initPath
	}
	if c.Limits.OomScoreAdj != 0 {
		s.Process.OOMScoreAdj = &c.Limits.OomScoreAdj
	}
	return nil
}

// environment is docker's order: PATH, HOSTNAME, TERM, the container's, HOME.
func (m *specMaker) environment(home string) []string {
	env := []string{defaultPath}
	if m.c.Hostname != "" {
		env = append(env, "HOSTNAME="+m.c.Hostname)
	}
	if m.c.Tty {
		env = append(env, "TERM=xterm")
	}
	env = mergeEnv(env, m.c.Env)
	if !slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, "HOME=") }) {
		env = append(env, "HOME="+home)
	}
	return env
}

func (s *Security) capabilities() ([]string, error) {
	if s.Privileged {
		return runtime.OwnCapabilities(), nil
	}
	return runtime.Capabilities(s.CapAdd, s.CapDrop)
}

func (m *specMaker) apparmor() string {
	if a := m.c.Security.AppArmor; a != "unconfined" {
		return a
	}
	return ""
}

func (m *specMaker) paths(s *specs.Spec) error {
	sec := &m.c.Security
	if sec.Privileged || sec.Unmasked {
		return nil
	}
	hidden := func(path string) bool {
		return !slices.ContainsFunc(sec.Unmask, func(p string) bool {
			ok, _ := filepath.Match(p, path)
			return ok || p == "ALL"
		})
	}
	for _, p := range runtime.MaskedPaths() {
		if hidden(p) {
			s.Linux.MaskedPaths = append(s.Linux.MaskedPaths, p)
		}
	}
	for _, p := range runtime.ReadonlyPaths() {
		if hidden(p) {
			s.Linux.ReadonlyPaths = append(s.Linux.ReadonlyPaths, p)
		}
	}
	s.Linux.MaskedPaths = append(s.Linux.MaskedPaths, sec.Mask...)
	return nil
}

func (m *specMaker) devices(s *specs.Spec) error {
	sec := &m.c.Security
	if sec.Privileged {
		s.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
		return addHostDevices(s)
	}
	// kist's own runtime begins with it anyway; another may not.
	s.Linux.Resources.Devices = append(s.Linux.Resources.Devices, specs.LinuxDeviceCgroup{Access: "rwm"})
	for _, d := range sec.Devices {
		if err := AddDevice(s, d, m.ownIDs()); err != nil {
			return fmt.Errorf("--device %s: %w", d.Host, err)
		}
	}
	for _, rule := range sec.DeviceRules {
		r, err := parseDeviceRule(rule)
		if err != nil {
			return err
		}
		s.Linux.Resources.Devices = append(s.Linux.Resources.Devices, r)
	}
	return nil
}

func (m *specMaker) seccomp(s *specs.Spec) error {
	if !seccompAvailable() {
		return nil
	}
	sec := &m.c.Security
	var err error
	switch {
	case sec.Seccomp == "unconfined", sec.Privileged && sec.Seccomp == "":
	case sec.Seccomp == "":
		s.Linux.Seccomp, err = seccomp.GetDefaultProfile(s)
	default:
		s.Linux.Seccomp, err = seccomp.LoadProfile(sec.Seccomp, s)
	}
	if err != nil {
		return fmt.Errorf("seccomp profile: %w", err)
	}
	return nil
}

// seccompAvailable reports whether the kernel has seccomp filters.
func seccompAvailable() bool {
	return !errors.Is(unix.Prctl(unix.PR_GET_SECCOMP, 0, 0, 0, 0), unix.EINVAL)
}

package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/kist-containers/kist/container/runtime"
)

type securityFlags struct {
	CapAdd           []string `sep:"none" help:"Add a capability." placeholder:"CAP"`
	CapDrop          []string `sep:"none" help:"Drop a capability." placeholder:"CAP"`
	Privileged       bool     `help:"Give it all capabilities and devices, and hide nothing."`
	SecurityOpt      []string `sep:"none" help:"no-new-privileges, seccomp=FILE|unconfined, apparmor=…, systempaths=unconfined, mask=…, unmask=…" placeholder:"OPTION"`
	Device           []string `sep:"none" help:"Give it a device." placeholder:"HOST[:CONTAINER[:rwm]]"`
	Gpus             []string `sep:"none" help:"Give it GPUs, by CDI: all, a number, device=ID." placeholder:"WISH"`
	CdiSpecDir       []string `name:"cdi-spec-dir" sep:"none" help:"Directory of CDI files." placeholder:"DIR" env:"KIST_CDI_SPEC_DIR"`
	DeviceCgroupRule []string `sep:"none" help:"Allow devices by number." placeholder:"RULE"`
	Ipc              string   `help:"IPC namespace: private, host, container:NAME, none, shareable." placeholder:"MODE"`
	Pid              string   `help:"PID namespace: private, host or container:NAME." placeholder:"MODE"`
	Uts              string   `help:"UTS namespace: private or host." placeholder:"MODE"`
	Userns           string   `help:"User namespace: host, auto, keep-id or CONTAINER:HOST:SIZE." placeholder:"MODE"`
	Uidmap           []string `name:"uidmap" sep:"none" help:"User ids of its user namespace; + breaks into what is there, @ is an id of the machine." placeholder:"[+]CONTAINER:[@]HOST[:SIZE]"`
	Gidmap           []string `name:"gidmap" sep:"none" help:"Group ids of its user namespace." placeholder:"[+]CONTAINER:[@]HOST[:SIZE]"`
	Subuidname       string   `name:"subuidname" help:"Map the user ids that a name has in /etc/subuid." placeholder:"NAME"`
	Subgidname       string   `name:"subgidname" help:"Map the group ids that a name has in /etc/subgid." placeholder:"NAME"`
}

func (f *createFlags) security(c *Config) error {
	s := &c.Security
	s.Privileged, s.CapAdd, s.CapDrop, s.DeviceRules = f.Privileged, f.CapAdd, f.CapDrop, f.DeviceCgroupRule
	for _, name := range append(slices.Clone(f.CapAdd), f.CapDrop...) {
		if _, err := runtime.Capability(name); err != nil {
			return err
		}
	}
	c.Spaces.IPC, c.Spaces.PID, c.Spaces.UTS, c.Spaces.User = f.Ipc, f.Pid, f.Uts, f.Userns
	if err := f.idmaps(c); err != nil {
		return err
	}
	for _, g := range f.Gpus {
		if err := parseGPUs(g); err != nil {
			return err
		}
	}
	s.GPUs, s.CDIDirs = f.Gpus, f.CdiSpecDir
	for _, rule := range f.DeviceCgroupRule {
		if _, err := parseDeviceRule(rule); err != nil {
			return err
		}
	}
	for _, d := range f.Device {
		if isCDI(d) {
			s.CDI = append(s.CDI, d)
			continue
		}
		dev, err := ParseDevice(d)
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

// option reads one --security-opt, KEY=VALUE or docker's older KEY:VALUE.
func (s *Security) option(o string) error {
	key, value, hasValue := strings.Cut(o, "=")
	if !hasValue {
		key, value, hasValue = strings.Cut(o, ":")
	}
	set, known := map[string]func(string) error{
		"no-new-privileges": boolOption(&s.NoNewPrivs, hasValue),
		"writable-cgroups":  boolOption(&s.WritableCgroups, hasValue),
		"seccomp":           s.seccompOption,
		"apparmor":          s.apparmorOption,
		"label":             s.labelOption,
		"systempaths":       s.systempathsOption,
		"mask":              s.maskOption,
		"unmask":            s.unmaskOption,
		"proc-opts":         s.procOption,
		"credentialspec":    func(string) error { return errors.New("only Windows has it") },
	}[key]
	if !known {
		return fmt.Errorf("--security-opt %s: no such option", o)
	}
	if err := set(value); err != nil {
		return fmt.Errorf("--security-opt %s: %w", o, err)
	}
	return nil
}

// boolOption sets b; an option without a value is true.
func boolOption(b *bool, hasValue bool) func(string) error {
	return func(value string) (err error) {
		if *b = true; !hasValue {
			return nil
		}
		if *b, err = strconv.ParseBool(value); err != nil {
			return errors.New("want true or false")
		}
		return nil
	}
}

func (s *Security) seccompOption(value string) error {
	if value == "unconfined" || value == "builtin" {
		s.Seccomp = strings.TrimPrefix(value, "builtin")
		return nil
	}
	data, err := readProfile(value)
	s.Seccomp = string(data)
	return err
}

func (s *Security) apparmorOption(value string) error {
	if value == "" || value != "unconfined" && !exists("/sys/kernel/security/apparmor") {
		return errors.New("this host has no AppArmor")
	}
	s.AppArmor = value
	return nil
}

func (s *Security) labelOption(value string) error {
	s.Label = append(s.Label, value)
	return checkLabel(value)
}

func (s *Security) systempathsOption(value string) error {
	if value != "unconfined" {
		return errors.New("want systempaths=unconfined")
	}
	s.Unmasked = true
	return nil
}

func (s *Security) maskOption(value string) error {
	list, err := pathList(value)
	s.Mask = append(s.Mask, list...)
	return err
}

func (s *Security) unmaskOption(value string) error {
	if strings.EqualFold(value, "all") {
		s.Unmasked = true
		return nil
	}
	list, err := pathList(value)
	s.Unmask = append(s.Unmask, list...)
	return err
}

func (s *Security) procOption(value string) error {
	for _, p := range strings.Split(value, ",") {
		if name, _, _ := strings.Cut(p, "="); !slices.Contains([]string{"hidepid", "gid", "subset"}, name) {
			return errors.New("want hidepid=, gid= or subset=")
		}
		s.ProcOptions = append(s.ProcOptions, p)
	}
	return nil
}

// ParseDevice reads --device.
func ParseDevice(s string) (Device, error) {
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

// pathList reads PATH:PATH.
func pathList(s string) ([]string, error) {
	list := strings.Split(s, ":")
	for _, p := range list {
		if !strings.HasPrefix(p, "/") || strings.ContainsRune(p, 0) {
			return nil, fmt.Errorf("%q is not an absolute path", p)
		}
	}
	return list, nil
}

// mostProfile bounds a seccomp profile.
const mostProfile = 4 << 20

// readProfile reads a seccomp profile; whether it makes sense shows when the
// filter is made of it.
func readProfile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, errors.Unwrap(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, mostProfile+1))
	switch {
	case err != nil:
		return nil, errors.Unwrap(err)
	case len(data) > mostProfile:
		return nil, fmt.Errorf("more than %d bytes", mostProfile)
	case !json.Valid(data):
		return nil, errors.New("not a profile: not valid JSON")
	}
	return data, nil
}

var labelParts = [...]string{"user", "role", "type", "level"}

// checkLabel reads a part of a SELinux label: TYPE:VALUE, or disable.
func checkLabel(value string) error {
	part, rest, ok := strings.Cut(value, ":")
	switch {
	case value == "disable":
		return nil
	case !ok || rest == "" || !slices.Contains(append(labelParts[:], "filetype"), part):
		return errors.New("want disable, user:, role:, type:, level: or filetype:")
	case !exists("/sys/fs/selinux/enforce"):
		return errors.New("this host has no SELinux")
	}
	return nil
}

// selinux is the label of the process: container_t with what the options change.
func (s *Security) selinux() string {
	parts := []string{"system_u", "system_r", "container_t", "s0"}
	given := false
	for _, l := range s.Label {
		part, value, _ := strings.Cut(l, ":")
		if i := slices.Index(labelParts[:], part); i >= 0 {
			parts[i], given = value, true
		}
	}
	if !given || slices.Contains(s.Label, "disable") {
		return ""
	}
	return strings.Join(parts, ":")
}

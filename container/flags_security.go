package container

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

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
	Uidmap           []string `name:"uidmap" sep:"none" help:"User ids of its user namespace." placeholder:"CONTAINER:HOST:SIZE"`
	Gidmap           []string `name:"gidmap" sep:"none" help:"Group ids of its user namespace." placeholder:"CONTAINER:HOST:SIZE"`
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
	for _, x := range []struct {
		flag string
		list []string
		dst  *[]IDMap
	}{{"--uidmap", f.Uidmap, &c.Spaces.UIDs}, {"--gidmap", f.Gidmap, &c.Spaces.GIDs}} {
		for _, s := range x.list {
			m, err := parseIDMap(s)
			if err != nil {
				return fmt.Errorf("%s %w", x.flag, err)
			}
			*x.dst = append(*x.dst, m)
		}
	}
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

package container

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/docker/go-units"

	"github.com/kist-containers/kist/container/runtime"
	"github.com/kist-containers/kist/volume"
)

func (c *Config) inspectConfig() InspectConfig {
	i := InspectConfig{
		Hostname: c.Hostname, Domainname: c.Domainname, User: c.User, ExposedPorts: map[string]struct{}{},
		AttachStdin: c.attaches("stdin"), AttachStdout: c.attaches("stdout"), AttachStderr: c.attaches("stderr"),
		Tty: c.Tty, OpenStdin: c.OpenStdin, StdinOnce: c.StdinOnce, Env: c.Env, Cmd: c.Cmd, Image: c.Image,
		WorkingDir: c.WorkingDir, Entrypoint: c.Entrypoint, Labels: orEmpty(c.Labels), StopSignal: c.StopSignal, StopTimeout: c.StopTimeoutSec,
	}
	for _, p := range c.exposedPorts() {
		i.ExposedPorts[p] = struct{}{}
	}
	for _, m := range c.Mounts {
		if m.Anonymous {
			if i.Volumes == nil {
				i.Volumes = map[string]struct{}{}
			}
			i.Volumes[m.Target] = struct{}{}
		}
	}
	if h := c.Health; h != nil {
		i.Healthcheck = &InspectCheck{h.Test, h.Interval, h.Timeout, h.StartPeriod, h.StartInterval, h.Retries}
	}
	return i
}

func (c *Config) attaches(stream string) bool { return slices.Contains(c.Attach, stream) }

func orEmpty[V any](m map[string]V) map[string]V {
	if m == nil {
		return map[string]V{}
	}
	return m
}

func orNone[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func (c *Config) inspectHost() InspectHost {
	s, n := &c.Security, &c.Network
	h := InspectHost{
		NetworkMode: cmp.Or(n.Mode, "bridge"), PortBindings: c.inspectPorts(), AutoRemove: c.AutoRemove, Annotations: c.Annotations,
		CapAdd: s.CapAdd, CapDrop: s.CapDrop, CgroupnsMode: cmp.Or(c.Spaces.Cgroup, "private"),
		Dns: orNone(n.DNS), DnsOptions: orNone(n.DNSOptions), DnsSearch: orNone(n.DNSSearch), ExtraHosts: n.ExtraHosts, GroupAdd: c.GroupAdd,
		IpcMode: cmp.Or(c.Spaces.IPC, "private"), OomScoreAdj: c.Limits.OomScoreAdj, PidMode: c.Spaces.PID,
		Privileged: s.Privileged, PublishAllPorts: n.PublishAll, ReadonlyRootfs: s.ReadOnly, SecurityOpt: s.Options,
		UTSMode: c.Spaces.UTS, UsernsMode: c.Spaces.User, Runtime: cmp.Or(c.Runtime, "kist"),
	}
	h.LogConfig.Type, h.LogConfig.Config = cmp.Or(c.Log.Driver, "json-file"), orEmpty(c.Log.Options)
	h.RestartPolicy.Name, h.RestartPolicy.MaximumRetryCount = cmp.Or(c.Restart.Name, "no"), c.Restart.MaximumRetryCount
	if c.Init {
		h.Init = &c.Init
	}
	if c.LayerSize > 0 {
		h.StorageOpt = map[string]string{"size": units.BytesSize(float64(c.LayerSize))}
	}
	if !s.Privileged && !s.Unmasked {
		h.MaskedPaths, h.ReadonlyPaths = runtime.MaskedPaths(), runtime.ReadonlyPaths()
	}
	c.Limits.inspect(&h)
	s.inspect(&h)
	h.Binds, h.Tmpfs = c.inspectBinds()
	return h
}

// inspect shows the limits, where docker derives one from another as docker does.
func (l *Limits) inspect(h *InspectHost) {
	h.ShmSize, h.Sysctls, h.CgroupParent = cmp.Or(l.ShmSize, runtime.DefaultShm), l.Sysctls, l.CgroupParent
	h.CpuShares, h.NanoCpus, h.CpuPeriod, h.CpuQuota = l.CPUShares, l.NanoCPUs, l.CPUPeriod, l.CPUQuota
	h.CpuRealtimePeriod, h.CpuRealtimeRuntime, h.CpusetCpus, h.CpusetMems = l.CPURtPeriod, l.CPURtRuntime, l.CpusetCpus, l.CpusetMems
	h.Memory, h.MemoryReservation, h.MemorySwap, h.MemorySwappiness = l.Memory, l.MemoryReservation, l.MemorySwap, l.MemorySwappiness
	h.OomKillDisable, h.BlkioWeight = l.OomKillDisable, l.BlkioWeight
	if l.Memory > 0 && h.MemorySwap == 0 {
		h.MemorySwap = 2 * l.Memory
	}
	if l.PidsLimit != 0 {
		h.PidsLimit = &l.PidsLimit
	}
	h.BlkioWeightDevice = []InspectWeight{}
	for _, d := range l.BlkioWeightDevice {
		r := inspectRate(d)
		h.BlkioWeightDevice = append(h.BlkioWeightDevice, InspectWeight{r.Path, uint16(r.Rate)})
	}
	h.BlkioDeviceReadBps, h.BlkioDeviceWriteBps = inspectRates(l.ReadBps), inspectRates(l.WriteBps)
	h.BlkioDeviceReadIOps, h.BlkioDeviceWriteIOps = inspectRates(l.ReadIOps), inspectRates(l.WriteIOps)
	h.Ulimits = []InspectUlimit{}
	for _, u := range l.Ulimits {
		h.Ulimits = append(h.Ulimits, InspectUlimit{u.Name, u.Hard, u.Soft})
	}
}

func inspectRates(list []string) []InspectRate {
	rates := []InspectRate{}
	for _, d := range list {
		rates = append(rates, inspectRate(d))
	}
	return rates
}

// inspectRate takes DEVICE:NUMBER apart, which was checked at the creation.
func inspectRate(s string) InspectRate {
	i := strings.LastIndexByte(s, ':')
	n, _ := units.RAMInBytes(s[i+1:])
	return InspectRate{s[:max(i, 0)], uint64(n)}
}

func (s *Security) inspect(h *InspectHost) {
	h.Devices, h.DeviceCgroupRules = []InspectDevice{}, s.DeviceRules
	for _, d := range s.Devices {
		h.Devices = append(h.Devices, InspectDevice{d.Host, d.Container, d.Permissions})
	}
	if len(s.CDI) > 0 {
		h.DeviceRequests = append(h.DeviceRequests, InspectRequest{Driver: "cdi", DeviceIDs: s.CDI})
	}
	for _, g := range s.GPUs {
		driver, count, ids, err := splitGPUs(g)
		if err == nil {
			h.DeviceRequests = append(h.DeviceRequests, InspectRequest{Driver: driver, Count: count, DeviceIDs: ids, Capabilities: [][]string{{"gpu"}}})
		}
	}
}

func (c *Config) inspectPorts() map[string][]InspectPort {
	ports := map[string][]InspectPort{}
	bindings, _ := c.given()
	for _, b := range bindings {
		key := inside(b)
		text := ""
		if b.HostPort != 0 {
			text = fmt.Sprint(b.HostPort)
		}
		ports[key] = append(ports[key], InspectPort{b.HostIP, text})
	}
	return ports
}

// inspectBinds are the mounts as -v and --tmpfs give them.
func (c *Config) inspectBinds() (binds []string, tmpfs map[string]string) {
	for _, m := range c.Mounts {
		switch {
		case m.Type == volume.TypeTmpfs:
			if tmpfs == nil {
				tmpfs = map[string]string{}
			}
			tmpfs[m.Target] = tmpfsText(m)
		case m.Type == volume.TypeBind || m.Type == volume.TypeVolume && !m.Anonymous:
			bind := m.Source + ":" + m.Target
			if o := bindText(m); o != "" {
				bind += ":" + o
			}
			binds = append(binds, bind)
		}
	}
	return binds, tmpfs
}

// bindText are the options of -v.
func bindText(m volume.Mount) string {
	var options []string
	if m.ReadOnly {
		options = append(options, "ro")
	}
	if m.Propagation != "" {
		options = append(options, m.Propagation)
	}
	return strings.Join(options, ",")
}

// tmpfsText are the options of --tmpfs.
func tmpfsText(m volume.Mount) string {
	options := slices.Clone(m.Options)
	if m.Mode != 0 {
		options = append(options, fmt.Sprintf("mode=%o", m.Mode))
	}
	if m.ReadOnly {
		options = append(options, "ro")
	}
	return strings.Join(options, ",")
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
			o.Propagation = cmp.Or(o.Propagation, "rprivate")
		}
		list = append(list, o)
	}
	return list
}

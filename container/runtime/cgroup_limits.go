package runtime

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/opencontainers/cgroups"
	devices "github.com/opencontainers/cgroups/devices/config"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// wanted lists the controllers that the limits need.
func wanted(r *specs.LinuxResources) []string {
	if r == nil {
		return nil
	}
	var c []string
	add := func(name string, when bool) {
		if when && !slices.Contains(c, name) {
			c = append(c, name)
		}
	}
	if m := r.Memory; m != nil {
		add("memory", m.Limit != nil || m.Reservation != nil || m.Swap != nil || m.Swappiness != nil || m.DisableOOMKiller != nil)
	}
	if p := r.CPU; p != nil {
		add("cpu", p.Shares != nil || p.Quota != nil || p.Period != nil || p.RealtimeRuntime != nil || p.RealtimePeriod != nil || p.Burst != nil || p.Idle != nil)
		add("cpuset", p.Cpus != "" || p.Mems != "")
	}
	add("pids", r.Pids != nil && r.Pids.Limit != nil && *r.Pids.Limit > 0)
	if b := r.BlockIO; b != nil {
		add("io", b.Weight != nil || len(b.WeightDevice) > 0 || len(b.ThrottleReadBpsDevice) > 0 || len(b.ThrottleWriteBpsDevice) > 0 ||
			len(b.ThrottleReadIOPSDevice) > 0 || len(b.ThrottleWriteIOPSDevice) > 0)
	}
	add("hugetlb", len(r.HugepageLimits) > 0)
	add("rdma", len(r.Rdma) > 0)
	return c
}

// available refuses limits whose controller this host does not have: nothing
// is ignored.
func available(limits []string) error {
	if len(limits) == 0 {
		return nil
	}
	var have []string
	if unifiedCgroups() {
		data, err := os.ReadFile(cgroupRoot + "/cgroup.controllers")
		if err != nil {
			return err
		}
		have = strings.Fields(string(data))
	} else {
		hierarchies, err := hierarchiesV1()
		if err != nil {
			return err
		}
		for _, h := range hierarchies {
			have = append(have, h.controllers...)
		}
	}
	for _, c := range limits {
		name := c
		if c == "io" && !unifiedCgroups() {
			name = "blkio"
		}
		if !slices.Contains(have, name) {
			return fmt.Errorf("this host has no %s cgroup controller, so its limits cannot be applied", name)
		}
	}
	return nil
}

// convert turns the specification's resources into the cgroup library's.
func convert(r *specs.LinuxResources) *cgroups.Resources {
	c := &cgroups.Resources{}
	if r == nil {
		c.Devices = deviceRules(nil)
		return c
	}
	c.Devices = deviceRules(r.Devices)
	if m := r.Memory; m != nil {
		setTo(&c.Memory, m.Limit)
		setTo(&c.MemoryReservation, m.Reservation)
		setTo(&c.MemorySwap, m.Swap)
		c.MemorySwappiness = m.Swappiness
		setTo(&c.OomKillDisable, m.DisableOOMKiller)
		setTo(&c.MemoryCheckBeforeUpdate, m.CheckBeforeUpdate)
	}
	if p := r.CPU; p != nil {
		setTo(&c.CpuShares, p.Shares)
		setTo(&c.CpuQuota, p.Quota)
		setTo(&c.CpuPeriod, p.Period)
		setTo(&c.CpuRtRuntime, p.RealtimeRuntime)
		setTo(&c.CpuRtPeriod, p.RealtimePeriod)
		c.CpuBurst, c.CPUIdle, c.CpusetCpus, c.CpusetMems = p.Burst, p.Idle, p.Cpus, p.Mems
		if p.Shares != nil && unifiedCgroups() {
			c.CpuWeight = cgroups.ConvertCPUSharesToCgroupV2Value(*p.Shares)
		}
	}
	if r.Pids != nil {
		c.PidsLimit = r.Pids.Limit
	}
	convertIO(c, r.BlockIO)
	for _, h := range r.HugepageLimits {
		c.HugetlbLimit = append(c.HugetlbLimit, &cgroups.HugepageLimit{Pagesize: h.Pagesize, Limit: h.Limit})
	}
	if n := r.Network; n != nil {
		setTo(&c.NetClsClassid, n.ClassID)
		for _, p := range n.Priorities {
			c.NetPrioIfpriomap = append(c.NetPrioIfpriomap, &cgroups.IfPrioMap{Interface: p.Name, Priority: int64(p.Priority)})
		}
	}
	for device, l := range r.Rdma {
		if c.Rdma == nil {
			c.Rdma = map[string]cgroups.LinuxRdma{}
		}
		c.Rdma[device] = cgroups.LinuxRdma(l)
	}
	c.Unified = r.Unified
	return c
}

func setTo[T any](dst, src *T) {
	if src != nil {
		*dst = *src
	}
}

func convertIO(c *cgroups.Resources, b *specs.LinuxBlockIO) {
	if b == nil {
		return
	}
	setTo(&c.BlkioWeight, b.Weight)
	setTo(&c.BlkioLeafWeight, b.LeafWeight)
	for _, d := range b.WeightDevice {
		var w, l uint16
		setTo(&w, d.Weight)
		setTo(&l, d.LeafWeight)
		c.BlkioWeightDevice = append(c.BlkioWeightDevice, cgroups.NewWeightDevice(d.Major, d.Minor, w, l))
	}
	for _, x := range []struct {
		from []specs.LinuxThrottleDevice
		to   *[]*cgroups.ThrottleDevice
	}{
		{b.ThrottleReadBpsDevice, &c.BlkioThrottleReadBpsDevice}, {b.ThrottleWriteBpsDevice, &c.BlkioThrottleWriteBpsDevice},
		{b.ThrottleReadIOPSDevice, &c.BlkioThrottleReadIOPSDevice}, {b.ThrottleWriteIOPSDevice, &c.BlkioThrottleWriteIOPSDevice},
	} {
		for _, d := range x.from {
			*x.to = append(*x.to, cgroups.NewThrottleDevice(d.Major, d.Minor, d.Rate))
		}
	}
}

// always are device rules that every container has, after its own: making
// nodes of any kind does no harm, and the default devices must work.
var always = [...]devices.Rule{
	{Type: devices.CharDevice, Major: devices.Wildcard, Minor: devices.Wildcard, Permissions: "m", Allow: true},
	{Type: devices.BlockDevice, Major: devices.Wildcard, Minor: devices.Wildcard, Permissions: "m", Allow: true},
	{Type: devices.CharDevice, Major: 1, Minor: 3, Permissions: "rwm", Allow: true},
	{Type: devices.CharDevice, Major: 1, Minor: 5, Permissions: "rwm", Allow: true},
	{Type: devices.CharDevice, Major: 1, Minor: 7, Permissions: "rwm", Allow: true},
	{Type: devices.CharDevice, Major: 1, Minor: 8, Permissions: "rwm", Allow: true},
	{Type: devices.CharDevice, Major: 1, Minor: 9, Permissions: "rwm", Allow: true},
	{Type: devices.CharDevice, Major: 5, Minor: 0, Permissions: "rwm", Allow: true},
	{Type: devices.CharDevice, Major: 5, Minor: 2, Permissions: "rwm", Allow: true},
	{Type: devices.CharDevice, Major: 136, Minor: devices.Wildcard, Permissions: "rwm", Allow: true},
}

// deviceRules begin with "deny all", whatever the spec says later: a container
// without rules of its own gets the default devices only.
func deviceRules(list []specs.LinuxDeviceCgroup) []*devices.Rule {
	rules := []*devices.Rule{{Type: devices.WildcardDevice, Major: devices.Wildcard, Minor: devices.Wildcard, Permissions: "rwm"}}
	for _, d := range list {
		r := &devices.Rule{Type: devices.WildcardDevice, Major: devices.Wildcard, Minor: devices.Wildcard, Permissions: devices.Permissions(d.Access), Allow: d.Allow}
		if d.Type != "" {
			r.Type = devices.Type(d.Type[0])
		}
		setTo(&r.Major, d.Major)
		setTo(&r.Minor, d.Minor)
		if r.Permissions == "" {
			r.Permissions = "rwm"
		}
		rules = append(rules, r)
	}
	for i := range always {
		rules = append(rules, &always[i])
	}
	return rules
}

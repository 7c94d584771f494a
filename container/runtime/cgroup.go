package runtime

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/cgroups"
	_ "github.com/opencontainers/cgroups/devices" // lets the managers set device rules
	devices "github.com/opencontainers/cgroups/devices/config"
	"github.com/opencontainers/cgroups/manager"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

const cgroupRoot = "/sys/fs/cgroup"

// unifiedCgroups reports whether this host has cgroup v2 alone.
func unifiedCgroups() bool { return cgroups.IsCgroup2UnifiedMode() }

// A group is a container's cgroup while it is made. The zero value is none.
type group struct {
	manager cgroups.Manager
	res     *cgroups.Resources
	limited []string // the controllers that limits were asked of
	// optional: a user without delegated cgroups may do without.
	optional bool
	// pids is the limit to set last: on v2 the threads of init count as well,
	// and end with its execve.
	pids *int64
}

// planCgroup says which cgroup the container gets, and refuses limits that this
// host cannot apply.
func (r *Runtime) planCgroup(rec *record, spec *specs.Spec) (*group, error) {
	res := spec.Linux.Resources
	limited := wanted(res)
	if r.NoCgroup {
		if len(limited) > 0 {
			return nil, fmt.Errorf("set limits (%s): cgroups are disabled", strings.Join(limited, ", "))
		}
		return &group{}, nil
	}
	rec.CgroupsPath, rec.Systemd = spec.Linux.CgroupsPath, r.Systemd
	if rec.CgroupsPath == "" {
		rec.CgroupsPath = "/" + rec.ID
		if r.Systemd {
			rec.CgroupsPath = "system.slice:kist:" + rec.ID
		}
	}
	if err := available(limited); err != nil {
		return nil, err
	}
	g := &group{res: convert(res), limited: limited, optional: r.Rootless && len(limited) == 0}
	m, err := r.cgroup(rec, g.res)
	if err != nil {
		return nil, err
	}
	if !unifiedCgroups() && !rec.Systemd {
		// Of a hybrid host's unified hierarchy nothing is wanted.
		rec.CgroupPaths = m.GetPaths()
		delete(rec.CgroupPaths, "")
		if m, err = r.cgroup(rec, g.res); err != nil {
			return nil, err
		}
	}
	g.manager, rec.CgroupPaths = m, m.GetPaths()
	return g, nil
}

// make makes the cgroup and sets its limits. pid is the process to put there,
// which only systemd wants to know: init joins by itself; see join.
func (g *group) make(rec *record, pid int) error {
	if g.manager == nil {
		return nil
	}
	if !rec.Systemd {
		pid = -1
	}
	if unifiedCgroups() {
		g.pids, g.res.PidsLimit = g.res.PidsLimit, nil
	}
	// As all see of the host's cgroups, root of a user namespace sees of its own.
	defer unix.Umask(unix.Umask(0o022))
	err := g.manager.Apply(pid)
	rec.CgroupPaths = g.manager.GetPaths()
	if err == nil && g.res.CpuRtRuntime > 0 && !unifiedCgroups() {
		err = allowRealtime(rec.CgroupPaths["cpu"], g.res.CpuRtRuntime)
	}
	if err == nil {
		err = g.manager.Set(g.res)
	}
	if err != nil && g.optional {
		rec.CgroupPaths, g.manager = nil, nil
		return nil
	}
	return cgroupError(err, g.limited)
}

// finish sets what could not be set while init came up.
func (g *group) finish() error {
	if g.manager == nil || g.pids == nil {
		return nil
	}
	return cgroupError(g.manager.Set(&cgroups.Resources{PidsLimit: g.pids, SkipDevices: true}), g.limited)
}

// directory opens the cgroup to clone init right into it, which only cgroup v2
// can; see CLONE_INTO_CGROUP in clone(2). Otherwise it returns nil.
func (g *group) directory(rec *record) (*os.File, error) {
	if g.manager == nil || rec.Systemd || !unifiedCgroups() {
		return nil, nil
	}
	return os.OpenFile(rec.CgroupPaths[""], unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

// joinFiles opens the files that init writes "0" to in order to join. "tasks"
// moves the writing thread only. Moving a whole process takes a lock that waits
// for an RCU grace period, some 10 ms; see cgroup_procs_write_start in the
// kernel's cgroup.c. init's other threads end at execve.
func (g *group) joinFiles(rec *record) ([]*os.File, error) {
	if g.manager == nil || rec.Systemd || unifiedCgroups() {
		return nil, nil
	}
	return openTasks(rec, func(string) string { return "" })
}

// openTasks opens the files through which a thread joins the container's cgroups,
// or those below, by controller.
func openTasks(rec *record, below func(controller string) string) ([]*os.File, error) {
	name := "tasks"
	if unifiedCgroups() {
		name = "cgroup.procs" // v2 moves threads only within a domain
	}
	var files []*os.File
	for controller, path := range rec.CgroupPaths {
		f, err := os.OpenFile(filepath.Join(path, filepath.Join("/", below(controller)), name), os.O_WRONLY, 0)
		if errors.Is(err, os.ErrNotExist) && controller == "" && !unifiedCgroups() {
			continue // systemd's part of a hybrid host's unified hierarchy
		}
		if err != nil {
			closeAll(files)
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

func cgroupError(err error, limited []string) error {
	if err == nil {
		return nil
	}
	if len(limited) > 0 && errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("set limits (%s): this user's cgroups are not delegated: %w", strings.Join(limited, ", "), err)
	}
	var path *os.PathError
	if errors.As(err, &path) && path.Op == "write" {
		file := filepath.Base(path.Path)
		controller, _, _ := strings.Cut(file, ".")
		return fmt.Errorf("set limits: this host's %s controller does not take %s: %w", controller, file, path.Err)
	}
	return fmt.Errorf("cgroup: %w", err)
}

// cgroup returns the manager of a recorded container's cgroup.
func (r *Runtime) cgroup(rec *record, res *cgroups.Resources) (cgroups.Manager, error) {
	if res == nil {
		res = &cgroups.Resources{SkipDevices: true}
	}
	c := &cgroups.Cgroup{Resources: res, Systemd: rec.Systemd, Rootless: r.Rootless}
	if rec.Systemd {
		parts := strings.Split(rec.CgroupsPath, ":")
		if len(parts) != 3 {
			return nil, fmt.Errorf("cgroupsPath %q: with systemd want slice:prefix:name", rec.CgroupsPath)
		}
		c.Parent, c.ScopePrefix, c.Name = parts[0], parts[1], parts[2]
	} else {
		c.Path = filepath.Join("/", rec.CgroupsPath)
	}
	return manager.NewWithPaths(c, rec.CgroupPaths)
}

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

// OOMKilled reports whether the kernel has killed a process of the container
// because of its memory limit. It is to be asked before Delete.
func (r *Runtime) OOMKilled(id string) (bool, error) {
	rec, err := r.read(id)
	if err != nil {
		return false, err
	}
	if len(rec.CgroupPaths) == 0 {
		return false, nil
	}
	m, err := r.cgroup(rec, nil)
	if err != nil {
		return false, err
	}
	n, err := m.OOMKillCount()
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return n > 0, err
}

// hierarchy is one mounted cgroup v1 hierarchy.
type hierarchy struct {
	name, mountpoint string
	controllers      []string
	aliases          []string
	fstype           string
	options          []string
}

// hierarchiesV1 reads the hierarchies of this host; see proc_pid_mountinfo(5).
func hierarchiesV1() ([]hierarchy, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var list []hierarchy
	for lines := bufio.NewScanner(f); lines.Scan(); {
		left, right, ok := strings.Cut(lines.Text(), " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if !ok || len(l) < 5 || len(r) < 3 || r[0] != "cgroup" || filepath.Dir(l[4]) != cgroupRoot {
			continue
		}
		h := hierarchy{name: filepath.Base(l[4]), mountpoint: l[4], fstype: r[0]}
		for _, o := range strings.Split(r[2], ",") {
			switch {
			case strings.HasPrefix(o, "name="):
				h.options = append(h.options, "none", o)
			case o != "rw" && o != "ro" && o != "xattr" && !strings.Contains(o, "=") && o != "clone_children":
				h.controllers = append(h.controllers, o)
				h.options = append(h.options, o)
			}
		}
		if len(h.controllers) > 1 {
			h.aliases = slices.DeleteFunc(slices.Clone(h.controllers), func(c string) bool { return c == h.name })
		}
		list = append(list, h)
	}
	return list, nil
}

// killAll sends sig to all processes of the container.
func (r *Runtime) killAll(rec *record, sig unix.Signal) error {
	if len(rec.CgroupPaths) == 0 {
		return rec.Init.Signal(sig)
	}
	if path := rec.CgroupPaths[""]; path != "" && sig == unix.SIGKILL {
		// cgroup.kill: Linux 5.14.
		if os.WriteFile(filepath.Join(path, "cgroup.kill"), []byte("1"), 0) == nil {
			return nil
		}
	}
	m, err := r.cgroup(rec, nil)
	if err != nil {
		return err
	}
	pids, err := m.GetAllPids()
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, pid := range pids {
		unix.Kill(pid, sig)
	}
	return err
}

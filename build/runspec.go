package build

import (
	"fmt"
	"strings"

	"github.com/moby/profiles/seccomp"
	"github.com/moby/sys/capability"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/kist-containers/kist/internal/rootless"
)

// capabilities are docker's default ones.
func capabilities() []string {
	return strings.Fields("CAP_CHOWN CAP_DAC_OVERRIDE CAP_FSETID CAP_FOWNER CAP_MKNOD CAP_NET_RAW CAP_SETGID CAP_SETUID " +
		"CAP_SETFCAP CAP_SETPCAP CAP_NET_BIND_SERVICE CAP_SYS_CHROOT CAP_KILL CAP_AUDIT_WRITE")
}

// defaultShm is the size of /dev/shm in bytes.
const defaultShm = 64 << 20

// spec is the bundle of a RUN step: docker's default isolation.
func (r *stageRun) spec(s *runStep, id string) (*specs.Spec, error) {
	req := r.job.req
	caps := capabilities()
	shm := req.ShmSize
	if shm == 0 {
		shm = defaultShm
	}
	plain := []string{"nosuid", "noexec", "nodev"}
	spec := &specs.Spec{
		Version: specs.Version, Hostname: cmpOr(s.hostname, "buildkitsandbox"),
		Root: &specs.Root{Path: "rootfs"},
		Process: &specs.Process{
			Args: s.argv, Env: s.environment(), Cwd: s.cwd,
			User:         specs.User{UID: uint32(s.user.uid), GID: uint32(s.user.gid), AdditionalGids: r.gids(s)},
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
			Rlimits:      req.Ulimits,
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: plain},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: r.devpts()},
			r.sysfs(s, append(plain, "ro")),
			{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: append(plain, "ro")},
			{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: plain},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: append(plain, "mode=1777", fmt.Sprintf("size=%d", shm))},
		},
		Linux: &specs.Linux{
			CgroupsPath: r.cgroup(id), Resources: req.Resources,
			Namespaces: []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.MountNamespace},
				{Type: specs.UTSNamespace}, {Type: specs.IPCNamespace}, {Type: specs.CgroupNamespace}},
			MaskedPaths: strings.Fields("/proc/acpi /proc/asound /proc/interrupts /proc/kcore /proc/keys /proc/latency_stats /proc/sched_debug " +
				"/proc/scsi /proc/timer_list /proc/timer_stats /sys/devices/virtual/powercap /sys/firmware"),
			ReadonlyPaths: strings.Fields("/proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger"),
		},
	}
	if req.Resources == nil {
		spec.Linux.Resources = &specs.LinuxResources{}
	}
	if s.insecure {
		r.insecure(spec)
		return spec, nil
	}
	spec.Linux.Resources.Devices = deviceRules()
	var err error
	spec.Linux.Seccomp, err = seccomp.GetDefaultProfile(spec)
	return spec, err
}

func (r *stageRun) devpts() []string {
	o := []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}
	if r.job.b.o.Rootless && !rootless.MapsGID(5) {
		return o
	}
	return append(o, "gid=5")
}

// sysfs cannot be mounted anew by a user namespace that shares the host's
// network: there the host's is shown.
func (r *stageRun) sysfs(s *runStep, options []string) specs.Mount {
	if r.job.b.o.Rootless && s.network == "host" {
		return specs.Mount{Destination: "/sys", Type: "bind", Source: "/sys", Options: append([]string{"rbind", "rro"}, options...)}
	}
	return specs.Mount{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: options}
}

// deviceRules are the devices that a container may use: docker's.
func deviceRules() []specs.LinuxDeviceCgroup {
	rule := func(kind string, major, minor int64, access string) specs.LinuxDeviceCgroup {
		d := specs.LinuxDeviceCgroup{Allow: true, Type: kind, Access: access}
		if major >= 0 {
			d.Major = &major
		}
		if minor >= 0 {
			d.Minor = &minor
		}
		return d
	}
	return []specs.LinuxDeviceCgroup{
		{Allow: false, Access: "rwm"},
		rule("c", -1, -1, "m"), rule("b", -1, -1, "m"),
		rule("c", 1, 3, "rwm"), rule("c", 1, 5, "rwm"), rule("c", 1, 7, "rwm"), rule("c", 1, 8, "rwm"), rule("c", 1, 9, "rwm"),
		rule("c", 5, 0, "rwm"), rule("c", 5, 2, "rwm"), rule("c", 136, -1, "rwm"),
	}
}

// insecure is RUN --security=insecure, granted on the command line: all that
// this process may do itself.
func (r *stageRun) insecure(spec *specs.Spec) {
	all := allCapabilities()
	spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: all, Effective: all, Permitted: all}
	spec.Linux.MaskedPaths, spec.Linux.ReadonlyPaths = nil, nil
	spec.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
	for i, m := range spec.Mounts {
		if m.Destination == "/sys" || m.Destination == "/sys/fs/cgroup" {
			spec.Mounts[i].Options = []string{"nosuid", "noexec", "nodev"}
		}
	}
}

func (r *stageRun) cgroup(id string) string {
	parent := r.job.b.o.CgroupParent
	if r.job.b.o.Systemd {
		return cmpOr(parent, "system.slice") + ":kist-build:" + id
	}
	return cmpOr(parent, "/kist") + "/build-" + id
}

// allCapabilities are those of this kernel.
func allCapabilities() []string {
	list, err := capability.ListSupported()
	if err != nil {
		return capabilities()
	}
	var names []string
	for _, c := range list {
		names = append(names, "CAP_"+strings.ToUpper(c.String()))
	}
	return names
}

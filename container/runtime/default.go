package runtime

import (
	"cmp"
	"os"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// MaskedPaths are what docker hides from a container.
func MaskedPaths() []string {
	return []string{
		"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
		"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
	}
}

// ReadonlyPaths are what docker lets a container read only.
func ReadonlyPaths() []string {
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}

// DefaultShm is the size of /dev/shm in bytes.
const DefaultShm = 64 << 20

// DefaultMounts are docker's mounts of a container; the zero value is what one
// has that asked for nothing else.
type DefaultMounts struct {
	// HostSys and HostProc show the host's /sys and /proc: a user namespace that
	// shares the host's network, or its processes, cannot mount them anew.
	// NoTTYGroup is for one without group 5.
	HostSys, HostProc, NoTTYGroup bool
	// WritableSys and WritableCgroups let the container write there.
	WritableSys, WritableCgroups bool
	// SystemdCgroups lets it write to as much of its cgroups as systemd needs and
	// as does not let it lift its own limits.
	SystemdCgroups bool
	// Proc are further options of /proc.
	Proc []string
}

// Mounts are /proc, /dev, /dev/pts, /sys and /sys/fs/cgroup.
func (d DefaultMounts) Mounts() []specs.Mount {
	pts := []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}
	if !d.NoTTYGroup {
		pts = append(pts, "gid=5")
	}
	sys := specs.Mount{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: unlessWritable(d.WritableSys)}
	if d.HostSys {
		sys.Type, sys.Source, sys.Options = "bind", "/sys", append([]string{"rbind", "rro"}, sys.Options...)
	}
	proc := specs.Mount{Destination: "/proc", Type: "proc", Source: "proc", Options: slices.Concat(unlessWritable(true), d.Proc)}
	if d.HostProc {
		proc.Type, proc.Source, proc.Options = "bind", "/proc", append([]string{"rbind"}, unlessWritable(true)...)
	}
	return append([]specs.Mount{
		proc,
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: pts},
		sys,
		{Destination: cgroupRoot, Type: "cgroup", Source: "cgroup", Options: unlessWritable(d.WritableCgroups || d.SystemdCgroups && delegates())},
	}, d.systemdHierarchy()...)
}

// systemdHierarchy makes systemd's own hierarchy writable, which has no limits.
// On v2 there is none.
func (d DefaultMounts) systemdHierarchy() []specs.Mount {
	const own = cgroupRoot + "/systemd"
	if _, err := os.Stat(own); err != nil || !d.SystemdCgroups || unifiedCgroups() {
		return nil
	}
	return []specs.Mount{{Destination: own, Type: "bind", Source: own, Options: append(unlessWritable(true), "bind", "remount", "rw")}}
}

// delegates reports whether the kernel keeps the root of a cgroup namespace from
// its own limits: the mount option nsdelegate; see cgroups(7).
func delegates() bool {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || !unifiedCgroups() {
		return false
	}
	for line := range strings.Lines(string(data)) {
		if _, fs, _ := strings.Cut(line, " - "); strings.HasPrefix(fs, "cgroup2 ") && strings.Contains(fs, "nsdelegate") {
			return true
		}
	}
	return false
}

func unlessWritable(writable bool) []string {
	o := []string{"nosuid", "noexec", "nodev"}
	if !writable {
		o = append(o, "ro")
	}
	return o
}

// MessageQueues and SharedMemory are the mounts that belong to an IPC namespace
// of the container's own; size is in bytes, 0 for DefaultShm.
func MessageQueues() specs.Mount {
	return specs.Mount{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: unlessWritable(true)}
}

// SharedMemory is /dev/shm; size is in bytes.
func SharedMemory(size int64) specs.Mount {
	return specs.Mount{Destination: "/dev/shm", Type: "tmpfs", Source: "shm",
		Options: append(unlessWritable(true), "mode=1777", "size="+strconv.FormatInt(cmp.Or(size, DefaultShm), 10))}
}

// HostIPC are the mounts of a container that shares the host's IPC namespace,
// as far as the host has them.
func HostIPC() []specs.Mount {
	var all []specs.Mount
	for _, dir := range []string{"/dev/mqueue", "/dev/shm"} {
		if _, err := os.Stat(dir); err == nil {
			all = append(all, specs.Mount{Destination: dir, Type: "bind", Source: dir, Options: []string{"rbind", "rprivate"}})
		}
	}
	return all
}

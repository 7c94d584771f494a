package container

import (
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/kist-containers/kist/internal/rootless"
)

const defaultShm = 64 << 20

func (m *specMaker) mountList(s *specs.Spec) error {
	plain := []string{"nosuid", "noexec", "nodev"}
	sysfs := append(slices.Clone(plain), "ro")
	if m.c.Security.Privileged {
		sysfs = plain
	}
	shm := m.c.Limits.ShmSize
	if shm == 0 {
		shm = defaultShm
	}
	cgroup := sysfs
	if m.c.Security.WritableCgroups {
		cgroup = plain
	}
	s.Mounts = []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: slices.Concat(plain, m.c.Security.ProcOptions)},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: m.devpts()},
		m.sysfs(sysfs),
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: cgroup},
	}
	s.Mounts = append(s.Mounts, m.ipcMounts(plain, shm)...)
	for _, dest := range slices.Sorted(maps.Keys(m.files)) {
		s.Mounts = append(s.Mounts, bindFile(m.files[dest], dest))
		for _, dir := range m.c.ChrootDirs {
			s.Mounts = append(s.Mounts, bindFile(m.files[dest], path.Join(dir, dest)))
		}
	}
	// A user's mount on one of these paths stands for it.
	s.Mounts = slices.DeleteFunc(s.Mounts, func(x specs.Mount) bool {
		return slices.ContainsFunc(m.mounts, func(u specs.Mount) bool { return u.Destination == x.Destination })
	})
	s.Mounts = append(s.Mounts, m.mounts...)
	if m.c.Init {
		binary, err := m.initBinary()
		if err != nil {
			return err
		}
		s.Mounts = append(s.Mounts, specs.Mount{Destination: initPath, Type: "bind", Source: binary, Options: []string{"bind", "ro", "nosuid", "nodev"}})
	}
	return nil
}

// bindFile shows a file that kist made.
func bindFile(from, at string) specs.Mount {
	return specs.Mount{Destination: at, Type: "bind", Source: from, Options: []string{"rbind", "rprivate"}}
}

// initBinary is what --init runs, by its path on the host: the /proc/self/exe of
// the process that mounts it is a copy that cannot be mounted, or another
// runtime's program.
func (m *specMaker) initBinary() (string, error) {
	if m.c.InitPath != "" {
		return m.c.InitPath, nil
	}
	path, err := os.Readlink("/proc/self/exe")
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		return "", fmt.Errorf("--init: kist's own binary: %w", err)
	}
	return path, nil
}

// sysfs cannot be mounted anew by a user namespace that shares the host's
// network: there the host's is shown.
func (m *specMaker) sysfs(options []string) specs.Mount {
	if m.e.Rootless && m.c.Network.Mode == "host" {
		return specs.Mount{Destination: "/sys", Type: "bind", Source: "/sys", Options: append([]string{"rbind", "rro"}, options...)}
	}
	return specs.Mount{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: options}
}

func (m *specMaker) devpts() []string {
	o := []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}
	if m.e.Rootless && !rootless.MapsGID(5) {
		return o
	}
	return append(o, "gid=5")
}

// ipcMounts are those that belong to the IPC namespace.
func (m *specMaker) ipcMounts(plain []string, shm int64) []specs.Mount {
	mode := m.c.Spaces.IPC
	if mode == "host" {
		return []specs.Mount{
			{Destination: "/dev/mqueue", Type: "bind", Source: "/dev/mqueue", Options: []string{"rbind", "rprivate"}},
			{Destination: "/dev/shm", Type: "bind", Source: "/dev/shm", Options: []string{"rbind", "rprivate"}},
		}
	}
	mounts := []specs.Mount{{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: plain}}
	if other, joined := strings.CutPrefix(mode, "container:"); joined {
		if c, err := m.e.Lookup(other); err == nil {
			src := fmt.Sprintf("/proc/%d/root/dev/shm", m.e.Status(c.ID).Pid)
			return append(mounts, specs.Mount{Destination: "/dev/shm", Type: "bind", Source: src, Options: []string{"bind", "rprivate"}})
		}
	}
	if mode == "none" {
		return mounts
	}
	return append(mounts, specs.Mount{Destination: "/dev/shm", Type: "tmpfs", Source: "shm",
		Options: append(slices.Clone(plain), "mode=1777", "size="+strconv.FormatInt(shm, 10))})
}

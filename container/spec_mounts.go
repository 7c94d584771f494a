package container

import (
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/cgroups"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/kist-containers/kist/container/runtime"
	"github.com/kist-containers/kist/internal/rootless"
)

func (m *specMaker) mountList(s *specs.Spec) error {
	sec := &m.c.Security
	s.Mounts = runtime.DefaultMounts{
		HostSys: m.e.Rootless && m.c.Network.Mode == "host", HostProc: m.e.Rootless && m.c.Spaces.PID == "host", NoTTYGroup: !m.mapsTTYGroup(),
		WritableSys: sec.Privileged, WritableCgroups: sec.Privileged || sec.WritableCgroups, SystemdCgroups: m.systemdCgroups(), Proc: sec.ProcOptions,
	}.Mounts()
	s.Mounts = append(s.Mounts, m.ipcMounts()...)
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

// systemdCgroups leaves out what would change a mount that is the user's, or one
// that another runtime makes in its own way.
func (m *specMaker) systemdCgroups() bool {
	users := slices.ContainsFunc(m.mounts, func(u specs.Mount) bool { return strings.HasPrefix(u.Destination, "/sys/fs/cgroup") })
	return m.c.Security.SystemdCgroups && !users && (m.c.Runtime == "" || cgroups.IsCgroup2UnifiedMode())
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

// ipcMounts are those that belong to the IPC namespace.
func (m *specMaker) ipcMounts() []specs.Mount {
	mode := m.c.Spaces.IPC
	if mode == "host" {
		return runtime.HostIPC()
	}
	mounts := []specs.Mount{runtime.MessageQueues()}
	if other, joined := strings.CutPrefix(mode, "container:"); joined {
		if c, err := m.e.Lookup(other); err == nil {
			src := fmt.Sprintf("/proc/%d/root/dev/shm", m.e.Status(c.ID).Pid)
			return append(mounts, specs.Mount{Destination: "/dev/shm", Type: "bind", Source: src, Options: []string{"bind", "rprivate"}})
		}
	}
	if mode == "none" {
		return mounts
	}
	return append(mounts, runtime.SharedMemory(m.c.Limits.ShmSize))
}

// ttyGroup owns the terminals of /dev/pts.
const ttyGroup = 5

// mapsTTYGroup reports whether the container has that group.
func (m *specMaker) mapsTTYGroup() bool {
	if gids := m.c.Spaces.GIDs; len(gids) > 0 {
		_, ok := hostID(gids, ttyGroup)
		return ok
	}
	return !m.e.Rootless || rootless.MapsGID(ttyGroup)
}

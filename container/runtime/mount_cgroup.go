package runtime

import (
	"fmt"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/sys"
)

// cgroupMount shows the container's cgroups: one hierarchy on v2, a directory
// of them on v1.
func (p *initProcess) cgroupMount(m *specs.Mount, plan mountPlan) error {
	target, err := sys.EnsureInRoot(p.root, m.Destination, true, 0o755)
	if err != nil {
		return err
	}
	defer target.Close()
	attr := int(plan.set | plan.recSet)
	if unifiedCgroups() {
		if !isNew(p.Spec, specs.CgroupNamespace) {
			return p.bindMount(&specs.Mount{Destination: m.Destination, Source: cgroupRoot, Type: "bind", Options: []string{"rbind", "rro", "nosuid", "noexec", "nodev"}},
				mountPlan{recursive: true, recSet: uint64(attr)}, nil)
		}
		fs, err := sys.NewFS("cgroup2", "cgroup", nil, attr)
		if err != nil {
			return err
		}
		defer fs.Close()
		return sys.Attach(fs, target)
	}
	return p.cgroupMountV1(target, m.Destination, attr)
}

// cgroupMountV1 puts one mount per hierarchy into a tmpfs. In a cgroup namespace
// a fresh mount shows the container's part; without one a bind mount of the
// container's directory does.
func (p *initProcess) cgroupMountV1(target *os.File, destination string, attr int) error {
	const plain = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
	tmp, err := sys.NewFS("tmpfs", "tmpfs", []string{"mode=755"}, plain)
	if err != nil {
		return err
	}
	defer tmp.Close()
	if err := sys.Attach(tmp, target); err != nil {
		return err
	}
	hierarchies, err := hierarchiesV1()
	if err != nil {
		return err
	}
	for _, h := range hierarchies {
		if err := p.mountHierarchy(tmp, h, attr); err != nil {
			return fmt.Errorf("hierarchy %s: %w", h.name, err)
		}
	}
	return sys.SetAttr(tmp, false, &unix.MountAttr{Attr_set: uint64(attr) & unix.MOUNT_ATTR_RDONLY})
}

// ownCgroup is the container's directory in a hierarchy.
func (p *initProcess) ownCgroup(h hierarchy) string {
	for _, c := range append(h.controllers, h.name) {
		if path := p.CgroupPaths[c]; path != "" {
			return path
		}
	}
	return h.mountpoint
}

func (p *initProcess) mountHierarchy(dir *os.File, h hierarchy, attr int) error {
	if err := unix.Mkdirat(int(dir.Fd()), h.name, 0o755); err != nil {
		return err
	}
	at, err := sys.OpenInRoot(dir, h.name, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer at.Close()
	var mount *os.File
	inUser := namespace(p.Spec, specs.UserNamespace) != nil
	if isNew(p.Spec, specs.CgroupNamespace) {
		mount, err = sys.NewFS(h.fstype, "cgroup", h.options, attr)
	}
	if mount == nil && (err == nil || inUser) {
		if mount, err = sys.Clone(nil, p.ownCgroup(h), false, 0); err == nil {
			err = sys.SetAttr(mount, false, &unix.MountAttr{Attr_set: uint64(attr)})
		}
	}
	if err != nil {
		return err
	}
	defer mount.Close()
	if err := sys.Attach(mount, at); err != nil {
		return err
	}
	for _, alias := range h.aliases {
		if err := unix.Symlinkat(h.name, int(dir.Fd()), alias); err != nil {
			return err
		}
	}
	return nil
}

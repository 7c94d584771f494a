package runtime

import (
	"fmt"
	"os"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/sys"
)

// A mountPlan is a mount's options sorted by what takes them: attributes of the
// mount, its propagation, strings for the file system.
type mountPlan struct {
	set, clear       uint64
	recSet, recClear uint64
	propagation      uintptr
	bind, recursive  bool
	data             []string
}

// attributes are options that set or clear a flag of the mount. The atime ones
// are a field of three values, not flags.
var attributes = map[string]struct{ set, clear uint64 }{
	"ro": {set: unix.MOUNT_ATTR_RDONLY}, "rw": {clear: unix.MOUNT_ATTR_RDONLY},
	"nosuid": {set: unix.MOUNT_ATTR_NOSUID}, "suid": {clear: unix.MOUNT_ATTR_NOSUID},
	"nodev": {set: unix.MOUNT_ATTR_NODEV}, "dev": {clear: unix.MOUNT_ATTR_NODEV},
	"noexec": {set: unix.MOUNT_ATTR_NOEXEC}, "exec": {clear: unix.MOUNT_ATTR_NOEXEC},
	"nodiratime": {set: unix.MOUNT_ATTR_NODIRATIME}, "diratime": {clear: unix.MOUNT_ATTR_NODIRATIME},
	"relatime": {set: unix.MOUNT_ATTR_RELATIME, clear: unix.MOUNT_ATTR__ATIME}, "norelatime": {clear: unix.MOUNT_ATTR__ATIME},
	"noatime": {set: unix.MOUNT_ATTR_NOATIME, clear: unix.MOUNT_ATTR__ATIME}, "atime": {clear: unix.MOUNT_ATTR__ATIME},
	"strictatime": {set: unix.MOUNT_ATTR_STRICTATIME, clear: unix.MOUNT_ATTR__ATIME}, "nostrictatime": {clear: unix.MOUNT_ATTR__ATIME},
	"nosymfollow": {set: unix.MOUNT_ATTR_NOSYMFOLLOW}, "symfollow": {clear: unix.MOUNT_ATTR_NOSYMFOLLOW},
}

var propagations = map[string]uintptr{
	"private": unix.MS_PRIVATE, "rprivate": unix.MS_PRIVATE | unix.MS_REC,
	"slave": unix.MS_SLAVE, "rslave": unix.MS_SLAVE | unix.MS_REC,
	"shared": unix.MS_SHARED, "rshared": unix.MS_SHARED | unix.MS_REC,
	"unbindable": unix.MS_UNBINDABLE, "runbindable": unix.MS_UNBINDABLE | unix.MS_REC,
}

// plainOptions are those that planOf knows by themselves. The file system's
// context takes sync, dirsync, lazytime, mand and their like (Linux 5.2).
var plainOptions = [...]string{"bind", "rbind", "defaults", "silent", "loud", "async", "sync", "dirsync", "iversion", "noiversion",
	"lazytime", "nolazytime", "mand", "nomand", "remount", "idmap", "ridmap", "tmpcopyup"}

func planOf(options []string) (mountPlan, error) {
	var p mountPlan
	for _, o := range options {
		if a, ok := attributes[o]; ok {
			p.set, p.clear = p.set&^a.clear|a.set, p.clear&^a.set|a.clear
			continue
		}
		if a, ok := attributes[strings.TrimPrefix(o, "r")]; ok && strings.HasPrefix(o, "r") {
			p.recSet, p.recClear = p.recSet&^a.clear|a.set, p.recClear&^a.set|a.clear
			continue
		}
		if f, ok := propagations[o]; ok {
			p.propagation = f
			continue
		}
		switch o {
		case "bind":
			p.bind = true
		case "rbind":
			p.bind, p.recursive = true, true
		case "defaults", "silent", "loud", "async", "nomand", "noiversion", "nolazytime":
		case "idmap", "ridmap":
			return p, fmt.Errorf("option %q needs uidMappings and gidMappings", o)
		case "remount":
			return p, fmt.Errorf("option %q is refused: give the final options", o)
		default:
			p.data = append(p.data, o)
		}
	}
	return p, nil
}

func isBind(m *specs.Mount) bool {
	for _, o := range m.Options {
		if o == "bind" || o == "rbind" {
			return true
		}
	}
	return m.Type == "bind"
}

// mount makes one mount of the spec.
func (p *initProcess) mount(m *specs.Mount) error {
	plan, err := planOf(m.Options)
	if err != nil {
		return err
	}
	switch {
	case isBind(m):
		return p.bindMount(m, plan)
	case m.Type == "cgroup" || m.Type == "cgroup2":
		return p.cgroupMount(m, plan)
	case m.Type == "proc" || m.Type == "sysfs":
		// A link in place of /proc or /sys would put the real ones elsewhere.
		if err := p.realDirectory(m.Destination); err != nil {
			return err
		}
	}
	target, err := sys.EnsureInRoot(p.root, m.Destination, true, 0o755)
	if err != nil {
		return err
	}
	defer target.Close()
	attr := plan.set | plan.recSet
	fs, err := sys.NewFS(m.Type, source(m), plan.data, int(attr))
	if err != nil {
		return err
	}
	defer fs.Close()
	return p.attach(fs, target, plan)
}

func source(m *specs.Mount) string {
	if m.Source == "" {
		return m.Type
	}
	return m.Source
}

func (p *initProcess) attach(mount, target *os.File, plan mountPlan) error {
	if plan.propagation != 0 {
		attr := &unix.MountAttr{Propagation: uint64(plan.propagation &^ unix.MS_REC)}
		if err := sys.SetAttr(mount, plan.propagation&unix.MS_REC != 0, attr); err != nil {
			return err
		}
	}
	return sys.Attach(mount, target)
}

func (p *initProcess) realDirectory(path string) error {
	f, err := sys.OpenInRoot(p.root, path, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return fmt.Errorf("%s of the image is not a directory", path)
	}
	return nil
}

// bindMount shows a file or directory of the host.
func (p *initProcess) bindMount(m *specs.Mount, plan mountPlan) error {
	source := absolute(p.State.Bundle, m.Source)
	clone, err := sys.Clone(nil, source, plan.recursive, 0)
	if err != nil {
		return err
	}
	defer clone.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(clone.Fd()), &st); err != nil {
		return err
	}
	target, err := sys.EnsureInRoot(p.root, m.Destination, st.Mode&unix.S_IFMT == unix.S_IFDIR, 0o755)
	if err != nil {
		return err
	}
	defer target.Close()
	if len(m.UIDMappings) > 0 || len(m.GIDMappings) > 0 {
		if err := idmapped(clone, m, plan.recursive); err != nil {
			return err
		}
	}
	if plan.set|plan.clear != 0 {
		if err := sys.SetAttr(clone, false, &unix.MountAttr{Attr_set: plan.set, Attr_clr: plan.clear}); err != nil {
			return err
		}
	}
	if plan.recSet|plan.recClear != 0 {
		if err := sys.SetAttr(clone, true, &unix.MountAttr{Attr_set: plan.recSet, Attr_clr: plan.recClear}); err != nil {
			return err
		}
	}
	if plan.propagation == 0 {
		plan.propagation = unix.MS_PRIVATE | unix.MS_REC
	}
	return p.attach(clone, target, plan)
}

// idmapped translates the owners seen through the mount. The mapping is that of
// a user namespace; see mount_setattr(2), MOUNT_ATTR_IDMAP.
func idmapped(mount *os.File, m *specs.Mount, recursive bool) error {
	ns, err := userNamespace(m.UIDMappings, m.GIDMappings)
	if err != nil {
		return fmt.Errorf("idmap: %w", err)
	}
	defer ns.Close()
	return sys.SetAttr(mount, recursive, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns.Fd())})
}

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
				mountPlan{recursive: true, recSet: uint64(attr)})
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
	if isNew(p.Spec, specs.CgroupNamespace) && !isNew(p.Spec, specs.UserNamespace) {
		mount, err = sys.NewFS(h.fstype, "cgroup", h.options, attr)
	} else {
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

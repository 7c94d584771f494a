package runtime

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/copytree"
	"github.com/kist-containers/kist/internal/sys"
)

// A mountPlan is a mount's options sorted by what takes them: attributes of the
// mount, its propagation, strings for the file system.
type mountPlan struct {
	set, clear       uint64
	recSet, recClear uint64
	propagation      uintptr
	bind, recursive  bool
	remount, copyUp  bool
	idmap, ridmap    bool
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
		case "remount":
			p.remount = true
		case "tmpcopyup":
			p.copyUp = true
		case "idmap":
			p.idmap = true
		case "ridmap":
			p.ridmap = true
		case "defaults", "silent", "loud", "iversion", "noiversion": // iversion is not for the user to set any more
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
func (p *initProcess) mount(i int, m *specs.Mount) error {
	plan, err := planOf(m.Options)
	if err != nil {
		return err
	}
	switch {
	case plan.remount:
		return p.remount(m, plan)
	case isBind(m):
		return p.bindMount(m, plan, p.sources[i])
	case m.Type == "cgroup" || m.Type == "cgroup2":
		return p.cgroupMount(m, plan)
	case m.Type == "proc" || m.Type == "sysfs" || path.Clean(m.Destination) == "/dev":
		// A link in place of /proc, /sys or /dev would put the real ones elsewhere.
		if err := p.realDirectory(m.Destination); err != nil {
			return err
		}
	}
	target, err := p.target(m, true)
	if err != nil {
		return err
	}
	defer target.Close()
	attr := plan.set | plan.recSet
	fs, err := sys.NewFS(m.Type, source(m), plan.data, int(attr))
	if errors.Is(err, unix.EPERM) && m.Type == "sysfs" && p.inUserNamespace() {
		// sysfs belongs to the network namespace, and that one to somebody else.
		fs, err = hostSysfs(plan)
	}
	if err != nil {
		return err
	}
	defer fs.Close()
	if plan.copyUp {
		if err := copyUp(target, fs); err != nil {
			return fmt.Errorf("tmpcopyup: %w", err)
		}
	}
	return p.attach(fs, target, plan)
}

// copyUp fills the root of a mount that is not attached yet with what it will
// hide: the option tmpcopyup. target is an O_PATH descriptor.
func copyUp(target, mount *os.File) error {
	from, err := sys.OpenAt(target, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := sys.OpenAt(mount, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer to.Close()
	return copytree.Contents(from, to)
}

// hostSysfs is the host's /sys with all that is mounted below.
func hostSysfs(plan mountPlan) (*os.File, error) {
	clone, err := sys.Clone(nil, "/sys", true, 0)
	if err != nil {
		return nil, err
	}
	attr := &unix.MountAttr{Attr_set: plan.set | plan.recSet, Propagation: unix.MS_PRIVATE}
	if err := sys.SetAttr(clone, true, attr); err != nil {
		clone.Close()
		return nil, err
	}
	return clone, nil
}

// remount changes the flags of what an earlier entry of the list has mounted.
func (p *initProcess) remount(m *specs.Mount, plan mountPlan) error {
	if len(plan.data) > 0 && !isBind(m) {
		return fmt.Errorf("remount cannot change %v", plan.data)
	}
	target, err := sys.OpenInRoot(p.root, m.Destination, unix.O_PATH, 0)
	if err != nil {
		return err
	}
	defer target.Close()
	if err := sys.SetAttr(target, plan.recursive, &unix.MountAttr{Attr_set: plan.set, Attr_clr: plan.clear}); err != nil {
		return err
	}
	return sys.SetAttr(target, true, &unix.MountAttr{Attr_set: plan.recSet, Attr_clr: plan.recClear})
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

// target opens, or makes, what m is mounted on. No link of the image leads it
// into /proc, whose files are believed; see writeProc.
func (p *initProcess) target(m *specs.Mount, dir bool) (*os.File, error) {
	f, err := sys.EnsureInRoot(p.root, m.Destination, dir, 0o755)
	if err != nil || strings.HasPrefix(path.Clean(m.Destination)+"/", "/proc/") {
		return f, err
	}
	if p.inProc(f) {
		f.Close()
		return nil, errors.New("a link of the image leads it into /proc")
	}
	return f, nil
}

// inProc reports whether f is in a proc, or where a builder will mount one.
func (p *initProcess) inProc(f *os.File) bool {
	var st unix.Statfs_t
	if unix.Fstatfs(int(f.Fd()), &st) != nil || st.Type == unix.PROC_SUPER_MAGIC {
		return true
	}
	root, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", p.root.Fd()))
	name, err2 := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	return p.postpone && (err != nil || err2 != nil || below(name, path.Join(root, "proc")))
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
func (p *initProcess) bindMount(m *specs.Mount, plan mountPlan, given *os.File) error {
	clone := given
	if clone == nil {
		var err error
		if clone, err = sys.Clone(nil, absolute(p.State.Bundle, m.Source), plan.recursive, 0); err != nil {
			return err
		}
	}
	defer clone.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(clone.Fd()), &st); err != nil {
		return err
	}
	target, err := p.target(m, st.Mode&unix.S_IFMT == unix.S_IFDIR)
	if err != nil {
		return err
	}
	defer target.Close()
	if given == nil {
		if err := idmapped(clone, m, plan, p.Spec); err != nil {
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
// a user namespace, the container's unless the mount has one of its own; see
// mount_setattr(2), MOUNT_ATTR_IDMAP.
func idmapped(mount *os.File, m *specs.Mount, plan mountPlan, spec *specs.Spec) error {
	uids, gids := m.UIDMappings, m.GIDMappings
	if len(uids) == 0 && len(gids) == 0 {
		if !plan.idmap && !plan.ridmap {
			return nil
		}
		uids, gids = spec.Linux.UIDMappings, spec.Linux.GIDMappings
	}
	if len(uids) == 0 || len(gids) == 0 {
		return errors.New("idmap: uidMappings and gidMappings are missing")
	}
	ns, err := UserNamespace(uids, gids)
	if err != nil {
		return fmt.Errorf("idmap: %w", err)
	}
	defer ns.Close()
	recursive := plan.ridmap || plan.recursive && !plan.idmap
	return sys.SetAttr(mount, recursive, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns.Fd())})
}

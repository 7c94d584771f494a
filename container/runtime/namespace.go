package runtime

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// nsFlags are the kernel's names for the specification's namespaces; their
// order is that of joining.
var nsFlags = [...]struct {
	kind specs.LinuxNamespaceType
	flag uintptr
	file string
}{
	{specs.UserNamespace, unix.CLONE_NEWUSER, "user"},
	{specs.IPCNamespace, unix.CLONE_NEWIPC, "ipc"},
	{specs.UTSNamespace, unix.CLONE_NEWUTS, "uts"},
	{specs.NetworkNamespace, unix.CLONE_NEWNET, "net"},
	{specs.PIDNamespace, unix.CLONE_NEWPID, "pid"},
	{specs.CgroupNamespace, unix.CLONE_NEWCGROUP, "cgroup"},
	{specs.TimeNamespace, unix.CLONE_NEWTIME, "time"},
	{specs.MountNamespace, unix.CLONE_NEWNS, "mnt"},
}

func namespace(spec *specs.Spec, kind specs.LinuxNamespaceType) *specs.LinuxNamespace {
	for i, n := range spec.Linux.Namespaces {
		if n.Type == kind {
			return &spec.Linux.Namespaces[i]
		}
	}
	return nil
}

// isNew reports whether the container gets a namespace of its own.
func isNew(spec *specs.Spec, kind specs.LinuxNamespaceType) bool {
	n := namespace(spec, kind)
	return n != nil && n.Path == ""
}

func joinPath(spec *specs.Spec, kind specs.LinuxNamespaceType) string {
	if n := namespace(spec, kind); n != nil {
		return n.Path
	}
	return ""
}

// newFlags are the namespaces that init is cloned into. The cgroup namespace
// is made by init itself, once it is in its cgroup, and so is the time
// namespace, which wants its offsets first.
func newFlags(spec *specs.Spec) uintptr {
	var flags uintptr
	for _, n := range nsFlags {
		if isNew(spec, n.kind) && n.kind != specs.CgroupNamespace && n.kind != specs.TimeNamespace {
			flags |= n.flag
		}
	}
	return flags
}

func mapped(spec *specs.Spec) bool {
	return isNew(spec, specs.UserNamespace) && len(spec.Linux.UIDMappings) > 0
}

func idMap(mappings []specs.LinuxIDMapping) []syscall.SysProcIDMap {
	var m []syscall.SysProcIDMap
	for _, x := range mappings {
		m = append(m, syscall.SysProcIDMap{ContainerID: int(x.ContainerID), HostID: int(x.HostID), Size: int(x.Size)})
	}
	return m
}

// joinByPath enters the namespaces that the spec names by path and that a
// thread can enter for itself. Those of pid and user were entered before its start,
// and all were where there is a user namespace; see joinsBefore.
func joinByPath(spec *specs.Spec) error {
	for _, n := range nsFlags {
		path := joinPath(spec, n.kind)
		if path == "" || n.kind == specs.PIDNamespace || namespace(spec, specs.UserNamespace) != nil {
			continue
		}
		f, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("join %s namespace: %w", n.kind, err)
		}
		err = unix.Setns(int(f.Fd()), int(n.flag))
		f.Close()
		if err != nil {
			return fmt.Errorf("join %s namespace %s: %w", n.kind, path, err)
		}
	}
	return nil
}

// validate refuses what cannot be meant.
func validate(spec *specs.Spec) error {
	switch {
	case spec.Root == nil || spec.Root.Path == "":
		return errors.New("config.json: root.path is missing")
	case spec.Linux == nil:
		return errors.New("config.json: linux is missing")
	case !isNew(spec, specs.MountNamespace):
		return errors.New("config.json: a container needs a mount namespace of its own")
	case spec.Hostname != "" && namespace(spec, specs.UTSNamespace) == nil:
		return errors.New("config.json: hostname needs a uts namespace")
	}
	if spec.Process != nil {
		if err := checkProcess(spec.Process); err != nil {
			return err
		}
	}
	seen := map[specs.LinuxNamespaceType]bool{}
	for _, n := range spec.Linux.Namespaces {
		if seen[n.Type] {
			return fmt.Errorf("config.json: namespace %s is given twice", n.Type)
		}
		seen[n.Type] = true
	}
	for _, m := range spec.Mounts {
		if !filepath.IsAbs(m.Destination) {
			return fmt.Errorf("config.json: mount destination %q is not an absolute path", m.Destination)
		}
	}
	if err := unsupported(spec); err != nil {
		return err
	}
	return checkSysctls(spec)
}

// unsupported refuses what would otherwise be ignored in silence.
func unsupported(spec *specs.Spec) error {
	if major, _, _ := strings.Cut(spec.Version, "."); major != "1" && major != "" {
		return fmt.Errorf("config.json: ociVersion %q: this runtime knows 1.x", spec.Version)
	}
	l := spec.Linux
	switch {
	case l.IntelRdt != nil:
		return errors.New("config.json: linux.intelRdt is not supported")
	case len(l.NetDevices) > 0:
		return errors.New("config.json: linux.netDevices is not supported")
	case l.MountLabel != "" && !selinux():
		return errors.New("config.json: linux.mountLabel: this host has no SELinux")
	case spec.Process != nil && spec.Process.SelinuxLabel != "" && !selinux():
		return errors.New("config.json: process.selinuxLabel: this host has no SELinux")
	}
	return nil
}

func selinux() bool {
	_, err := os.Stat("/sys/fs/selinux/enforce")
	return err == nil
}

func checkProcess(proc *specs.Process) error {
	if len(proc.Args) == 0 {
		return errors.New("process.args is empty")
	}
	if !filepath.IsAbs(proc.Cwd) {
		return fmt.Errorf("process.cwd %q is not an absolute path", proc.Cwd)
	}
	for _, text := range slices.Concat(proc.Args, proc.Env, []string{proc.Cwd}) {
		if strings.IndexByte(text, 0) >= 0 {
			return fmt.Errorf("process: %q has a NUL byte", text)
		}
	}
	return checkRlimits(proc.Rlimits)
}

func terminal(spec *specs.Spec) bool { return spec.Process != nil && spec.Process.Terminal }

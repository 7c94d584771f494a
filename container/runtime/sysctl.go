package runtime

import (
	"fmt"
	"os"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// ipcSysctls are those below kernel that belong to the ipc namespace; see
// ipc_namespaces(7).
var ipcSysctls = [...]string{
	"kernel/msgmax", "kernel/msgmnb", "kernel/msgmni", "kernel/sem", "kernel/shmall", "kernel/shmmax", "kernel/shmmni", "kernel/shm_rmid_forced",
}

// sysctlFile is the path below /proc/sys. As with sysctl(8) the first separator,
// a dot or a slash, is the one; the other is then part of a name.
func sysctlFile(name string) (string, error) {
	file := name
	if i := strings.IndexAny(name, "./"); i >= 0 && name[i] == '.' {
		file = strings.NewReplacer(".", "/", "/", ".").Replace(name)
	}
	for _, part := range strings.Split(file, "/") {
		if part == "" || part == "." || part == ".." {
			return "", fmt.Errorf("sysctl %q: not a plain name", name)
		}
	}
	return file, nil
}

// checkSysctls allows what belongs to a namespace that the container does not
// share with the host, and nothing else.
func checkSysctls(spec *specs.Spec) error {
	for name := range spec.Linux.Sysctl {
		file, err := sysctlFile(name)
		if err != nil {
			return err
		}
		kind := sysctlNamespace(file)
		if kind == "" {
			return fmt.Errorf("sysctl %s: it is not in a namespace of the container", name)
		}
		if !private(spec, kind) {
			return fmt.Errorf("sysctl %s: the container shares the host's %s namespace", name, kind)
		}
	}
	return nil
}

func sysctlNamespace(file string) specs.LinuxNamespaceType {
	switch {
	case strings.HasPrefix(file, "net/"):
		return specs.NetworkNamespace
	case strings.HasPrefix(file, "fs/mqueue/"), slices.Contains(ipcSysctls[:], file):
		return specs.IPCNamespace
	case file == "kernel/domainname", file == "kernel/hostname":
		return specs.UTSNamespace
	}
	return ""
}

// private reports whether the container's namespace is another than ours.
func private(spec *specs.Spec, kind specs.LinuxNamespaceType) bool {
	n := namespace(spec, kind)
	if n == nil || n.Path == "" {
		return n != nil
	}
	for _, f := range nsFlags {
		if f.kind != kind {
			continue
		}
		ours, err := os.Stat("/proc/self/ns/" + f.file)
		theirs, err2 := os.Stat(n.Path)
		return err == nil && err2 == nil && !os.SameFile(ours, theirs)
	}
	return false
}

// writeSysctls writes kernel parameters of the container's own namespaces.
// finishRoot calls it before the paths of /proc become read-only.
func writeSysctls(sysctls map[string]string) error {
	for name, value := range sysctls {
		file, err := sysctlFile(name)
		if err != nil {
			return err
		}
		if err := writeProc("/proc/sys/"+file, value); err != nil {
			return fmt.Errorf("sysctl %s=%s: %w", name, value, err)
		}
	}
	return nil
}

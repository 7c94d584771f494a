package build

import (
	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/kist-containers/kist/container/runtime"
	"github.com/kist-containers/kist/internal/rootless"
)

// spec is the bundle of a RUN step: docker's default isolation.
func (r *stageRun) spec(s *runStep, id string) (*specs.Spec, error) {
	req := r.job.req
	caps, err := runtime.Capabilities(req.CapAdd, req.CapDrop)
	if err != nil {
		return nil, err
	}
	spec := &specs.Spec{
		Version: specs.Version, Hostname: cmpOr(s.hostname, "buildkitsandbox"),
		Root: &specs.Root{Path: "rootfs"},
		Process: &specs.Process{
			Args: s.argv, Env: s.environment(), Cwd: s.cwd,
			User:         specs.User{UID: uint32(s.user.uid), GID: uint32(s.user.gid), AdditionalGids: r.gids(s)},
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
			Rlimits:      req.Ulimits,
		},
		Mounts: runtime.DefaultMounts{
			HostSys: r.job.b.o.Rootless && s.network == "host", NoTTYGroup: r.job.b.o.Rootless && !rootless.MapsGID(5),
			WritableSys: s.insecure, WritableCgroups: s.insecure,
		}.Mounts(),
		Linux: &specs.Linux{
			CgroupsPath: r.cgroup(id), Resources: &specs.LinuxResources{},
			Namespaces:  []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}},
			MaskedPaths: runtime.MaskedPaths(), ReadonlyPaths: runtime.ReadonlyPaths(),
		},
	}
	if req.Resources != nil {
		*spec.Linux.Resources = *req.Resources
	}
	r.spaces(spec)
	if err := req.devices(spec, r.job.b.o.Rootless); err != nil {
		return nil, err
	}
	if s.insecure {
		insecure(spec)
		return spec, nil
	}
	// The runtime adds docker's default devices.
	spec.Linux.Resources.Devices = append([]specs.LinuxDeviceCgroup{{Access: "rwm"}}, spec.Linux.Resources.Devices...)
	spec.Linux.Seccomp, err = seccomp.GetDefaultProfile(spec)
	return spec, err
}

// spaces gives the step namespaces of its own, save those that it is to share
// with the host.
func (r *stageRun) spaces(spec *specs.Spec) {
	req := r.job.req
	for _, x := range []struct {
		kind specs.LinuxNamespaceType
		host bool
	}{{specs.IPCNamespace, req.HostIPC}, {specs.UTSNamespace, req.HostUTS}, {specs.CgroupNamespace, req.HostCgroups}} {
		if !x.host {
			spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: x.kind})
		}
	}
	if req.HostUTS {
		spec.Hostname = ""
	}
	if req.HostIPC {
		spec.Mounts = append(spec.Mounts, runtime.HostIPC()...)
		return
	}
	spec.Mounts = append(spec.Mounts, runtime.MessageQueues(), runtime.SharedMemory(req.ShmSize))
}

// insecure is RUN --security=insecure, granted on the command line: all that
// this process may do itself.
func insecure(spec *specs.Spec) {
	all := runtime.OwnCapabilities()
	spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: all, Effective: all, Permitted: all}
	spec.Linux.MaskedPaths, spec.Linux.ReadonlyPaths = nil, nil
	spec.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
}

func (r *stageRun) cgroup(id string) string {
	parent := r.job.b.o.CgroupParent
	if r.job.b.o.Systemd {
		return cmpOr(parent, "system.slice") + ":kist-build:" + id
	}
	return cmpOr(parent, "/kist") + "/build-" + id
}

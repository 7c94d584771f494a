package container

import (
	"path"
	"slices"

	"github.com/kist-containers/kist/volume"
)

// systemdStop is the signal on which systemd shuts down in order; see systemd(1).
const systemdStop = "SIGRTMIN+3"

// runsSystemd reports whether the container is to be made ready for systemd:
// podman's rule.
func (c *Config) runsSystemd() bool {
	switch c.Systemd {
	case "always":
		return true
	case "false":
		return false
	}
	args := c.Args()
	if len(args) == 0 {
		return false
	}
	return path.Base(args[0]) == "systemd" || slices.Contains([]string{"/sbin/init", "/usr/sbin/init", "/usr/local/sbin/init"}, args[0])
}

// forSystemd gives systemd what it wants of a container manager: its own /run
// and /tmp, a cgroup tree to write to, its stop signal, and word of where it is.
// See systemd's CONTAINER_INTERFACE.
func (c *Config) forSystemd() {
	if !c.runsSystemd() {
		return
	}
	for _, dir := range []string{"/run", "/run/lock", "/tmp", "/var/log/journal"} {
		if !slices.ContainsFunc(c.Mounts, func(m volume.Mount) bool { return m.Target == dir }) {
			c.Mounts = append(c.Mounts, volume.Mount{Type: volume.TypeTmpfs, Target: dir, Mode: 0o755, Size: c.SystemdSize, Options: []string{"exec", "tmpcopyup"}})
		}
	}
	c.Security.SystemdCgroups = true
	setDefault(&c.StopSignal, systemdStop)
	c.Env = mergeEnv([]string{"container=kist"}, c.Env)
}

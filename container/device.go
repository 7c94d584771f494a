package container

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	units "github.com/docker/go-units"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// statDevice describes the node at a host path.
func statDevice(path string) (*specs.LinuxDevice, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return nil, err
	}
	d := &specs.LinuxDevice{Path: path, Major: int64(unix.Major(st.Rdev)), Minor: int64(unix.Minor(st.Rdev))}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFCHR:
		d.Type = "c"
	case unix.S_IFBLK:
		d.Type = "b"
	default:
		return nil, errors.New("not a device")
	}
	mode := os.FileMode(st.Mode & 0o7777)
	d.FileMode, d.UID, d.GID = &mode, &st.Uid, &st.Gid
	return d, nil
}

// AddDevice gives a container one device, or all below a directory. Where a user
// namespace forbids making nodes the host's own are shown.
func AddDevice(s *specs.Spec, d Device, show bool) error {
	info, err := os.Stat(d.Host)
	if err != nil {
		return errors.Unwrap(err)
	}
	if !info.IsDir() {
		return addNode(s, d.Host, d.Container, d.Permissions, show)
	}
	return filepath.WalkDir(d.Host, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.Type()&fs.ModeDevice == 0 {
			return err
		}
		return addNode(s, path, filepath.Join(d.Container, strings.TrimPrefix(path, d.Host)), d.Permissions, show)
	})
}

// addNode gives a node under a path of the container.
func addNode(s *specs.Spec, host, inside, permissions string, show bool) error {
	node, err := statDevice(host)
	if err != nil {
		return err
	}
	node.Path = inside
	if show {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: inside, Type: "bind", Source: host, Options: []string{"bind", "rprivate", "nosuid", "noexec"}})
	} else {
		s.Linux.Devices = append(s.Linux.Devices, *node)
	}
	s.Linux.Resources.Devices = append(s.Linux.Resources.Devices,
		specs.LinuxDeviceCgroup{Allow: true, Type: node.Type, Major: &node.Major, Minor: &node.Minor, Access: permissions})
	return nil
}

// addHostDevices shows a privileged container all devices of the host.
func addHostDevices(s *specs.Spec) error {
	skip := map[string]bool{"/dev/pts": true, "/dev/shm": true, "/dev/mqueue": true, "/dev/fd": true, "/dev/.udev": true}
	have := map[string]bool{"/dev/null": true, "/dev/zero": true, "/dev/full": true, "/dev/random": true, "/dev/urandom": true, "/dev/tty": true, "/dev/console": true, "/dev/ptmx": true}
	return filepath.WalkDir("/dev", func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return nil // gone, or not for us
		case e.IsDir() && skip[path]:
			return fs.SkipDir
		case e.Type()&fs.ModeDevice == 0 || have[path]:
			return nil
		}
		if node, err := statDevice(path); err == nil {
			s.Linux.Devices = append(s.Linux.Devices, *node)
		}
		return nil
	})
}

// parseDeviceRule reads --device-cgroup-rule: "c 1:3 mr", "a *:* rwm".
func parseDeviceRule(rule string) (specs.LinuxDeviceCgroup, error) {
	bad := fmt.Errorf("--device-cgroup-rule %s: want TYPE MAJOR:MINOR rwm, \"c 1:* r\" for example", rule)
	f := strings.Fields(rule)
	if len(f) != 3 || !strings.Contains("abc", f[0]) || len(f[0]) != 1 || !validPermissions(f[2]) {
		return specs.LinuxDeviceCgroup{}, bad
	}
	major, minor, ok := strings.Cut(f[1], ":")
	d := specs.LinuxDeviceCgroup{Allow: true, Type: f[0], Access: f[2]}
	for _, x := range []struct {
		text string
		dst  **int64
	}{{major, &d.Major}, {minor, &d.Minor}} {
		if x.text == "*" {
			continue
		}
		n, err := strconv.ParseUint(x.text, 10, 32)
		if err != nil || !ok {
			return d, bad
		}
		v := int64(n)
		*x.dst = &v
	}
	return d, nil
}

// deviceRate reads DEVICE:NUMBER, the number with docker's units.
func deviceRate(s string) (specs.LinuxThrottleDevice, uint64, error) {
	var t specs.LinuxThrottleDevice
	i := strings.LastIndexByte(s, ':')
	if i <= 0 {
		return t, 0, errors.New("want DEVICE:NUMBER")
	}
	n, err := units.RAMInBytes(s[i+1:])
	if err != nil || n < 0 {
		return t, 0, fmt.Errorf("%q is not a number", s[i+1:])
	}
	d, err := statDevice(s[:i])
	if err != nil {
		return t, 0, err
	}
	t.Major, t.Minor = d.Major, d.Minor
	return t, uint64(n), nil
}

var ulimitNumbers = map[string]int{
	"as": unix.RLIMIT_AS, "core": unix.RLIMIT_CORE, "cpu": unix.RLIMIT_CPU, "data": unix.RLIMIT_DATA, "fsize": unix.RLIMIT_FSIZE,
	"locks": unix.RLIMIT_LOCKS, "memlock": unix.RLIMIT_MEMLOCK, "msgqueue": unix.RLIMIT_MSGQUEUE, "nice": unix.RLIMIT_NICE,
	"nofile": unix.RLIMIT_NOFILE, "nproc": unix.RLIMIT_NPROC, "rss": unix.RLIMIT_RSS, "rtprio": unix.RLIMIT_RTPRIO,
	"rttime": unix.RLIMIT_RTTIME, "sigpending": unix.RLIMIT_SIGPENDING, "stack": unix.RLIMIT_STACK,
}

// mayRaiseLimits asks for CAP_SYS_RESOURCE.
func mayRaiseLimits() bool {
	v, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, unix.CAP_SYS_RESOURCE, 0, 0, 0)
	return err == nil && v == 1 && os.Geteuid() == 0
}

// ownIDs says that the container is made in a user namespace, where nobody may
// make device nodes.
func (m *specMaker) ownIDs() bool { return m.e.Rootless || len(m.c.Spaces.UIDs) > 0 }

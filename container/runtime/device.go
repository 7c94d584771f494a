package runtime

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/sys"
)

// defaultDevices are those of "Default Devices" in the runtime specification.
var defaultDevices = [...]specs.LinuxDevice{
	{Path: "/dev/null", Type: "c", Major: 1, Minor: 3},
	{Path: "/dev/zero", Type: "c", Major: 1, Minor: 5},
	{Path: "/dev/full", Type: "c", Major: 1, Minor: 7},
	{Path: "/dev/random", Type: "c", Major: 1, Minor: 8},
	{Path: "/dev/urandom", Type: "c", Major: 1, Minor: 9},
	{Path: "/dev/tty", Type: "c", Major: 5, Minor: 0},
}

var deviceLinks = [...]struct{ path, target string }{
	{"/dev/fd", "/proc/self/fd"},
	{"/dev/stdin", "/proc/self/fd/0"},
	{"/dev/stdout", "/proc/self/fd/1"},
	{"/dev/stderr", "/proc/self/fd/2"},
	{"/dev/ptmx", "pts/ptmx"},
}

// devices fills /dev, unless it is a bind mount: then it is the caller's.
func (p *initProcess) devices() error {
	for _, m := range p.Spec.Mounts {
		if path.Clean(m.Destination) == "/dev" && isBind(&m) {
			return nil
		}
	}
	all := append(defaultDevices[:len(defaultDevices):len(defaultDevices)], p.Spec.Linux.Devices...)
	for i := range all {
		if err := p.device(&all[i]); err != nil {
			return fmt.Errorf("device %s: %w", all[i].Path, err)
		}
	}
	for _, l := range deviceLinks {
		if err := p.link(l.path, l.target); err != nil {
			return fmt.Errorf("link %s: %w", l.path, err)
		}
	}
	return nil
}

// parent opens the directory of a path below the root, making what is missing.
func (p *initProcess) parent(name string) (*os.File, error) {
	dir, err := sys.EnsureInRoot(p.root, path.Dir(name), true, 0o755)
	if err != nil {
		return nil, err
	}
	return dir, nil
}

func (p *initProcess) link(name, target string) error {
	dir, err := p.parent(name)
	if err != nil {
		return err
	}
	defer dir.Close()
	err = unix.Symlinkat(target, int(dir.Fd()), path.Base(name))
	if errors.Is(err, unix.EEXIST) && name == "/dev/ptmx" {
		// An image's own /dev/ptmx is not this container's.
		unix.Unlinkat(int(dir.Fd()), "ptmx", 0)
		err = unix.Symlinkat(target, int(dir.Fd()), "ptmx")
	}
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

var deviceKinds = map[string]uint32{"c": unix.S_IFCHR, "u": unix.S_IFCHR, "b": unix.S_IFBLK, "p": unix.S_IFIFO}

// device makes a node, or shows the host's where a user namespace forbids mknod.
func (p *initProcess) device(d *specs.LinuxDevice) error {
	kind, ok := deviceKinds[d.Type]
	if !ok {
		return fmt.Errorf("type %q is not c, u, b or p", d.Type)
	}
	dir, err := p.parent(d.Path)
	if err != nil {
		return err
	}
	defer dir.Close()
	name := path.Base(d.Path)
	if p.inUserNamespace() && kind != unix.S_IFIFO {
		return p.bindDevice(dir, name, d, kind)
	}
	mode := uint32(0o666)
	if d.FileMode != nil {
		mode = uint32(d.FileMode.Perm())
	}
	dev := int(unix.Mkdev(uint32(d.Major), uint32(d.Minor)))
	err = unix.Mknodat(int(dir.Fd()), name, kind|mode, dev)
	if errors.Is(err, unix.EEXIST) {
		return p.sameDevice(dir, name, d, kind)
	}
	if errors.Is(err, unix.EPERM) && kind != unix.S_IFIFO {
		return p.bindDevice(dir, name, d, kind)
	}
	if err != nil {
		return os.NewSyscallError("mknod", err)
	}
	return own(dir, name, d, kind, mode)
}

// own sets the owner, then the mode, which mknod has cut by the umask: of the
// node itself, as who shares the directory may have put a link in its place.
func own(dir *os.File, name string, d *specs.LinuxDevice, kind, mode uint32) error {
	f, err := sys.OpenInRoot(dir, name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if kind != unix.S_IFIFO {
		err = verifyDevice(f, kind, uint32(d.Major), uint32(d.Minor))
	}
	if err != nil {
		return err
	}
	uid, gid := 0, 0
	if d.UID != nil {
		uid = int(*d.UID)
	}
	if d.GID != nil {
		gid = int(*d.GID)
	}
	if err := unix.Fchownat(int(f.Fd()), "", uid, gid, unix.AT_EMPTY_PATH); err != nil {
		return os.NewSyscallError("fchownat", err)
	}
	return os.NewSyscallError("chmod", unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), mode))
}

// sameDevice accepts a node that is there already if it is the one wanted.
func (p *initProcess) sameDevice(dir *os.File, name string, d *specs.LinuxDevice, kind uint32) error {
	f, err := sys.OpenInRoot(dir, name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if kind == unix.S_IFIFO {
		return nil
	}
	return verifyDevice(f, kind, uint32(d.Major), uint32(d.Minor))
}

func (p *initProcess) inUserNamespace() bool {
	return namespace(p.Spec, specs.UserNamespace) != nil || p.Rootless
}

// bindDevice shows the host's node of the same numbers.
func (p *initProcess) bindDevice(dir *os.File, name string, d *specs.LinuxDevice, kind uint32) error {
	host := d.Path
	if !strings.HasPrefix(host, "/dev/") {
		return fmt.Errorf("only nodes below /dev can be shown in a user namespace")
	}
	source, err := os.OpenFile(host, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer source.Close()
	if err := verifyDevice(source, kind, uint32(d.Major), uint32(d.Minor)); err != nil {
		return err
	}
	target, err := sys.EnsureInRoot(dir, name, false, 0o666)
	if err != nil {
		return err
	}
	defer target.Close()
	return bindOn(source, target)
}

package volume

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/sys"
	"github.com/kist-containers/kist/internal/ui"
)

const localDriver = "local"

// local is docker's driver of that name: a directory, or with type, device and o
// whatever mount(8) takes: another directory (o=bind), tmpfs, nfs, cifs, a block
// device or a file system's image.
type local struct{ rootless bool }

// A wish is the driver's options, read.
type wish struct {
	kind, device string
	options      []string
	bind         bool
	size         int64
}

func readWish(options map[string]string) (w wish, err error) {
	for k, v := range options {
		switch k {
		case "type":
			w.kind = v
		case "device":
			w.device = v
		case "o":
			w.options = slices.DeleteFunc(strings.Split(v, ","), func(o string) bool { return o == "" })
		case "size":
			if w.size, err = size(v); err != nil {
				return w, fmt.Errorf("option size=%s: %w", v, err)
			}
		default:
			return w, fmt.Errorf("option %q: unknown to the driver local (want type, device, o or size)", k)
		}
	}
	w.bind = slices.Contains(w.options, "bind") || slices.Contains(w.options, "rbind")
	if w.kind == "" && w.device == "" {
		return w, w.quota()
	}
	return w, w.check()
}

// quota reads o=size=… of a volume that is a directory.
func (w *wish) quota() (err error) {
	for _, o := range w.options {
		v, isSize := strings.CutPrefix(o, "size=")
		if !isSize {
			return fmt.Errorf("option o=%s: without type and device only size= is possible", o)
		}
		if w.size, err = size(v); err != nil {
			return fmt.Errorf("option size=%s: %w", v, err)
		}
	}
	return nil
}

func (w *wish) check() error {
	switch {
	case w.bind && !filepath.IsAbs(w.device):
		return fmt.Errorf("option device=%s: o=bind wants an absolute path", w.device)
	case w.bind:
		return nil
	case w.kind == "":
		return errors.New("option device wants a type (none with o=bind for a directory)")
	case w.kind == "none":
		return errors.New("option type=none wants o=bind")
	case w.device == "":
		return fmt.Errorf("option type=%s wants a device", w.kind)
	case strings.ContainsAny(w.kind, "/ ,\x00") || strings.ContainsRune(w.device, 0):
		return fmt.Errorf("option type=%q or device=%q: not a name", w.kind, w.device)
	case w.size > 0:
		return errors.New("option size is for a volume without type (a tmpfs takes o=size=…)")
	}
	return nil
}

func (d local) check(_ context.Context, v *Volume) error {
	w, err := readWish(v.Options)
	if err != nil || !w.bind {
		return err
	}
	if _, err := os.Stat(w.device); err != nil {
		return fmt.Errorf("device %s: %w", w.device, errors.Unwrap(err))
	}
	return nil
}

func (d local) create(_ context.Context, v *Volume, data string) error {
	w, err := readWish(v.Options)
	if err != nil || w.size == 0 {
		return err
	}
	v.Quota, err = Limit(w.size, data)
	return err
}

func (d local) remove(_ context.Context, v *Volume) error {
	return nil // a project without files bounds nothing
}

func (d local) mounts(v *Volume) bool {
	if len(v.Options) == 0 {
		return false
	}
	w, err := readWish(v.Options)
	return err == nil && !w.bind && w.kind != ""
}

// mountFlags are the words of o that are flags of mount(2).
var mountFlags = map[string]uintptr{
	"ro": unix.MS_RDONLY, "nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC,
	"sync": unix.MS_SYNCHRONOUS, "dirsync": unix.MS_DIRSYNC, "noatime": unix.MS_NOATIME, "nodiratime": unix.MS_NODIRATIME,
	"relatime": unix.MS_RELATIME, "strictatime": unix.MS_STRICTATIME, "mand": unix.MS_MANDLOCK, "lazytime": unix.MS_LAZYTIME,
	"rw": 0, "suid": 0, "dev": 0, "exec": 0, "async": 0, "atime": 0, "defaults": 0, "_netdev": 0, "nofail": 0, "loop": 0,
}

func (d local) mount(ctx context.Context, v *Volume, dir string) (string, error) {
	if sys.Mounted(dir) {
		return dir, nil
	}
	w, err := readWish(v.Options)
	if err != nil {
		return "", err
	}
	flags, data := w.split()
	if w.kind == "nfs" || w.kind == "nfs4" || w.kind == "cifs" {
		if data, err = resolveAddr(ctx, w, data); err != nil {
			return "", err
		}
	}
	device := w.device
	if info, err := os.Stat(device); err == nil && info.Mode().IsRegular() {
		loop, err := attachLoop(device, flags&unix.MS_RDONLY != 0)
		if err != nil {
			return "", err
		}
		defer loop.Close() // the mount holds it; autoclear frees it with the mount
		device = loop.Name()
	}
	if err := unix.Mount(device, dir, w.kind, flags, strings.Join(data, ",")); err != nil {
		return "", d.mountError(w, err)
	}
	return dir, nil
}

func (w *wish) split() (flags uintptr, data []string) {
	for _, o := range w.options {
		if f, ok := mountFlags[o]; ok {
			flags |= f
			continue
		}
		data = append(data, o)
	}
	return flags, data
}

func (d local) mountError(w wish, err error) error {
	text := fmt.Errorf("mount %s on a volume: type %s, options %q: %w", w.device, w.kind, strings.Join(w.options, ","), err)
	switch {
	case errors.Is(err, unix.ENODEV):
		return ui.Hint(text, "this kernel has no file system %s: modprobe %s", w.kind, w.kind)
	case errors.Is(err, unix.EPERM) && d.rootless:
		return ui.Hint(text, "without root only tmpfs, overlay and the like can be mounted: mount it on this host and use o=bind")
	}
	return text
}

// resolveAddr gives the kernel a number for addr=NAME, as mount.nfs(8) does, and
// takes the server from the device where addr is missing.
func resolveAddr(ctx context.Context, w wish, data []string) ([]string, error) {
	at := slices.IndexFunc(data, func(o string) bool { return strings.HasPrefix(o, "addr=") || strings.HasPrefix(o, "ip=") })
	host := ""
	if at >= 0 {
		_, host, _ = strings.Cut(data[at], "=")
	} else if w.kind == "cifs" {
		host, _, _ = strings.Cut(strings.TrimPrefix(w.device, "//"), "/")
	} else {
		host, _, _ = strings.Cut(w.device, ":")
	}
	if host == "" {
		return nil, fmt.Errorf("type %s: no server is given: want o=addr=HOST or a device HOST:/PATH", w.kind)
	}
	ips, err := net.DefaultResolver.LookupIPAddr(ctx, host)
	if err != nil {
		return nil, err
	}
	key := "addr="
	if w.kind == "cifs" {
		key = "ip="
	}
	if at >= 0 {
		data[at] = key + ips[0].String()
		return data, nil
	}
	return append(data, key+ips[0].String()), nil
}

func (d local) unmount(_ context.Context, _ *Volume, dir string) error { return sys.UnmountAll(dir) }

// attachLoop makes a block device of a file, which goes with its last user; see
// loop(4), LOOP_CONFIGURE since Linux 5.8.
func attachLoop(path string, readOnly bool) (*os.File, error) {
	mode := os.O_RDWR
	config := unix.LoopConfig{Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}}
	if readOnly {
		mode, config.Info.Flags = os.O_RDONLY, config.Info.Flags|unix.LO_FLAGS_READ_ONLY
	}
	file, err := os.OpenFile(path, mode, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	config.Fd = uint32(file.Fd())
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("loop device for %s: %w", path, err)
	}
	defer control.Close()
	for range 32 { // another process may take the free one first
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("loop device for %s: %w", path, err)
		}
		loop, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), mode, 0)
		if errors.Is(err, os.ErrNotExist) {
			// A container's /dev does not get the nodes that the kernel makes.
			unix.Mknod(fmt.Sprintf("/dev/loop%d", n), unix.S_IFBLK|0o600, int(unix.Mkdev(7, uint32(n))))
			loop, err = os.OpenFile(fmt.Sprintf("/dev/loop%d", n), mode, 0)
		}
		if err != nil {
			return nil, fmt.Errorf("loop device for %s: %w", path, err)
		}
		err = unix.IoctlLoopConfigure(int(loop.Fd()), &config)
		if err == nil {
			return loop, nil
		}
		loop.Close()
		if !errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("loop device for %s: %w", path, err)
		}
	}
	return nil, fmt.Errorf("loop device for %s: %w", path, unix.EBUSY)
}

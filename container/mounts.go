package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/sys"
	"github.com/kist-containers/kist/volume"
)

// owner is who owns a file.
func owner(info os.FileInfo) (uid, gid int) {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid), int(st.Gid)
	}
	return 0, 0
}

// makeVolumes makes the volumes that the container names and that are not there,
// and gives the anonymous ones their names.
func (e *Engine) makeVolumes(ctx context.Context, c *Config) (err error) {
	for i := range c.Mounts {
		m := &c.Mounts[i]
		switch m.Type {
		case volume.TypeBind:
			err = bindSource(m)
		case volume.TypeVolume:
			if m.Source == "" {
				m.Source, m.Anonymous = newID(), true
			}
			_, err = e.Volumes.Ensure(ctx, volume.Volume{Name: m.Source, Driver: m.Driver, Options: m.DriverOpts, Labels: m.Labels, Anonymous: m.Anonymous})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// bindSource checks a host path; -v makes a missing directory, --mount refuses.
func bindSource(m *volume.Mount) error {
	_, err := os.Stat(m.Source)
	if errors.Is(err, os.ErrNotExist) && m.CreateSource {
		if err := os.MkdirAll(m.Source, 0o755); err != nil {
			return fmt.Errorf("make host directory: %w", err)
		}
		// MkdirAll's mode is cut by the umask.
		return os.Chmod(m.Source, 0o755)
	}
	if err != nil {
		var path *os.PathError
		if errors.As(err, &path) {
			err = path.Err
		}
		return fmt.Errorf("mount %s: %w", m.Source, err)
	}
	return nil
}

// ociMounts turns the container's mounts into the specification's. root is the
// container's root file system, from which a new volume is filled.
func (e *Engine) ociMounts(ctx context.Context, c *Config, root *os.File) ([]specs.Mount, error) {
	var list []specs.Mount
	for _, m := range c.Mounts {
		o, err := e.ociMount(ctx, m, root)
		if err != nil {
			return nil, fmt.Errorf("mount on %s: %w", m.Target, err)
		}
		list = append(list, o)
	}
	return list, nil
}

func (e *Engine) ociMount(ctx context.Context, m volume.Mount, root *os.File) (specs.Mount, error) {
	o := specs.Mount{Destination: m.Target, Type: "bind", Source: m.Source}
	switch m.Type {
	case volume.TypeTmpfs:
		return tmpfsMount(m), nil
	case volume.TypeVolume:
		v, err := e.Volumes.Get(m.Source)
		if err != nil {
			return o, err
		}
		if !m.NoCopy {
			if err := e.Volumes.CopyUp(ctx, v.Name, root, m.Target); err != nil {
				return o, err
			}
		}
		o.Source = v.Path
		if m.Subpath != "" {
			if o.Source, err = subpath(v.Path, m.Subpath); err != nil {
				return o, err
			}
		}
	}
	o.Options = []string{"rbind"}
	if m.NonRecursive {
		o.Options = []string{"bind"}
	}
	if m.Propagation != "" {
		o.Options = append(o.Options, m.Propagation)
	} else {
		o.Options = append(o.Options, "rprivate")
	}
	if m.ReadOnly {
		o.Options = append(o.Options, "ro", "rro")
	}
	return o, nil
}

// subpath is a directory in a volume; no link of the volume leads out of it.
func subpath(dir, sub string) (string, error) {
	root, err := os.Open(dir)
	if err != nil {
		return "", err
	}
	defer root.Close()
	f, err := sys.OpenInRoot(root, sub, unix.O_PATH, 0)
	if err != nil {
		return "", fmt.Errorf("subpath %s: %w", sub, err)
	}
	defer f.Close()
	real, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(int(f.Fd())))
	if err != nil || real != dir && !strings.HasPrefix(real, dir+"/") {
		return "", fmt.Errorf("subpath %s: not in the volume", sub)
	}
	return real, nil
}

func tmpfsMount(m volume.Mount) specs.Mount {
	o := specs.Mount{Destination: m.Target, Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", "noexec"}}
	for _, opt := range m.Options {
		o.Options = removeOption(o.Options, "no"+opt)
		o.Options = append(o.Options, opt)
	}
	if m.Size > 0 {
		o.Options = append(o.Options, "size="+strconv.FormatInt(m.Size, 10))
	}
	mode := m.Mode
	if mode == 0 {
		mode = 0o1777
	}
	o.Options = append(o.Options, "mode="+strconv.FormatUint(uint64(mode), 8))
	if m.ReadOnly {
		o.Options = append(o.Options, "ro")
	}
	return o
}

func removeOption(list []string, o string) []string {
	var kept []string
	for _, x := range list {
		if x != o {
			kept = append(kept, x)
		}
	}
	return kept
}

// initPath is where --init's program is shown.
const initPath = "/sbin/docker-init"

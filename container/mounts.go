package container

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/container/monitor"
	"github.com/kist-containers/kist/image"
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

// makeVolumes checks what the container's mounts want of the host, then makes the
// volumes that are not there, and gives the anonymous ones their names.
func (e *Engine) makeVolumes(ctx context.Context, c *Config) (err error) {
	for i := range c.Mounts {
		if err := e.checkMount(ctx, &c.Mounts[i]); err != nil {
			return err
		}
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.removeAnonymous(context.WithoutCancel(ctx), c))
		}
	}()
	for i := range c.Mounts {
		m := &c.Mounts[i]
		switch {
		case m.Type == volume.TypeBind && m.CreateSource:
			err = makeSource(m.Source)
		case m.Type == volume.TypeVolume && !m.NoCreate:
			err = e.makeVolume(ctx, m)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) makeVolume(ctx context.Context, m *volume.Mount) error {
	if m.Source == "" {
		m.Source, m.Anonymous = volume.NewName(), true
	}
	_, err := e.Volumes.Ensure(ctx, volume.Volume{Name: m.Source, Driver: m.Driver, Options: m.DriverOpts, Labels: m.Labels, Anonymous: m.Anonymous})
	return err
}

// checkMount refuses what is not there, before anything is made.
func (e *Engine) checkMount(ctx context.Context, m *volume.Mount) error {
	switch {
	case m.Type == volume.TypeBind && !m.CreateSource:
		return bindSource(m.Source)
	case m.Type == volume.TypeVolume && m.NoCreate:
		_, err := e.Volumes.Get(m.Source)
		return err
	case m.Type == volume.TypeImage && m.ImageID == "":
		return e.mountedImage(ctx, m)
	}
	return nil
}

// mountedImage settles which image a mount is of: the name may mean another one
// at the next start.
func (e *Engine) mountedImage(ctx context.Context, m *volume.Mount) error {
	img, err := e.Images.Ensure(ctx, m.Source, image.PullMissing, image.PullOptions{})
	if err != nil {
		return fmt.Errorf("mount on %s: %w", m.Target, err)
	}
	m.ImageID = img.ID
	return nil
}

// makeSource makes a missing directory of the host, as -v does.
func makeSource(path string) error {
	err := bindSource(path)
	if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return fmt.Errorf("make host directory: %w", err)
	}
	// MkdirAll's mode is cut by the umask.
	return os.Chmod(path, 0o755)
}

// bindSource checks a host path.
func bindSource(path string) error {
	_, err := os.Stat(path)
	var inner *os.PathError
	if errors.As(err, &inner) {
		return fmt.Errorf("mount %s: %w", path, inner.Err)
	}
	return err
}

// ociMounts turns the container's mounts into the specification's. root is the
// container's root file system, from which a new volume is filled.
func (m *specMaker) ociMounts(ctx context.Context, root *os.File) error {
	for i := range m.c.Mounts {
		w := &m.c.Mounts[i]
		o, err := m.ociMount(ctx, i, w, root)
		if err != nil {
			return fmt.Errorf("mount on %s: %w", w.Target, err)
		}
		m.mounts = append(m.mounts, o)
	}
	return nil
}

func (m *specMaker) ociMount(ctx context.Context, i int, w *volume.Mount, root *os.File) (specs.Mount, error) {
	switch w.Type {
	case volume.TypeTmpfs:
		return m.tmpfsMount(w)
	case volume.TypeDevpts:
		return devptsMount(w), nil
	}
	o := specs.Mount{Destination: w.Target, Type: "bind", Source: w.Source, Options: bindOptions(w)}
	var err error
	switch w.Type {
	case volume.TypeVolume:
		o.Source, err = m.volumeSource(ctx, i, w, root)
	case volume.TypeImage:
		o.Source, err = m.imageSource(i, w)
	}
	if err != nil {
		return o, err
	}
	if w.Overlay {
		o.Source, err = m.overlayOver(i, o.Source)
		return o, err
	}
	if w.Chown && w.Subpath == "" {
		uid, gid, err := m.ownerOf(w)
		if err == nil {
			err = volume.Chown(o.Source, uid, gid)
		}
		if err != nil {
			return o, err
		}
	}
	return o, m.idmapMount(w, &o)
}

// bindOptions are the options of a mount that shows a directory.
func bindOptions(w *volume.Mount) []string {
	list := []string{"rbind"}
	if w.NonRecursive {
		list[0] = "bind"
	}
	if w.Propagation != "" {
		list = append(list, w.Propagation)
	} else {
		list = append(list, "rprivate")
	}
	list = append(list, w.Options...)
	if w.ReadOnly {
		list = append(list, "ro")
		if !w.WritableBelow && !w.NonRecursive {
			list = append(list, "rro")
		}
	}
	return list
}

// volumeSource attaches a volume and fills it when it is new.
func (m *specMaker) volumeSource(ctx context.Context, i int, w *volume.Mount, root *os.File) (string, error) {
	dir, err := m.e.Volumes.Attach(ctx, w.Source, m.c.ID)
	if err != nil {
		return "", err
	}
	m.e.VolumeEvent(w.Source, "mount", map[string]string{"container": m.c.ID, "destination": w.Target,
		"driver": cmp.Or(w.Driver, "local"), "propagation": w.Propagation, "read/write": strconv.FormatBool(!w.ReadOnly)})
	if !w.NoCopy {
		if err := m.e.Volumes.CopyUp(ctx, w.Source, dir, root, w.Target); err != nil {
			return "", err
		}
	}
	if w.Subpath == "" {
		return dir, nil
	}
	top, err := os.Open(dir)
	if err != nil {
		return "", err
	}
	defer top.Close()
	return m.subpath(i, w, dir, top)
}

// subpath notes what is below dir, which is open as top, for the monitor to
// mount, and returns where. A path would not do: other containers may have the
// volume too, and put a link there at any moment.
func (m *specMaker) subpath(i int, w *volume.Mount, dir string, top *os.File) (string, error) {
	f, err := sys.OpenInRoot(top, w.Subpath, unix.O_PATH, 0)
	if err != nil {
		return "", fmt.Errorf("subpath %s: %w", w.Subpath, errors.Unwrap(err))
	}
	defer f.Close()
	if w.Chown {
		uid, gid, err := m.ownerOf(w)
		if err == nil {
			err = volume.ChownFile(f, uid, gid)
		}
		if err != nil {
			return "", err
		}
	}
	at := m.e.dataDir(m.c.ID, bundleDir, fmt.Sprintf("subpath-%d", i))
	os.Remove(at) // an earlier run's may have been of the other kind
	info, err := f.Stat()
	switch {
	case err != nil:
	case info.IsDir():
		err = os.Mkdir(at, 0o755)
	default:
		err = os.WriteFile(at, nil, 0o644)
	}
	m.images = append(m.images, monitor.ImageMount{Lowers: []string{dir}, Inside: w.Subpath, At: at})
	return at, err
}

// imageSource notes an image for the monitor to mount, and returns where.
func (m *specMaker) imageSource(i int, w *volume.Mount) (string, error) {
	img, err := m.e.Images.Resolve(w.ImageID)
	if err != nil {
		return "", err
	}
	name := fmt.Sprintf("image-%d", i)
	mount := monitor.ImageMount{Lowers: img.LowerDirs(), At: m.e.dataDir(m.c.ID, bundleDir, name)}
	dirs := []string{mount.At}
	if !w.ReadOnly {
		mount.Upper, mount.Work = m.e.dataDir(m.c.ID, name, upperDir), m.e.dataDir(m.c.ID, name, workDir)
		dirs = append(dirs, mount.Upper, mount.Work)
	}
	for _, d := range dirs {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return "", err
		}
	}
	m.images = append(m.images, mount)
	if w.Subpath == "" {
		return mount.At, nil
	}
	fs, err := monitor.Open(mount.RootFS(m.e.Rootless))
	if err != nil {
		return "", err
	}
	defer fs.Close()
	return m.subpath(i, w, mount.At, fs)
}

// overlayOver notes an overlay over a directory for the monitor to mount, and
// returns where. What an earlier run wrote is gone.
func (m *specMaker) overlayOver(i int, dir string) (string, error) {
	info, err := os.Stat(dir)
	if err != nil || !info.IsDir() {
		return "", fmt.Errorf("option O: %s is not a directory", dir)
	}
	name := fmt.Sprintf("overlay-%d", i)
	own := m.e.dataDir(m.c.ID, name)
	if err := os.RemoveAll(own); err != nil {
		return "", err
	}
	mount := monitor.ImageMount{Lowers: []string{dir}, Upper: filepath.Join(own, upperDir), Work: filepath.Join(own, workDir),
		At: m.e.dataDir(m.c.ID, bundleDir, name)}
	for _, d := range []string{mount.Upper, mount.Work, mount.At} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return "", err
		}
	}
	// The merged directory shows the upper one's owner and mode.
	uid, gid := owner(info)
	m.images = append(m.images, mount)
	return mount.At, errors.Join(os.Chown(mount.Upper, uid, gid), os.Chmod(mount.Upper, info.Mode()))
}

// ownerOf is who is to own a mount with the option U: the container's user, by
// the number that stands on disk.
func (m *specMaker) ownerOf(w *volume.Mount) (uid, gid int, err error) {
	user, _, err := resolveUser(m.root, m.c.User, nil)
	if err != nil {
		return 0, 0, err
	}
	if w.Type == volume.TypeVolume && !m.e.Rootless || !m.e.translates(m.c) {
		return int(user.UID), int(user.GID), nil // a volume's mount translates
	}
	u, g := m.owners().outside(user.UID, user.GID)
	return int(u), int(g), nil
}

// idmapMount translates the owners of a mount where the user asked for it, and of
// a volume as those of the layers are. A directory of the host otherwise stays as
// it is: its files are not the container's.
func (m *specMaker) idmapMount(w *volume.Mount, o *specs.Mount) error {
	switch {
	case len(w.UIDs) > 0:
		var errU, errG error
		o.UIDMappings, errU = hostRanges(w.UIDs, m.c.Spaces.UIDs)
		o.GIDMappings, errG = hostRanges(w.GIDs, m.c.Spaces.GIDs)
		if err := errors.Join(errU, errG); err != nil {
			return err
		}
	case m.e.shifts(m.c) && (w.IDMap || w.Type == volume.TypeVolume):
		o.UIDMappings, o.GIDMappings = ociMaps(m.c.Spaces.UIDs), ociMaps(m.c.Spaces.GIDs)
	case w.IDMap && len(m.c.Spaces.UIDs) == 0:
		return errors.New("idmap: the container has no user namespace: want --userns=auto, or idmap=uids=…;gids=…")
	default:
		return nil
	}
	if m.e.Rootless {
		return errors.New("idmap: the kernel translates owners for the host's root only: want the option U")
	}
	o.Options = append(o.Options, "idmap")
	return nil
}

// hostRanges turns the container's numbers, which @ stands before, into the host's.
func hostRanges(ranges []volume.IDRange, container []IDMap) ([]specs.LinuxIDMapping, error) {
	var list []specs.LinuxIDMapping
	for _, r := range ranges {
		one := r.LinuxIDMapping
		if r.InContainer {
			first, ok := hostID(container, one.HostID)
			last, ok2 := hostID(container, one.HostID+one.Size-1)
			if !ok || !ok2 || last-first != one.Size-1 {
				return nil, fmt.Errorf("idmap: @%d-%d-%d: the container's user namespace has no such range", one.ContainerID, one.HostID, one.Size)
			}
			one.HostID = first
		}
		list = append(list, one)
	}
	return list, nil
}

func devptsMount(w *volume.Mount) specs.Mount {
	return specs.Mount{Destination: w.Target, Type: "devpts", Source: "devpts",
		Options: append([]string{"nosuid", "noexec", "newinstance", "ptmxmode=0666"}, w.Options...)}
}

func (maker *specMaker) tmpfsMount(m *volume.Mount) (specs.Mount, error) {
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
	if !m.Chown {
		return o, nil
	}
	user, _, err := resolveUser(maker.root, maker.c.User, nil)
	o.Options = append(o.Options, fmt.Sprintf("uid=%d", user.UID), fmt.Sprintf("gid=%d", user.GID))
	return o, err
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

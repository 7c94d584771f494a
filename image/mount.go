package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/state"
	"github.com/kist-containers/kist/internal/sys"
	"github.com/kist-containers/kist/internal/ui"
)

// mountDir is where an image is mounted. The directory is made before the mount
// and named by the image, so that whoever comes later finds both.
func (s *Store) mountDir(id string) string { return filepath.Join(s.mountsDir(), short(id)) }

func (s *Store) mountsDir() string { return filepath.Join(s.roots.Run, "image-mount") }

// Mount mounts img read-only and returns where. Mounting again gives the same place.
func (s *Store) Mount(ctx context.Context, img *Image) (string, error) {
	if s.o.Rootless {
		return "", ui.Hint(errors.New("without root nobody but this command would see the mount"), "kist run --mount type=image,source=%s,target=/mnt …", firstName(img))
	}
	// No layer goes between the look at the image and the mount.
	pin, err := s.Pin(ctx)
	if err != nil {
		return "", err
	}
	defer s.unpin(pin)
	dir := s.mountDir(img.ID)
	lock, err := state.AcquireLock(ctx, s.roots.Lock("image-mount"))
	if err != nil {
		return "", err
	}
	defer lock.Unlock()
	if sys.Mounted(dir) {
		return dir, nil
	}
	if len(img.Layers) == 0 {
		return "", errors.New("the image has no layers")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	m, err := MountLayers(img.LowerDirs(), s.o.Rootless)
	if err == nil {
		defer m.Close()
		var target *os.File
		if target, err = os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0); err == nil {
			defer target.Close()
			err = sys.Attach(m, target)
		}
	}
	if err != nil {
		os.Remove(dir)
		return dir, err
	}
	s.event(img.ID, "mount", firstName(img))
	return dir, nil
}

func firstName(img *Image) string {
	if len(img.Names) > 0 {
		return img.Names[0]
	}
	return short(img.ID)
}

// MountLayers returns a detached read-only mount of layers, top first.
func MountLayers(dirs []string, rootless bool) (*os.File, error) {
	attr := unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NODEV
	if len(dirs) == 1 {
		m, err := sys.Clone(nil, dirs[0], false, 0)
		if err != nil {
			return nil, err
		}
		return m, sys.SetAttr(m, false, &unix.MountAttr{Attr_set: uint64(attr)})
	}
	var params []string
	for _, d := range dirs {
		params = append(params, "lowerdir+="+d) // Linux 6.5
	}
	if rootless {
		params = append(params, "userxattr")
	}
	m, err := newOverlay(params, attr)
	if !errors.Is(err, unix.EINVAL) {
		return m, err
	}
	joined := "lowerdir=" + dirs[0]
	for _, d := range dirs[1:] {
		joined += ":" + d
	}
	return newOverlay(append([]string{joined}, params[len(dirs):]...), attr)
}

func newOverlay(params []string, attr int) (*os.File, error) {
	return sys.NewFS("overlay", "overlay", params, attr)
}

// Unmount undoes Mount; an image that is not mounted is no error.
func (s *Store) Unmount(ctx context.Context, id string) error {
	dir := s.mountDir(id)
	lock, err := state.AcquireLock(ctx, s.roots.Lock("image-mount"))
	if err != nil {
		return err
	}
	defer lock.Unlock()
	if sys.Mounted(dir) {
		if err := sys.UnmountAll(dir); err != nil {
			return err
		}
		s.event(id, "unmount", id)
	}
	return ignoreMissing(os.Remove(dir))
}

// Mounts returns the mounted images' short IDs and places.
func (s *Store) Mounts() map[string]string {
	m := map[string]string{}
	for _, id := range readNames(s.mountsDir()) {
		if dir := s.mountDir(id); sys.Mounted(dir) {
			m[id] = dir
		}
	}
	return m
}

// MountCmd is `kist image mount`.
type MountCmd struct {
	All    bool     `short:"a" help:"Mount all images."`
	Format string   `help:"json." placeholder:"FORMAT"`
	Image  []string `arg:"" optional:"" help:"Names or IDs; without any, list the mounts."`
}

type mountRow struct {
	ID           string `json:"id"`
	Repositories []string
	Mountpoint   string `json:"mountpoint"`
}

// Run mounts and prints the places.
func (c *MountCmd) Run(ctx context.Context, s *Store, out *ui.Output) error {
	names, err := s.named(c.Image, c.All)
	if err != nil {
		return err
	}
	for _, name := range names {
		img, err := s.Resolve(name)
		if err != nil {
			return err
		}
		dir, err := s.Mount(ctx, img)
		if err != nil {
			return fmt.Errorf("mount %s: %w", name, err)
		}
		if len(names) == 1 {
			out.Print(dir)
		} else {
			out.Printf("%s %s\n", name, dir)
		}
	}
	if len(names) > 0 {
		return nil
	}
	return c.list(s, out)
}

func (c *MountCmd) list(s *Store, out *ui.Output) error {
	var rows []any
	for id, dir := range s.Mounts() {
		row := mountRow{ID: id, Mountpoint: dir}
		if img, err := s.Resolve(id); err == nil {
			row.ID, row.Repositories = img.ID, img.Names
		}
		if c.Format != "json" {
			out.Printf("%s %s\n", short(row.ID), dir)
		}
		rows = append(rows, row)
	}
	if c.Format != "json" {
		return nil
	}
	return ui.Inspect(out.Out, "", rows)
}

// UnmountCmd is `kist image unmount`.
type UnmountCmd struct {
	All   bool     `short:"a" help:"Unmount all images."`
	Force bool     `short:"f" help:"Accepted; a mount in use goes when its users do."`
	Image []string `arg:"" optional:"" help:"Names or IDs."`
}

// Run unmounts and prints the IDs.
func (c *UnmountCmd) Run(ctx context.Context, s *Store, out *ui.Output) error {
	var ids []string
	if c.All {
		for id := range s.Mounts() {
			ids = append(ids, id)
		}
	}
	for _, name := range c.Image {
		img, err := s.Resolve(name)
		if err != nil {
			return err
		}
		ids = append(ids, img.ID)
	}
	for _, id := range ids {
		if err := s.Unmount(ctx, id); err != nil {
			return err
		}
		out.Print(id)
	}
	return nil
}

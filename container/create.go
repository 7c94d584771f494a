package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/image"
	"github.com/kist-containers/kist/internal/state"
	"github.com/kist-containers/kist/internal/sys"
	"github.com/kist-containers/kist/internal/ui"
	"github.com/kist-containers/kist/volume"
)

// source says what a container's root file system comes from.
type source struct {
	// Image is a reference, or a directory with Rootfs.
	Image      string
	Rootfs     bool
	Entrypoint *string
	Argv       []string
	Policy     string
	Pull       image.PullOptions
	// Retry says how often a pull is tried again.
	Retry image.RetryFlags
	// Env says what becomes of the image's variables.
	Env envFlags
	// ImageVolume says what becomes of the image's volumes: bind (also for ""),
	// tmpfs or ignore. SeccompPolicy is image for the profile in its label.
	ImageVolume   string
	SeccompPolicy string
}

// ensure pulls the image as the policy says.
func (e *Engine) ensure(ctx context.Context, src *source) (*image.Image, error) {
	var img *image.Image
	err := src.Retry.Again(ctx, func() (err error) {
		img, err = e.Images.Ensure(ctx, src.Image, src.Policy, src.Pull)
		return err
	})
	return img, err
}

// A created container whose lock is held until Release, so that nobody takes the
// half-made thing for litter.
type created struct {
	*Config
	lock *state.Lock
}

// Release lets other commands at the container.
func (c *created) Release() { c.lock.Unlock() }

// Create records a container. On error nothing is left.
func (e *Engine) Create(ctx context.Context, c *Config, src source) (_ *created, err error) {
	pin, err := e.Images.Pin(ctx)
	if err != nil {
		return nil, err
	}
	defer pin.Unlock()
	if err := e.keepCaller(c); err != nil {
		return nil, err
	}
	if err := e.fill(ctx, c, src); err != nil {
		return nil, err
	}
	if err := e.settleSpaces(c); err != nil {
		return nil, err
	}
	if err := errors.Join(e.settleRequires(c), e.checkSecrets(c)); err != nil {
		return nil, err
	}
	if err := e.feasible(c); err != nil {
		return nil, err
	}
	c.ID, c.Created = newID(), time.Now().UTC()
	lock, err := e.lock(ctx, c.ID)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.removeFiles(c))
			lock.Unlock()
		}
	}()
	if err := e.nameIt(ctx, c); err != nil {
		return nil, err
	}
	if err := e.settleUsers(ctx, c); err != nil {
		return nil, err
	}
	if c.Hostname == "" && c.Network.Mode != "host" {
		c.Hostname = shortID(c.ID)
	}
	if err := e.makeDirs(c); err != nil {
		return nil, err
	}
	if err := e.makeVolumes(ctx, c); err != nil {
		return nil, err
	}
	if err := e.write(c); err != nil {
		return nil, err
	}
	e.event(c, "create", nil)
	return &created{c, lock}, nil
}

// scratchSpec is one to try edits on.
func scratchSpec() *specs.Spec {
	return &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{}}, Linux: &specs.Linux{Resources: &specs.LinuxResources{}}}
}

// feasible refuses, before anything is made, what this host cannot do or does
// not have.
func (e *Engine) feasible(c *Config) error {
	if err := c.Limits.applicable(); err != nil {
		return err
	}
	if _, err := c.ports(); err != nil {
		return err // those of the image are known by now
	}
	m := &specMaker{e: e, c: c}
	for name := range c.Limits.Sysctls {
		if err := m.checkSysctl(name); err != nil {
			return err
		}
	}
	scratch := scratchSpec()
	if len(c.Security.Devices)+len(c.Security.DeviceRules) > 0 && !c.Security.Privileged {
		if err := m.devices(scratch); err != nil {
			return err
		}
	}
	if err := m.cdi(scratch); err != nil {
		return err
	}
	if s := c.Security.Seccomp; s != "" && s != "unconfined" {
		return m.seccomp(scratch)
	}
	return nil
}

// fill completes the configuration by the image or the directory.
func (e *Engine) fill(ctx context.Context, c *Config, src source) error {
	c.Image = src.Image
	if src.Rootfs {
		return e.fillRootfs(c, src)
	}
	img, err := e.ensure(ctx, &src)
	if err != nil {
		return err
	}
	c.ImageID, c.Lowers = img.ID, img.LowerDirs()
	return c.fromImage(&img.Config.Config, &src)
}

// fillRootfs uses a directory of the host: DIR as it is, DIR:O below a
// throwaway overlay.
func (e *Engine) fillRootfs(c *Config, src source) error {
	dir, overlay := strings.CutSuffix(src.Image, ":O")
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("--rootfs %s: %w", dir, errors.Unwrap(err))
	}
	if !info.IsDir() {
		return fmt.Errorf("--rootfs %s: not a directory", dir)
	}
	c.Rootfs, c.RootfsOverlay = dir, overlay
	if overlay {
		c.Lowers = []string{dir}
	}
	return c.fromImage(&v1.Config{}, &src)
}

// nameIt claims the wanted name, or one made up.
func (e *Engine) nameIt(ctx context.Context, c *Config) error {
	if c.Name != "" {
		if err := e.claim(ctx, c.Name, c.ID); err != nil {
			name := c.Name
			c.Name = ""
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	}
	for try := range 6 {
		name := randomName(try)
		err := e.claim(ctx, name, c.ID)
		if err == nil {
			c.Name = name
			return nil
		}
		if !errors.Is(err, ErrConflict) {
			return err
		}
	}
	c.Name = shortID(c.ID)
	return e.claim(ctx, c.Name, c.ID)
}

// makeDirs makes the container's directory. The writable layer is entered by the
// container's users, so the way to it must be open to them: the directory's mode
// bars others than root from everything beside it.
func (e *Engine) makeDirs(c *Config) error {
	if err := os.MkdirAll(e.dataDir(), 0o711); err != nil {
		return err
	}
	if err := os.Mkdir(e.dataDir(c.ID), 0o711); err != nil {
		return err
	}
	dirs := []string{filepath.Join(bundleDir, "rootfs")}
	if len(c.Lowers) > 0 {
		dirs = append(dirs, upperDir, workDir)
	}
	for _, d := range dirs {
		if err := os.MkdirAll(e.dataDir(c.ID, d), 0o755); err != nil {
			return err
		}
	}
	if len(c.Lowers) == 0 {
		return nil
	}
	if c.LayerSize > 0 {
		if err := e.boundLayer(c); err != nil {
			return err
		}
	}
	return e.likeRoot(c)
}

// boundLayer gives the writable layer a quota.
func (e *Engine) boundLayer(c *Config) error {
	// One project for both: overlay renames from the one to the other.
	if _, err := volume.Limit(c.LayerSize, e.dataDir(c.ID, upperDir), e.dataDir(c.ID, workDir)); err != nil {
		return fmt.Errorf("--storage-opt size: %w", err)
	}
	return nil
}

// likeRoot gives the writable layer's top the mode and owner of the image's: the
// merged "/" shows those of the upper directory.
func (e *Engine) likeRoot(c *Config) error {
	upper := e.dataDir(c.ID, upperDir)
	info, err := os.Stat(c.Lowers[0])
	if err != nil {
		return ui.Hint(fmt.Errorf("layer of %s: %w", c.Image, err), "kist pull %s", c.Image)
	}
	if uid, gid := owner(info); uid != 0 || gid != 0 {
		err := os.Chown(upper, uid, gid)
		if e.Rootless && errors.Is(err, unix.EINVAL) {
			err = nil // an owner whom the user namespace does not know
		}
		if err != nil {
			return err
		}
	}
	return os.Chmod(upper, info.Mode().Perm()|info.Mode()&os.ModeSticky)
}

// removeFiles removes what Create made: first the name of the thing, then it.
func (e *Engine) removeFiles(c *Config) error {
	trash, err := e.hideFiles(c)
	if trash == "" {
		return err
	}
	return errors.Join(err, sys.RemoveTree(trash))
}

// hideFiles makes what Create made invisible and returns what is left to remove.
func (e *Engine) hideFiles(c *Config) (trash string, err error) {
	if err := e.dropMount(c.ID); err != nil {
		return "", err
	}
	trash, err = state.Discard(e.dataDir(c.ID))
	if c.Name != "" {
		e.unclaim(c.Name, c.ID)
	}
	e.freeIDs(c)
	os.RemoveAll(e.runDir(c.ID))
	// IDs are never given twice, so nobody makes this lock again.
	os.Remove(e.Roots.Lock("container-" + c.ID))
	return trash, err
}

// Package container is the engine: it keeps the records of containers, prepares
// their bundles, starts their monitors, and answers what there is of them.
//
// A container is a directory below <root>/container with its configuration, its
// writable layer and its log, and while it runs a directory below
// <runroot>/container with what was started. Whether it runs is always asked of
// the kernel.
package container

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/kist-containers/kist/container/runtime"
	"github.com/kist-containers/kist/image"
	"github.com/kist-containers/kist/internal/state"
	"github.com/kist-containers/kist/network"
	"github.com/kist-containers/kist/volume"
)

// What a caller may conclude from an error.
var (
	ErrNotFound   = errors.New("no such container")
	ErrAmbiguous  = errors.New("more than one container has this prefix")
	ErrConflict   = errors.New("name is in use")
	ErrRunning    = errors.New("container is running")
	ErrNotRunning = errors.New("container is not running")
)

// Options are the engine's parts and what this machine lets it do.
type Options struct {
	Roots    state.Roots
	Images   *image.Store
	Networks *network.Manager
	Volumes  *volume.Store
	// CgroupParent is the cgroup above all containers' cgroups: "/kist".
	CgroupParent string
	// Rootless says that uid 0 is a user's user namespace's.
	Rootless bool
	// Warn tells of something that stops nothing.
	Warn func(format string, a ...any)
}

// An Engine is the containers of one pair of roots. It holds nothing open.
type Engine struct{ Options }

// New returns the engine. It touches nothing on disk.
func New(o Options) *Engine { return &Engine{o} }

func (e *Engine) runtime() *runtime.Runtime {
	return &runtime.Runtime{Root: filepath.Join(e.Roots.Run, "runtime"), Rootless: e.Rootless}
}

// dataDir is a container's directory that outlives a reboot.
func (e *Engine) dataDir(elem ...string) string {
	return filepath.Join(append([]string{e.Roots.Data, "container"}, elem...)...)
}

// runDir is a container's directory while it runs.
func (e *Engine) runDir(elem ...string) string {
	return filepath.Join(append([]string{e.Roots.Run, "container"}, elem...)...)
}

// Files of a container.
const (
	configFile = "config.json"
	exitFile   = "exit.json"
	stateFile  = "state.json"
	bundleDir  = "bundle"
	upperDir   = "diff"
	workDir    = "work"
)

func (e *Engine) lock(ctx context.Context, id string) (*state.Lock, error) {
	return state.AcquireLock(ctx, e.Roots.Lock("container-"+id))
}

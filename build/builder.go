// Package build makes images from Dockerfiles.
//
// A Dockerfile is parsed into stages; those that the target does not need are
// dropped, the others are built at the same time as far as they do not read one
// another. Each step that changes files has a key: the digest of all that goes
// into it. A key that was built before gives its layer without any work.
//
// # On disk
//
//	<root>/build/
//	  step/<key>.json    a Record: the layer that a step gave
//	  mount/<id>/        content of RUN --mount=type=cache
//	  sum/<context>      digests of a context's files, see sumCache
//	  http/<url>         what ADD fetched, with its ETag
//	  tmp/.tmp-*         scratch space of running steps
//	  use.lock           shared by builds, exclusive for who removes
//	<runroot>/lock/build-<key>  held by the build that makes the step
//
// Layers belong to the image store; records only name them. Views of layers are
// detached mounts, so a killed build leaves no mount on the host.
package build

import (
	"os"

	"github.com/kist-containers/kist/image"
	"github.com/kist-containers/kist/image/registry"
	"github.com/kist-containers/kist/internal/state"
	"github.com/kist-containers/kist/network"
)

// Options say what builds may do and have.
type Options struct {
	// Rootless says that this process is root of a user namespace only.
	Rootless bool
	// Systemd lets systemd make the cgroups of RUN steps.
	Systemd bool
	// CgroupParent is where they go, "" for the default.
	CgroupParent string
	// CacheLimit bounds the cache in bytes; 0 is a tenth of the disk.
	CacheLimit int64
	// Registry is how registries are reached; nil for the machine's settings.
	Registry *registry.Config
	// Networks gives RUN steps their network; nil leaves them with none but lo.
	Networks *network.Manager
}

// A Builder builds images below one root. It holds nothing open.
type Builder struct {
	roots state.Roots
	store *image.Store
	o     Options
}

// Open returns the builder below r. It touches nothing on disk.
func Open(r state.Roots, s *image.Store, o Options) *Builder { return &Builder{r, s, o} }

// scratch makes a directory for one step and returns it with its removal.
func (b *Builder) scratch() (string, func(), error) {
	if err := os.MkdirAll(b.dir("tmp"), 0o700); err != nil {
		return "", nil, err
	}
	dir, err := os.MkdirTemp(b.dir("tmp"), ".tmp-")
	return dir, func() { os.RemoveAll(dir) }, err
}

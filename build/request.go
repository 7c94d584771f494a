package build

import (
	"os"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// A Request is one build as the user asked for it.
type Request struct {
	// Context is a directory, "-", or a git or http(s) URL; File is --file.
	Context, File string
	Stdin         *os.File
	// Target is the stage to build, "" for the last.
	Target string
	Args   map[string]string
	Labels map[string]string
	// Annotations are of the manifest.
	Annotations map[string]string
	// Platforms to build for; none is this machine's.
	Platforms []v1.Platform
	// AllPlatforms builds for those that the base images have.
	AllPlatforms bool
	// Contexts are --build-context: a directory, docker-image://REF, or a URL.
	Contexts map[string]string
	// Pull is always, missing or never, for base images.
	Pull string
	// NoCache builds every step; NoCacheStages those of some stages.
	NoCache       bool
	NoCacheStages []string
	// Jobs bounds the steps that run at the same time; 0 is one per CPU.
	Jobs    int
	Secrets map[string]Secret
	SSH     map[string]Agent
	// Allow are the entitlements granted: network.host, security.insecure.
	Allow []string
	// Network is default, none or host.
	Network string
	Hosts   []string
	Isolation
	// ShmSize is the size of /dev/shm in bytes, 0 for 64 MiB.
	ShmSize   int64
	Ulimits   []specs.POSIXRlimit
	Resources *specs.LinuxResources
	// Epoch is SOURCE_DATE_EPOCH: all times of the image. Zero is the real ones.
	Epoch time.Time
	// Squash makes one layer of those that the build adds, SquashAll of the base's
	// too.
	Squash, SquashAll bool
	// DropLabels leaves out those of base images.
	DropLabels bool
	// OSVersion and OSFeatures are the image's claims.
	OSVersion  string
	OSFeatures []string
	// Created annotates the manifest with the time of the image.
	Created bool
	// List is a manifest list that the images are added to, "" for none.
	List   string
	policy *sourcePolicy
	// Retry is how often a pull is tried again, after RetryDelay.
	Retry      int
	RetryDelay time.Duration
	// Env is added to the image's environment; UnsetEnv and UnsetLabels are names
	// taken out of it.
	Env                   map[string]string
	UnsetEnv, UnsetLabels []string
	// Ignorefile stands for .dockerignore, From for what the first FROM names.
	Ignorefile, From string
	// AllStages are built, not only those that the target needs.
	AllStages bool
	// CacheTTL is how old a cached step may be; 0 is any age.
	CacheTTL time.Duration
	// OmitHistory leaves the history out of the image.
	OmitHistory bool
	// Provenance is min or max to attest how the image was made, "" for no
	// attestation; BuilderID names who made it.
	Provenance, BuilderID string
	// Tags are the names of the result.
	Tags []string
	// CacheFrom and CacheTo are where steps come from and go to besides the cache.
	CacheFrom, CacheTo []CacheLocation
}

// multi says that an index is wanted also of one platform.
func (r *Request) multi() bool { return isTrue(r.Args["BUILDKIT_MULTI_PLATFORM"]) }

// indexed says that the result is an index of images.
func (r *Request) indexed(res *Result) bool {
	return len(res.Images) > 1 || r.multi() || r.Provenance != ""
}

// A Secret is a file or a variable that steps may see and no layer holds.
type Secret struct{ File, Env string }

// A Result is what a build made.
type Result struct {
	// ID is the image's, or the digest of the index of several platforms.
	ID     string
	Digest string
	Names  []string
	Images []Built
	// Warnings are the linter's.
	Warnings []Warning
	// Fresh says that a step was done, and not all came from the cache.
	Fresh bool
	// Unused are the build arguments that no ARG names.
	Unused []string

	attestations []v1.Descriptor
}

// Built is the image of one platform.
type Built struct {
	Platform v1.Platform
	ID       string
	Digest   string
	created  time.Time
	manifest v1.Descriptor
	layers   []layer
	config   []byte
}

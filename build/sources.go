package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kist-containers/kist/image"
)

// sources are what a build reads besides its context: images and named contexts.
// Each is opened once.
type sources struct {
	mu     sync.Mutex
	images map[string]*stageFuture
	views  map[string]*view
	named  map[string]*source
	// materials are what the build read, for its provenance.
	materials []material
	// close undoes what was opened, in the order of opening.
	closers []func()
}

func newSources() *sources {
	return &sources{images: map[string]*stageFuture{}, views: map[string]*view{}, named: map[string]*source{}}
}

func (s *sources) Close() {
	for _, f := range s.closers {
		f()
	}
	for _, v := range s.views {
		v.Close()
	}
}

// How a build context names an image: by reference, or the only one of an OCI
// layout directory.
const (
	imagePrefix  = "docker-image://"
	layoutPrefix = "oci-layout://"
)

func namesImage(where string) bool {
	return strings.HasPrefix(where, imagePrefix) || strings.HasPrefix(where, layoutPrefix)
}

// image is the state that FROM ref starts with. It is shared: clone it.
func (s *sources) image(ctx context.Context, j *job, ref string, p v1.Platform) (*stageState, error) {
	layout := ""
	if where, ok := j.req.Contexts[ref]; ok {
		if dir, ok := strings.CutPrefix(where, layoutPrefix); ok {
			layout = dir
		} else if ref, ok = strings.CutPrefix(where, imagePrefix); !ok {
			return nil, fmt.Errorf("build context %s: a directory cannot be a base; want %sNAME", where, imagePrefix)
		}
	}
	return once(ctx, &s.mu, s.images, platformName(p)+" "+ref, func() (*stageState, error) {
		if layout != "" {
			return j.load(ctx, layout, p)
		}
		return j.pull(ctx, ref, p)
	})
}

// pull brings the image into the store.
func (j *job) pull(ctx context.Context, ref string, p v1.Platform) (*stageState, error) {
	ref, err := j.allowed(ref)
	if err != nil {
		return nil, err
	}
	l := j.show.start("base", "FROM "+ref)
	l.quiet = true
	o := image.PullOptions{Platform: platformName(p), Progress: j.show.progress(), Registry: j.b.o.Registry}
	img, err := j.b.store.Ensure(ctx, ref, j.req.Pull, o)
	for try := 0; err != nil && !errors.Is(err, image.ErrNotFound) && try < j.req.Retry; try++ {
		j.show.warn("FROM %s: %v; trying again in %s", ref, err, j.req.RetryDelay)
		select {
		case <-time.After(j.req.RetryDelay):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		img, err = j.b.store.Ensure(ctx, ref, j.req.Pull, o)
	}
	if err != nil {
		l.end(err)
		return nil, err
	}
	l.end(nil)
	if h, err := v1.NewHash(img.Digest); err == nil {
		j.extra.read(packageURL(ref, p), h.Algorithm, h.Hex)
	}
	return j.startFrom(img, p)
}

// allowed is the image that the source policy gives for ref.
func (j *job) allowed(ref string) (string, error) {
	if j.req.policy == nil {
		return ref, nil
	}
	r, err := image.ParseReference(ref)
	if err != nil {
		return "", err
	}
	id, _, err := j.req.policy.judge(imagePrefix + r.Tagged().String())
	if err != nil {
		return "", err
	}
	to, ok := strings.CutPrefix(id, imagePrefix)
	if !ok {
		return "", fmt.Errorf("source policy: %s: not an image, for %s", id, ref)
	}
	return to, nil
}

// load brings the image of an OCI layout into the store, under no name.
func (j *job) load(ctx context.Context, dir string, p v1.Platform) (*stageState, error) {
	l := j.show.start("base", "FROM "+dir)
	l.quiet = true
	images, err := j.b.store.LoadFile(ctx, dir, image.LoadOptions{Platforms: []string{platformName(p)}, Unnamed: true})
	images = slices.CompactFunc(images, func(a, b *image.Image) bool { return a.ID == b.ID }) // one has several names
	if err == nil && len(images) != 1 {
		err = fmt.Errorf("%s%s: has %d images for %s, want one", layoutPrefix, dir, len(images), platformName(p))
	}
	l.end(err)
	if err != nil {
		return nil, err
	}
	return j.startFrom(images[0], p)
}

// startFrom is the state that a stage on top of img starts with.
func (j *job) startFrom(img *image.Image, p v1.Platform) (_ *stageState, err error) {
	st := start(p)
	if st.layers, err = j.b.layersOf(img); err != nil {
		return nil, err
	}
	st.base = len(st.layers)
	st.config = *img.Config.DeepCopy()
	st.scope = newScope(img.Config.Config.Env)
	st.clock = img.Created
	st.startInterval = startInterval(img.RawConfig)
	return st, nil
}

// startInterval reads the one field that v1.HealthConfig does not have.
func startInterval(raw []byte) time.Duration {
	var cfg struct {
		Config struct {
			Healthcheck struct{ StartInterval time.Duration }
		} `json:"config"`
	}
	json.Unmarshal(raw, &cfg) // the image store has parsed it before
	return cfg.Config.Healthcheck.StartInterval
}

// source opens what COPY --from=from reads, the build context for "". id names
// its content where that is known without reading it, "" where not.
func (r *stageRun) source(ctx context.Context, from string) (src *source, id string, err error) {
	j := r.job
	if from == "" {
		return &j.ctx.source, "", nil
	}
	if where, ok := j.req.Contexts[from]; ok && !namesImage(where) {
		src, err := j.extra.context(ctx, j.b, from, where)
		return src, "", err
	}
	dep, err := j.plan.named(r.stage, from, sortedKeys(j.req.Contexts))
	if err != nil {
		return nil, "", err
	}
	var st *stageState
	name := "image " + from
	switch {
	case dep != nil:
		name = "stage " + dep.label()
		st, err = j.stage(ctx, dep)
	case from == scratch:
		st = start(r.stage.platform)
	default:
		st, err = j.extra.image(ctx, j, from, r.stage.platform)
	}
	if err != nil {
		return nil, "", err
	}
	v, err := j.extra.view(j.b, st)
	if err != nil {
		return nil, "", err
	}
	return &source{name: name, root: v.Root}, cmpOr(st.chain(), scratch), nil
}

// view is the merged tree of a stage, to read.
func (s *sources) view(b *Builder, st *stageState) (*view, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v, ok := s.views[st.chain()]; ok {
		return v, nil
	}
	dir, remove, err := b.scratch()
	if err != nil {
		return nil, err
	}
	s.closers = append(s.closers, remove)
	v, err := b.openView(st.layers, dir, false)
	if err == nil {
		s.views[st.chain()] = v
	}
	return v, err
}

// context opens a --build-context.
func (s *sources) context(ctx context.Context, b *Builder, name, where string) (*source, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if src, ok := s.named[name]; ok {
		return src, nil
	}
	c := &buildContext{source: source{name: "build context " + name, owned: true}}
	var err error
	switch {
	case isGit(where):
		err = b.gitContext(ctx, c, where, false)
	case isURL(where):
		err = b.urlContext(ctx, c, where)
	default:
		var abs string
		if abs, err = filepath.Abs(where); err == nil {
			c.root, err = os.Open(abs)
		}
		if err == nil {
			c.sums = openSums(b.dir("sum"), abs)
			c.ignore, err = findIgnore(&c.source, "")
		}
	}
	s.closers = append(s.closers, func() { c.sums.save(); c.Close() })
	if err != nil {
		return nil, fmt.Errorf("--build-context %s=%s: %w", name, where, err)
	}
	s.named[name] = &c.source
	return &c.source, nil
}

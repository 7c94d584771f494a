package build

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

	"github.com/kist-containers/kist/image"
	"github.com/kist-containers/kist/internal/state"
)

// Build builds what req asks for and stores it. show may be nil. An error about
// the Dockerfile wraps *SourceError, a command that failed *ExitError.
func (b *Builder) Build(ctx context.Context, req *Request, show *display) (_ *Result, err error) {
	pin, err := b.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer pin()
	c, err := b.openContext(ctx, req.Context, req.File, req.Stdin)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	runDir, leave, err := b.runDir(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	guarded := new(guardian)
	defer guarded.dismiss()
	platforms := req.Platforms
	if len(platforms) == 0 {
		platforms = []v1.Platform{hostPlatform()}
	}
	extra := newSources()
	defer extra.Close()
	imports, err := b.openImports(ctx, req.CacheFrom, show)
	if err != nil {
		return nil, err
	}
	jobs := req.Jobs
	if jobs <= 0 {
		jobs = max(runtime.GOMAXPROCS(0), 2)
	}
	slots := make(chan struct{}, jobs)
	res := &Result{Images: make([]Built, len(platforms))}
	all := make([]*job, len(platforms))
	g, gctx := errgroup.WithContext(ctx)
	for i, p := range platforms {
		j := &job{b: b, req: req, ctx: c, show: show, slots: slots, extra: extra, stages: map[*planStage]*stageFuture{}, runDir: runDir, guarded: guarded, imports: imports}
		all[i] = j
		if j.plan, err = j.newPlan(p); err != nil {
			return nil, err
		}
		g.Go(func() (err error) {
			defer func() { err = errors.Join(err, j.closeNetworks(context.WithoutCancel(ctx))) }()
			st, err := j.all(gctx)
			if err != nil {
				return err
			}
			res.Images[i], err = j.finish(gctx, st)
			return err
		})
	}
	err = g.Wait()
	err = errors.Join(err, c.sums.save())
	res.Warnings = all[0].plan.file.Warnings
	if err != nil {
		return res, err
	}
	if err := all[0].plan.file.LintError(); err != nil {
		return res, err
	}
	res.Unused = all[0].plan.unused()
	if err := b.result(ctx, req, res); err != nil {
		return res, err
	}
	return res, b.exportCache(ctx, req.CacheTo, all)
}

// newPlan parses the Dockerfile anew, because expansion changes the commands.
func (j *job) newPlan(p v1.Platform) (*plan, error) {
	d, err := ParseDockerfile(j.ctx.name, j.ctx.dockerfile, j.req.Args["BUILDKIT_DOCKERFILE_CHECK"])
	if err != nil {
		return nil, err
	}
	d.lintStages()
	return newPlan(d, j.req.Target, p, j.req.Args, sortedKeys(j.req.Contexts))
}

// enter keeps the collectors of the cache and of the image store out.
func (b *Builder) enter(ctx context.Context) (leave func(), err error) {
	b.sweepTemp()
	use, err := state.AcquireRLock(ctx, b.dir("use.lock"))
	if err != nil {
		return nil, err
	}
	pin, err := b.store.Pin(ctx)
	if err != nil {
		use.Unlock()
		return nil, err
	}
	return func() { pin.Unlock(); use.Unlock() }, nil
}

// runDir is where this build's containers have their records. What builds that
// were killed left there is ended and removed first.
func (b *Builder) runDir(ctx context.Context) (string, func(), error) {
	top := filepath.Join(b.roots.Run, "build")
	if err := os.MkdirAll(top, 0o700); err != nil {
		return "", nil, err
	}
	if err := b.bury(ctx, top); err != nil {
		return "", nil, err
	}
	dir := filepath.Join(top, strings.ToLower(rand.Text()[:12]))
	lock, err := state.TryLock(dir + ".lock")
	if err != nil {
		return "", nil, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		lock.Unlock()
		return "", nil, err
	}
	return dir, func() { os.RemoveAll(dir); os.Remove(dir + ".lock"); lock.Unlock() }, nil
}

func (j *job) closeNetworks(ctx context.Context) (err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, n := range j.networks {
		err = errors.Join(err, n.close(ctx))
	}
	j.networks = nil
	return err
}

// finish completes the configuration of a built stage.
func (j *job) finish(ctx context.Context, st *stageState) (Built, error) {
	cfg := st.config
	for _, k := range sortedKeys(j.req.Labels) {
		if cfg.Config.Labels == nil {
			cfg.Config.Labels = map[string]string{}
		}
		cfg.Config.Labels[k] = j.req.Labels[k]
	}
	if st.base == 0 && len(cfg.Config.Env) == 0 {
		cfg.Config.Env = []string{"PATH=" + defaultPath}
	}
	cfg.Created = v1.Time{Time: st.clock}
	layers := st.layers
	if j.req.Squash && len(layers) > st.base+1 {
		var err error
		if layers, err = j.b.squash(ctx, st, &cfg, j.req.Epoch); err != nil {
			return Built{}, fmt.Errorf("squash: %w", err)
		}
	}
	raw, err := marshalConfig(&cfg, st.startInterval)
	return Built{Platform: j.plan.target.platform, layers: layers, config: raw}, err
}

// marshalConfig adds what v1.ConfigFile has no field for.
func marshalConfig(cfg *v1.ConfigFile, startInterval time.Duration) ([]byte, error) {
	raw, err := json.Marshal(cfg)
	if err != nil || startInterval == 0 || cfg.Config.Healthcheck == nil {
		return raw, err
	}
	var all map[string]json.RawMessage
	var config map[string]json.RawMessage
	var health map[string]any
	if err := json.Unmarshal(raw, &all); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(all["config"], &config); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(config["Healthcheck"], &health); err != nil {
		return nil, err
	}
	health["StartInterval"] = startInterval
	if config["Healthcheck"], err = json.Marshal(health); err != nil {
		return nil, err
	}
	if all["config"], err = json.Marshal(config); err != nil {
		return nil, err
	}
	return json.Marshal(all)
}

// result stores the images and names them.
func (b *Builder) result(ctx context.Context, req *Request, res *Result) error {
	for i := range res.Images {
		built := &res.Images[i]
		blobs := make([]v1.Descriptor, len(built.layers))
		for n, l := range built.layers {
			blobs[n] = l.Blob
		}
		names := req.Tags
		if len(res.Images) > 1 {
			names = nil
		}
		img, err := b.store.AddRawImage(ctx, built.config, blobs, names)
		if err != nil {
			return err
		}
		built.ID, built.Digest, built.manifest = img.ID, img.Digest, img.Manifest
		res.ID, res.Digest, res.Names = img.ID, img.Digest, img.Names
	}
	if len(res.Images) > 1 {
		return b.index(ctx, req, res)
	}
	return nil
}

// Trim keeps the cache within its limit. Call it after a build.
func (b *Builder) Trim(ctx context.Context) error { return b.trim(ctx) }

// squash makes one layer of those that the build added: the changes are packed
// again from a view of them all.
func (b *Builder) squash(ctx context.Context, st *stageState, cfg *v1.ConfigFile, epoch time.Time) ([]layer, error) {
	dir, remove, err := b.scratch()
	if err != nil {
		return nil, err
	}
	defer remove()
	upper := filepath.Join(dir, "upper")
	if err := makeDir(upper, 0o755); err != nil {
		return nil, err
	}
	for _, l := range st.layers[st.base:] {
		if err := b.merge(ctx, l.Dir, upper); err != nil {
			return nil, err
		}
	}
	parent := ""
	if st.base > 0 {
		parent = st.layers[st.base-1].ChainID
	}
	l, blob, err := b.store.AddLayerFromDir(ctx, parent, upper, image.LayerOptions{})
	if err != nil {
		return nil, err
	}
	h, err := v1.NewHash(l.DiffID)
	if err != nil {
		return nil, err
	}
	cfg.RootFS.DiffIDs = append(slices.Clone(cfg.RootFS.DiffIDs[:st.base]), h)
	squashHistory(cfg, st.base, st.clock)
	return append(slices.Clone(st.layers[:st.base]), layer{DiffID: l.DiffID, ChainID: l.ChainID, Dir: l.Dir, Blob: blob}), nil
}

// squashHistory marks the build's entries as empty and adds docker's last one.
func squashHistory(cfg *v1.ConfigFile, base int, at time.Time) {
	seen := 0
	for i := range cfg.History {
		if !cfg.History[i].EmptyLayer {
			if seen++; seen > base {
				cfg.History[i].EmptyLayer = true
			}
		}
	}
	cfg.History = append(cfg.History, v1.History{Created: v1.Time{Time: at}, Comment: "merge of the build's layers"})
}

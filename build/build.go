package build

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

	"github.com/kist-containers/kist/internal/state"
)

// Build builds what req asks for and stores it. show may be nil. An error about
// the Dockerfile wraps *SourceError, a command that failed *ExitError.
func (b *Builder) Build(ctx context.Context, req *Request, show *display) (_ *Result, err error) {
	began := time.Now()
	pin, err := b.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer pin()
	c, err := b.openContext(ctx, req)
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
	platforms, err := (&job{b: b, req: req, ctx: c}).platforms(ctx)
	if err != nil {
		return nil, err
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
	for _, j := range all {
		res.Fresh = res.Fresh || j.fresh.Load()
	}
	res.Unused = all[0].plan.unused()
	if err := b.result(ctx, req, res, all, began); err != nil {
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
	if j.req.From != "" {
		d.Stages[0].BaseName = j.req.From
	}
	plan, err := newPlan(d, j.req.Target, p, j.req.Args, sortedKeys(j.req.Contexts))
	if err == nil && j.req.AllStages {
		for _, s := range plan.stages {
			s.need()
		}
	}
	return plan, err
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
	for {
		dir := filepath.Join(top, strings.ToLower(rand.Text()[:12]))
		lock, err := state.TryLock(dir + ".lock")
		if err == nil && !lock.Current(dir+".lock") {
			lock.Unlock()
			err = state.ErrLocked
		}
		if errors.Is(err, state.ErrLocked) {
			continue // another build took the new lock for a dead one's
		}
		if err != nil {
			return "", nil, err
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			lock.Unlock()
			return "", nil, err
		}
		return dir, func() { os.RemoveAll(dir); os.Remove(dir + ".lock"); lock.Unlock() }, nil
	}
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

// Trim keeps the cache within its limit. Call it after a build.
func (b *Builder) Trim(ctx context.Context) error { return b.trim(ctx) }

package build

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"golang.org/x/sync/errgroup"
)

// A job is the build of one plan.
type job struct {
	b    *Builder
	req  *Request
	plan *plan
	ctx  *buildContext
	show *display
	// slots bounds the steps that run at the same time.
	slots chan struct{}
	// extra are the opened --build-context sources and images.
	extra *sources

	mu     sync.Mutex
	stages map[*planStage]*stageFuture
	// used are the records of the steps, imports those of --cache-from.
	used    []*Record
	imports []*cacheImport
	// fresh says that a step was done.
	fresh atomic.Bool
	// runDir is where the runtime keeps its records; networks are those that no
	// step uses just now.
	runDir   string
	guarded  *guardian
	networks []*stepNetwork
	// warnShared is for the one warning about a shared network.
	warnShared sync.Once
}

// A stageFuture is a stage that somebody builds, once.
type stageFuture struct {
	done  chan struct{}
	state *stageState
	err   error
}

// A stageRun is a stage being built.
type stageRun struct {
	*stageState
	job   *job
	stage *planStage
	// number counts the steps shown, of total.
	number, total int
}

// all builds the target and, at the same time, what it needs.
func (j *job) all(ctx context.Context) (*stageState, error) {
	g, gctx := errgroup.WithContext(ctx)
	for _, s := range j.plan.stages {
		if s.needed {
			g.Go(func() error {
				_, err := j.stage(gctx, s)
				return err
			})
		}
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return j.stage(ctx, j.plan.target)
}

// stage returns the finished state of s, building it when nobody has begun to.
func (j *job) stage(ctx context.Context, s *planStage) (*stageState, error) {
	return once(ctx, &j.mu, j.stages, s, func() (*stageState, error) { return j.build(ctx, s) })
}

// once makes the state of key unless somebody has begun to, and waits for it.
// mu guards all.
func once[K comparable](ctx context.Context, mu *sync.Mutex, all map[K]*stageFuture, key K, do func() (*stageState, error)) (*stageState, error) {
	mu.Lock()
	f, begun := all[key]
	if !begun {
		f = &stageFuture{done: make(chan struct{})}
		all[key] = f
	}
	mu.Unlock()
	if !begun {
		f.state, f.err = do()
		close(f.done)
	}
	select {
	case <-f.done:
		return f.state, f.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (j *job) build(ctx context.Context, s *planStage) (*stageState, error) {
	r := &stageRun{job: j, stage: s}
	if err := r.from(ctx); err != nil {
		return nil, j.plan.file.at(s.Location, err)
	}
	triggers, err := r.triggers()
	if err != nil {
		return nil, j.plan.file.at(s.Location, err)
	}
	for _, c := range append(triggers, s.Commands...) {
		if shown(c) {
			r.total++
		}
	}
	r.platformNote()
	for _, c := range triggers {
		if err := r.instruction(ctx, c); err != nil {
			return nil, j.plan.file.at(s.Location, fmt.Errorf("ONBUILD %s: %w", c.Name(), err))
		}
	}
	for _, c := range s.Commands {
		if err := r.instruction(ctx, c); err != nil {
			return nil, j.plan.file.at(c.Location(), err)
		}
	}
	return r.stageState, nil
}

// from starts the stage with its base.
func (r *stageRun) from(ctx context.Context) (err error) {
	s := r.stage
	switch {
	case s.parent != nil:
		parent, err := r.job.stage(ctx, s.parent)
		if err != nil {
			return err
		}
		r.stageState = parent.clone()
		return nil
	case s.base == scratch:
		r.stageState = start(s.platform)
		r.clock = r.job.now()
		return nil
	}
	r.stageState, err = r.job.extra.image(ctx, r.job, s.base, s.platform)
	if err != nil {
		return err
	}
	r.stageState = r.stageState.clone()
	if r.job.req.DropLabels {
		r.config.Config.Labels = nil
	}
	r.lintBase(s.base)
	return nil
}

// platformNote says the platform of the image under construction.
func (r *stageRun) platformNote() {
	r.config.OS, r.config.Architecture, r.config.Variant = r.stage.platform.OS, r.stage.platform.Architecture, r.stage.platform.Variant
}

// now is the time of what is made now.
func (j *job) now() time.Time {
	if !j.req.Epoch.IsZero() {
		return j.req.Epoch
	}
	return time.Now().UTC()
}

// triggers are the ONBUILD instructions of the base image.
func (r *stageRun) triggers() ([]instructions.Command, error) {
	text := r.config.Config.OnBuild
	r.config.Config.OnBuild = nil
	var all []instructions.Command
	for _, t := range text {
		ast, err := parser.Parse(strings.NewReader(t))
		if err != nil {
			return nil, fmt.Errorf("ONBUILD %s: %w", t, err)
		}
		for _, n := range ast.AST.Children {
			c, err := instructions.ParseCommand(n)
			if err != nil {
				return nil, fmt.Errorf("ONBUILD %s: %w", t, err)
			}
			all = append(all, c)
		}
	}
	return all, nil
}

// shown reports whether the display has a line for c.
func shown(c instructions.Command) bool {
	switch c.(type) {
	case *instructions.RunCommand, *instructions.CopyCommand, *instructions.AddCommand, *instructions.WorkdirCommand:
		return true
	}
	return false
}

func (r *stageRun) instruction(ctx context.Context, c instructions.Command) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if err := r.words(c); err != nil {
		return err
	}
	if done, err := r.configure(c); done || err != nil {
		return err
	}
	switch c := c.(type) {
	case *instructions.WorkdirCommand:
		return r.workdirStep(ctx, c)
	case *instructions.CopyCommand:
		return r.copyCommand(ctx, c)
	case *instructions.AddCommand:
		return r.addCommand(ctx, c)
	case *instructions.RunCommand:
		return r.runCommand(ctx, c)
	}
	return fmt.Errorf("%s: not an instruction that kist knows", c.Name())
}

// sortedKeys is for what must not depend on a map's order.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"golang.org/x/sync/errgroup"

	"github.com/kist-containers/kist/internal/state"
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
	// runDir is where the runtime keeps its records; networks are those that no
	// step uses just now.
	runDir   string
	guarded  *guardian
	networks []*stepNetwork
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
	j.mu.Lock()
	f, begun := j.stages[s]
	if !begun {
		f = &stageFuture{done: make(chan struct{})}
		j.stages[s] = f
	}
	j.mu.Unlock()
	if !begun {
		f.state, f.err = j.build(ctx, s)
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
	if err == nil {
		r.stageState = r.stageState.clone()
	}
	return err
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

// A step is one change of files.
type step struct {
	// text is the instruction as the display has it, history as the image has it.
	text, history string
	// what is the identity of what the step does, besides the files it starts
	// from. quick is one that is known without reading files, "" for none.
	what  func(ctx context.Context) (string, error)
	quick string
	// free says that the layer does not depend on what is below (--link).
	free bool
	// optional makes no layer when nothing was written.
	optional bool
	// points are mount points that the view is to have, nil for none.
	points func() (dirs, files []string)
	// do writes into the view.
	do func(ctx context.Context, w *workspace) error
}

// A workspace is where a step works.
type workspace struct {
	// dir is scratch space of the step alone.
	dir  string
	view *view
	line *line
}

// step gives the layer of st, from the cache or by doing it.
func (r *stageRun) step(ctx context.Context, st *step) error {
	r.number++
	l := r.job.show.start(r.label(), st.text)
	err := r.cachedOrDone(ctx, st, l)
	l.end(err)
	if err != nil {
		return err
	}
	r.history(st.history, l.layer)
	return nil
}

func (r *stageRun) label() string {
	name := r.stage.label()
	if len(r.job.req.Platforms) > 1 {
		name = platformName(r.stage.platform) + " " + name
	}
	return fmt.Sprintf("%s %d/%d", name, r.number, r.total)
}

// keyOf completes what a step does with what it starts from.
func (r *stageRun) keyOf(st *step, what string) string {
	below, epoch := r.chain(), ""
	if st.free {
		below = ""
	}
	if !r.job.req.Epoch.IsZero() {
		epoch = fmt.Sprint(r.job.req.Epoch.Unix())
	}
	return digestOf("step 1", below, fmt.Sprint(st.free), epoch, platformName(r.stage.platform), what)
}

// fresh says that the user wants the step done again.
func (r *stageRun) fresh() bool {
	return r.job.req.NoCache || r.stage.Name != "" && slices.Contains(r.job.req.NoCacheStages, r.stage.Name)
}

func (r *stageRun) cachedOrDone(ctx context.Context, st *step, l *line) (err error) {
	quick := ""
	if st.quick != "" {
		quick = r.keyOf(st, "quick "+st.quick)
		if rec, ok := r.cached(quick); ok {
			return r.take(ctx, rec, l)
		}
	}
	what, err := st.what(ctx)
	if err != nil {
		return err
	}
	key := r.keyOf(st, what)
	rec, ok := r.cached(key)
	if !ok {
		rec, err = r.locked(ctx, key, st, l)
	} else {
		err = r.take(ctx, rec, l)
	}
	if err == nil && quick != "" {
		err = r.job.b.save(&Record{Key: quick, Alias: key, Text: st.text, Created: rec.Created})
	}
	return err
}

// cached looks a key up, unless the user wants no cache.
func (r *stageRun) cached(key string) (*Record, bool) {
	if r.fresh() {
		return nil, false
	}
	return r.job.b.lookup(key)
}

// locked does a step while no other build does the same one: who comes second
// waits and takes what the first made.
func (r *stageRun) locked(ctx context.Context, key string, st *step, l *line) (*Record, error) {
	lock, err := state.AcquireLock(ctx, r.job.b.roots.Lock("build-"+key[:32]))
	if err != nil {
		return nil, err
	}
	defer lock.Unlock()
	rec, ok := r.cached(key)
	if !ok && !r.fresh() {
		rec, ok = r.imported(ctx, key)
	}
	if ok {
		return rec, r.take(ctx, rec, l)
	}
	return r.do(ctx, key, st, l)
}

// take puts the layer of a record on top.
func (r *stageRun) take(ctx context.Context, rec *Record, l *line) error {
	l.cached = true
	r.job.note(rec)
	r.advance(rec.Created)
	if rec.ChainID == "" {
		return nil
	}
	l.layer = true
	top := layer{DiffID: rec.DiffID, ChainID: rec.ChainID, Dir: r.job.b.layerDir(rec.ChainID), Blob: rec.Blob}
	if rec.Parent != r.chain() {
		var err error
		if top, err = r.job.b.relay(ctx, r.chain(), top); err != nil {
			return err
		}
	}
	return r.push(top)
}

// advance moves the clock; it never goes back.
func (r *stageRun) advance(t time.Time) {
	if !r.job.req.Epoch.IsZero() {
		t = r.job.req.Epoch
	}
	if t.After(r.clock) || !r.job.req.Epoch.IsZero() {
		r.clock = t
	}
}

// do does the step, publishes its layer and records it.
func (r *stageRun) do(ctx context.Context, key string, st *step, l *line) (*Record, error) {
	select {
	case r.job.slots <- struct{}{}:
		defer func() { <-r.job.slots }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	l.begin()
	dir, remove, err := r.job.b.scratch()
	if err != nil {
		return nil, err
	}
	defer remove()
	v, err := r.workView(st, dir)
	if err != nil {
		return nil, err
	}
	err = st.do(ctx, &workspace{dir: dir, view: v, line: l})
	// The layer is read when nobody can write to it any more.
	if err = errors.Join(err, v.Close()); err != nil {
		return nil, err
	}
	rec := &Record{Key: key, Text: st.text, Parent: r.chain(), Created: r.job.now()}
	top, err := r.publish(ctx, rec, v.upper, st.optional)
	if err != nil {
		return nil, err
	}
	r.advance(rec.Created)
	r.job.note(rec)
	if l.layer = top != nil; !l.layer {
		return rec, nil
	}
	return rec, r.push(*top)
}

// workView is the view that a step writes to.
func (r *stageRun) workView(st *step, dir string) (*view, error) {
	below := r.layers
	if st.points != nil {
		points := filepath.Join(dir, "points")
		if err := os.Mkdir(points, 0o755); err != nil {
			return nil, err
		}
		dirs, files := st.points()
		if err := skeleton(points, dirs, files); err != nil {
			return nil, err
		}
		below = append([]layer{{Dir: points}}, below...)
	}
	return r.job.b.openView(below, dir, true)
}

// note remembers a record that the build used or made.
func (j *job) note(rec *Record) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.used = append(j.used, rec)
}

// argPrefix is the history's account of build arguments: "|2 A=b C=d ".
func argPrefix(args []variable) string {
	if len(args) == 0 {
		return ""
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "|%d ", len(args))
	for _, a := range args {
		fmt.Fprintf(&b, "%s=%s ", a.Name, a.Value)
	}
	return b.String()
}

// sortedKeys is for what must not depend on a map's order.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

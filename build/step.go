package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/kist-containers/kist/internal/state"
)

// A step is one change of files.
type step struct {
	// text is the instruction as the display has it, history as the image has it.
	text, history string
	// what is the identity of what the step does, besides the files it starts
	// from. quick is one that is known without reading files, "" for none.
	what  func(ctx context.Context) (string, error)
	quick string
	// free says that the layer does not depend on what is below, which the step
	// does not see (--link).
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
	l.stopped = err != nil && errors.Is(err, context.Cause(ctx))
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
	rec, ok := r.job.b.lookup(key)
	if ttl := r.job.req.CacheTTL; ok && ttl > 0 && time.Since(rec.Created) > ttl {
		return nil, false
	}
	return rec, ok
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
	r.job.fresh.Store(true)
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
	if st.free {
		below = nil
	}
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

package container

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kist-containers/kist/container/monitor"
	"github.com/kist-containers/kist/internal/ui"
)

// WaitCmd is `kist wait`.
type WaitCmd struct {
	Condition  []string `default:"stopped" enum:"stopped,exited,not-running,removed,removing,next-exit,created,configured,initialized,paused,stopping,running,healthy,unhealthy" help:"What to wait for, any of: stopped, removed, next-exit, running, paused, created, healthy, unhealthy." placeholder:"CONDITION,…"`
	Interval   string   `short:"i" hidden:"" help:"Changes are seen within 20 ms."`
	FirstMatch bool     `name:"exit-first-match" help:"End with the first of the containers."`
	latestFlag `embed:""`
	Ignore     bool     `help:"A container that is not there counts as ended with -1."`
	Containers []string `arg:"" optional:"" name:"container" help:"Containers to wait for."`
}

// Run prints the exit code of each container when it has ended.
func (c *WaitCmd) Run(ctx context.Context, e *Engine, out *ui.Output) error {
	names, err := e.choose(c.Containers, false, c.Latest, choice{}, nil)
	if err != nil {
		return fmt.Errorf("wait: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make([]chan ended, len(names))
	first := make(chan ended, len(names))
	for i, name := range names {
		results[i] = make(chan ended, 1)
		go func() {
			r := c.wait(ctx, e, name)
			results[i] <- r
			first <- r
		}()
	}
	if c.FirstMatch {
		r := <-first
		return r.tell(out)
	}
	var errs []error
	for _, result := range results {
		r := <-result
		if err := r.tell(out); err != nil {
			errs = append(errs, err)
		}
	}
	return together(out, errs)
}

// ended is what came of waiting for one container.
type ended struct {
	code int
	err  error
}

func (r *ended) tell(out *ui.Output) error {
	if r.err == nil {
		out.Print(r.code)
	}
	return r.err
}

func (c *WaitCmd) wait(ctx context.Context, e *Engine, name string) (r ended) {
	ct, err := e.Lookup(name)
	if errors.Is(err, ErrNotFound) && c.Ignore {
		return ended{code: -1}
	}
	if err == nil {
		r.code, err = e.await(ctx, ct.ID, c.Condition)
	}
	if err != nil {
		r.err = fmt.Errorf("wait %s: %w", name, err)
	}
	return r
}

// notRunning are the words for a container that has no process.
var notRunning = [...]string{"stopped", "exited", "not-running", "stopping", "removing"}

// await waits for one of the conditions and returns the exit code, 0 while it runs.
func (e *Engine) await(ctx context.Context, id string, conditions []string) (int, error) {
	ct, _ := e.read(id)
	ends := func(c string) bool {
		// One that is removed with its exit has only one, and nothing left to ask then.
		return c == "removed" || slices.Contains(notRunning[:3], c) || c == "next-exit" && ct != nil && ct.AutoRemove
	}
	if client, _ := monitor.Dial(e.runDir(id)); client != nil && !slices.ContainsFunc(conditions, func(c string) bool { return !ends(c) }) {
		// The monitor knows best: it tells the code even of a container that is
		// removed with its exit.
		code, err := client.Run(ctx, slices.Equal(conditions, []string{"removed"}))
		client.Close()
		if err == nil || ctx.Err() != nil {
			return code, ctx.Err()
		}
	}
	ran, code := false, 0
	for {
		st := e.Status(id)
		_, err := e.read(id)
		gone := errors.Is(err, ErrNotFound)
		ran = ran || st.Live()
		if !gone {
			code = st.ExitCode
		}
		for _, condition := range conditions {
			if st.satisfies(condition, ran, gone) {
				return code, nil
			}
		}
		if gone {
			return 0, ErrNotFound
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// satisfies reports whether a condition of wait holds. ran says that the container
// was seen running, gone that it is no more.
func (s Status) satisfies(condition string, ran, gone bool) bool {
	switch condition {
	case "removed":
		return gone
	case "next-exit":
		return ran && !s.Busy()
	case "running":
		return s.Live()
	case StatusPaused:
		return s.Word == StatusPaused
	case "initialized":
		return s.Word == StatusInitialized
	case "created", "configured":
		return !gone
	}
	if slices.Contains(notRunning[:], condition) {
		return !gone && !s.Busy()
	}
	return s.Health == condition
}

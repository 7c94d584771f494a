package container

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kist-containers/kist/container/monitor"
	"github.com/kist-containers/kist/internal/ui"
)

// WaitCmd is `kist wait`.
type WaitCmd struct {
	Condition  string `default:"stopped" enum:"stopped,exited,not-running,removed,removing,next-exit,created,configured,initialized,paused,stopping,running,healthy,unhealthy" help:"What to wait for: stopped, removed, next-exit, running, paused, created, healthy, unhealthy."`
	Interval   string `hidden:""`
	latestFlag `embed:""`
	Ignore     bool     `short:"i" help:"A container that is not there counts as ended with -1."`
	Containers []string `arg:"" optional:"" name:"container" help:"Containers to wait for."`
}

// Run prints the exit code of each container when it has ended.
func (c *WaitCmd) Run(ctx context.Context, e *Engine, out *ui.Output) error {
	names, err := e.choose(c.Containers, false, c.Latest, choice{}, nil)
	if err != nil {
		return fmt.Errorf("wait: %w", err)
	}
	var errs []error
	for _, name := range names {
		ct, err := e.Lookup(name)
		if errors.Is(err, ErrNotFound) && c.Ignore {
			out.Print(-1)
			continue
		}
		var code int
		if err == nil {
			code, err = e.await(ctx, ct.ID, c.Condition)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("wait %s: %w", name, err))
			continue
		}
		out.Print(code)
	}
	return together(out, errs)
}

// await waits for a condition and returns the exit code, 0 while it runs.
func (e *Engine) await(ctx context.Context, id, condition string) (int, error) {
	client, _ := monitor.Dial(e.runDir(id))
	if client != nil && (condition == "stopped" || condition == "exited" || condition == "not-running" || condition == "removed") {
		// The monitor knows best: it tells the code even of a container that is
		// removed with its exit.
		code, err := client.Run(ctx, condition == "removed")
		client.Close()
		if err == nil || ctx.Err() != nil {
			return code, ctx.Err()
		}
	}
	ran := false
	for {
		st := e.Status(id)
		_, err := e.read(id)
		switch gone := errors.Is(err, ErrNotFound); {
		case gone && condition == "removed":
			return st.ExitCode, nil
		case gone:
			return 0, ErrNotFound
		case condition == "running" && st.Live(), condition == st.Health && st.Health != "", condition == StatusPaused && st.Word == StatusPaused:
			return 0, nil
		case (condition == "created" || condition == "configured" || condition == "initialized") && err == nil:
			return 0, nil
		case condition == "next-exit":
			if ran = ran || st.Live(); ran && !st.Busy() {
				return st.ExitCode, nil
			}
		case (condition == "stopped" || condition == "exited" || condition == "not-running" || condition == "stopping" || condition == "removing") && !st.Busy():
			return st.ExitCode, nil
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

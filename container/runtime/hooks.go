package runtime

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// hooks are the ones that run when Create has long returned.
type hooks struct {
	Poststart []specs.Hook `json:"poststart,omitempty"`
	Poststop  []specs.Hook `json:"poststop,omitempty"`
}

func laterHooks(h *specs.Hooks) *hooks {
	if h == nil || len(h.Poststart)+len(h.Poststop) == 0 {
		return nil
	}
	return &hooks{h.Poststart, h.Poststop}
}

func (h *hooks) poststart() []specs.Hook {
	if h == nil {
		return nil
	}
	return h.Poststart
}

func (h *hooks) poststop() []specs.Hook {
	if h == nil {
		return nil
	}
	return h.Poststop
}

// runEach runs all hooks, whatever each says: the container is gone already.
func runEach(ctx context.Context, list []specs.Hook, s *specs.State) error {
	var errs []error
	for _, h := range list {
		errs = append(errs, runHooks(ctx, []specs.Hook{h}, s))
	}
	return errors.Join(errs...)
}

// runHooks runs hooks in their order, each with the state on its standard
// input; the first failure ends the row.
func runHooks(ctx context.Context, hooks []specs.Hook, s *specs.State) error {
	if len(hooks) == 0 {
		return nil
	}
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	for _, h := range hooks {
		if err := runHook(ctx, h, data); err != nil {
			return &StartError{Step: "hook", Object: h.Path, Text: err.Error()}
		}
	}
	return nil
}

func runHook(ctx context.Context, h specs.Hook, data []byte) error {
	if ctx == nil {
		ctx = context.Background()
	}
	if h.Timeout != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(*h.Timeout)*time.Second)
		defer cancel()
	}
	cmd := exec.CommandContext(ctx, h.Path)
	if len(h.Args) > 0 {
		cmd.Args = h.Args
	}
	cmd.Env = append([]string{}, h.Env...)
	cmd.Stdin = bytes.NewReader(data)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded) && h.Timeout != nil:
		return fmt.Errorf("it takes longer than its timeout of %d s", *h.Timeout)
	case ctx.Err() != nil:
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

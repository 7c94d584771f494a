package runtime

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// runHooks runs hooks in their order, each with the state on its standard
// input; the first failure ends the row.
func runHooks(ctx context.Context, hooks []specs.Hook, s *specs.State) error {
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
	if ctx.Err() != nil {
		return fmt.Errorf("it takes longer than its timeout of %d s", *h.Timeout)
	}
	if err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

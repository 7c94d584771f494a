package image

import (
	"context"
	"time"
)

// RetryFlags are podman's flags about trying again, beside the few times that any
// request to a registry is repeated.
type RetryFlags struct {
	Retry      int           `help:"How often to try again what failed." placeholder:"N"`
	RetryDelay time.Duration `help:"Time between two tries (1s)." default:"1s"`
}

// Again calls f until it succeeds, at most 1+Retry times, and returns its last error.
func (r RetryFlags) Again(ctx context.Context, f func() error) error {
	for try := 0; ; try++ {
		err := f()
		if err == nil || try >= r.Retry {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(r.RetryDelay):
		}
	}
}

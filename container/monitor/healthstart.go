package monitor

import (
	"context"
	"time"
)

// Startup is podman's startup health check: until it has succeeded, the other
// check waits.
type Startup struct {
	Test     []string      `json:"test"`
	Interval time.Duration `json:"intervalNs,omitempty"` // 0: 30 s
	Timeout  time.Duration `json:"timeoutNs,omitempty"`  // 0: 30 s
	// Retries is after how many failures the container is started anew; 0 is never.
	Retries int `json:"retries,omitempty"`
	// Success is how often it must succeed; 0 is once.
	Success int `json:"success,omitempty"`
}

// untilStarted runs the startup check until it has succeeded. It returns false
// when ctx ended before.
func (m *monitor) untilStarted(ctx context.Context, s *Startup) bool {
	check := Health{Test: s.Test, Interval: s.Interval, Timeout: s.Timeout}.withDefaults()
	for failed, good := 0, 0; good < max(s.Success, 1); {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(check.Interval):
		}
		if r := m.probe(ctx, check); r.ExitCode == 0 {
			failed, good = 0, good+1
			continue
		}
		good = 0
		if failed++; s.Retries > 0 && failed >= s.Retries {
			m.unhealthy("restart")
			failed = 0
		}
	}
	return ctx.Err() == nil
}

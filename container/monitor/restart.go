package monitor

import "time"

// Delays between runs: docker's.
const (
	firstDelay = 100 * time.Millisecond
	lastDelay  = time.Minute
	// A run of this length starts the delays anew.
	goodRun = 10 * time.Second
)

// wantsRestart applies the policy to an end.
func (m *monitor) wantsRestart(e Exit) bool {
	if m.stopped.Load() {
		return false
	}
	if m.wanted.Swap(false) {
		return true
	}
	if m.AutoRemove {
		return false
	}
	if m.hooks.Policy != nil {
		m.Restart = m.hooks.Policy(&m.Spec)
	}
	switch m.Restart.Name {
	case "always", "unless-stopped":
		return true
	case "on-failure":
		most := m.Restart.MaximumRetryCount
		return e.ExitCode != 0 && (most == 0 || m.restarts < most)
	}
	return false
}

// restartDelay is the pause before run number n+1 (n restarts so far in a row).
func restartDelay(inRow int) time.Duration {
	d := firstDelay
	for ; inRow > 0 && d < lastDelay; inRow-- {
		d *= 2
	}
	return min(d, lastDelay)
}

// delay waits before the next run. It returns false when a stop came meanwhile.
func (m *monitor) delay(e Exit) bool {
	if e.FinishedAt.Sub(m.began) >= goodRun {
		m.inRow = 0
	}
	m.init.Pid, m.waiting = 0, true
	m.note()
	defer func() { m.waiting = false }()
	select {
	case <-time.After(restartDelay(m.inRow)):
	case <-m.wake:
	}
	m.inRow++
	return !m.stopped.Load()
}

// again makes and starts the next run in the same root file system and sandbox.
func (m *monitor) again() error {
	m.restarts++
	if err := m.create(); err != nil {
		return err
	}
	if err := m.start(); err != nil {
		m.streams.closeOurs()
		return err
	}
	m.event("start", nil)
	return nil
}

// stop marks that a user wants the container to stay down.
func (m *monitor) stop() {
	m.stopped.Store(true)
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

package container

import (
	"testing"
	"time"

	"github.com/kist-containers/kist/container/monitor"
)

func TestStatusOf(t *testing.T) {
	before, began := time.Unix(100, 0), time.Unix(200, 0)
	run := &monitor.State{Pid: 7, StartedAt: began, Restarts: 2}
	waits := &monitor.State{StartedAt: began, Restarts: 2, Restarting: true}
	ended := &monitor.Exit{StartedAt: began, FinishedAt: began.Add(time.Second), ExitCode: 3}
	earlier := &monitor.Exit{StartedAt: before, FinishedAt: before.Add(time.Second), ExitCode: 4, OOMKilled: true}
	for _, row := range []struct {
		name  string
		facts Facts
		word  string
		code  int
	}{
		{"nothing ran", Facts{}, StatusCreated, 0},
		{"a run is being made", Facts{State: &monitor.State{}, MonitorAlive: true}, StatusCreated, 0},
		{"another run is being made", Facts{State: &monitor.State{}, Exit: earlier, MonitorAlive: true}, StatusExited, 4},
		{"it runs", Facts{State: run, InitAlive: true, MonitorAlive: true}, StatusRunning, 0},
		{"it runs again", Facts{State: run, Exit: earlier, InitAlive: true, MonitorAlive: true}, StatusRunning, 0},
		{"it is paused", Facts{State: run, InitAlive: true, MonitorAlive: true, Paused: true}, StatusPaused, 0},
		{"its monitor was killed", Facts{State: run, InitAlive: true}, StatusRunning, 0},
		{"it has just ended, its monitor will say how", Facts{State: run, Exit: earlier, MonitorAlive: true}, StatusRunning, 0},
		{"it ended, its monitor cleans up", Facts{State: run, Exit: ended, MonitorAlive: true}, StatusExited, 3},
		{"it ended", Facts{Exit: ended}, StatusExited, 3},
		{"it waits for a restart", Facts{State: waits, Exit: ended, MonitorAlive: true}, StatusRestarting, 3},
		{"it waited, and the monitor was killed", Facts{State: waits, Exit: ended}, StatusExited, 3},
		{"both were killed", Facts{State: run}, StatusExited, lostExit},
		{"both were killed, in the second run", Facts{State: run, Exit: earlier}, StatusExited, lostExit},
	} {
		if s := statusOf(row.facts); s.Word != row.word || s.ExitCode != row.code {
			t.Errorf("%s: %s (%d), want %s (%d)", row.name, s.Word, s.ExitCode, row.word, row.code)
		}
	}
}

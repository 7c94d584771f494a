package container

import "github.com/kist-containers/kist/container/monitor"

func (e *Engine) inspectHealth(c *Config) *InspectHealth {
	if c.Health == nil || len(c.Health.Test) == 0 || c.Health.Test[0] == "NONE" {
		return nil
	}
	s, err := monitor.ReadHealth(e.runDir(c.ID))
	if err != nil {
		return &InspectHealth{Status: monitor.HealthStarting, Log: []InspectProbe{}}
	}
	h := &InspectHealth{Status: s.Status, FailingStreak: s.FailingStreak, Log: []InspectProbe{}}
	for _, p := range s.Log {
		h.Log = append(h.Log, InspectProbe{p.Start, p.End, p.ExitCode, p.Output})
	}
	return h
}

package container

import "github.com/kist-containers/kist/container/monitor"

func (e *Engine) inspectHealth(c *Config, st Status) *InspectHealth {
	switch {
	case c.Health == nil || len(c.Health.Test) == 0 || c.Health.Test[0] == "NONE":
		return nil
	case st.StartedAt.IsZero():
		return nil
	case !st.Busy():
		// docker: what ended is not healthy.
		return &InspectHealth{Status: monitor.HealthUnhealthy, Log: []InspectProbe{}}
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

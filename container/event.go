package container

import (
	"encoding/json"
	"os"
	"path/filepath"
	"time"

	"github.com/kist-containers/kist/container/monitor"
)

// Event is one line of the events file: docker's fields.
type Event struct {
	Type     string `json:"Type"`
	Action   string `json:"Action"`
	Actor    Actor  `json:"Actor"`
	Scope    string `json:"scope"`
	Time     int64  `json:"time"`
	TimeNano int64  `json:"timeNano"`
}

// Actor is what an event happened to.
type Actor struct {
	ID         string
	Attributes map[string]string
}

// mostEvents bounds the events file; a full one is kept once as events.jsonl.1.
const mostEvents = 4 << 20

func (e *Engine) eventsFile() string { return filepath.Join(e.Roots.Run, "events.jsonl") }

// event notes something that happened to a container. An event that cannot be
// written stops nothing.
func (e *Engine) event(c *Config, action string, attributes map[string]string) {
	attrs := map[string]string{"image": c.Image, "name": c.Name}
	for _, m := range []map[string]string{c.Labels, attributes} {
		for k, v := range m {
			attrs[k] = v
		}
	}
	e.noteEvent("container", action, Actor{c.ID, attrs})
}

// VolumeEvent notes what happened to a volume.
func (e *Engine) VolumeEvent(name, action string, attributes map[string]string) {
	e.noteEvent("volume", action, Actor{name, attributes})
}

// noteEvent writes one line, at once and in append mode: no lock, and no two lines
// mixed.
func (e *Engine) noteEvent(kind, action string, actor Actor) {
	now := time.Now()
	line, err := json.Marshal(Event{Type: kind, Action: action, Actor: actor, Scope: "local", Time: now.Unix(), TimeNano: now.UnixNano()})
	if err != nil {
		return
	}
	f, err := os.OpenFile(e.eventsFile(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	f.Write(append(line, '\n'))
	if info, err := f.Stat(); err == nil && info.Size() > mostEvents {
		os.Rename(e.eventsFile(), e.eventsFile()+".1")
	}
}

// MonitorEvent is event for the monitor, which knows the container by its spec.
func (e *Engine) MonitorEvent(s *monitor.Spec, action string, attributes map[string]string) {
	c, err := e.read(s.ID)
	if err != nil {
		c = &Config{ID: s.ID, Name: s.Name}
	}
	e.event(c, action, attributes)
}

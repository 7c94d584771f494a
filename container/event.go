package container

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/kist-containers/kist/container/monitor"
	"github.com/kist-containers/kist/internal/lazyjson"
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

// Types of events.
const (
	eventContainer = "container"
	eventImage     = "image"
	eventNetwork   = "network"
	eventVolume    = "volume"
)

// mostEvents bounds the events file, in bytes; a full one is kept once beside it.
const mostEvents = 4 << 20

func (e *Engine) eventsFile() string { return filepath.Join(e.Roots.Run, "events.jsonl") }

// event notes something that happened to a container. An event that cannot be
// written stops nothing.
func (e *Engine) event(c *Config, action string, attributes map[string]string) {
	attrs := map[string]string{"image": c.Image, "name": c.Name}
	maps.Copy(attrs, c.Labels)
	maps.Copy(attrs, attributes)
	e.NoteEvent(eventContainer, c.ID, action, attrs)
}

// ImageEvent, NetworkEvent and VolumeEvent note what happened to such an object.
func (e *Engine) ImageEvent(id, action string, attributes map[string]string) {
	e.NoteEvent(eventImage, id, action, attributes)
}

func (e *Engine) NetworkEvent(id, action string, attributes map[string]string) {
	e.NoteEvent(eventNetwork, id, action, attributes)
}

func (e *Engine) VolumeEvent(name, action string, attributes map[string]string) {
	e.NoteEvent(eventVolume, name, action, attributes)
}

// NoteEvent writes one line, at once and in append mode: no lock, and no two lines
// mixed.
func (e *Engine) NoteEvent(kind, id, action string, attributes map[string]string) {
	now := time.Now()
	line, err := lazyjson.Marshal(Event{kind, action, Actor{id, attributes}, "local", now.Unix(), now.UnixNano()})
	if err != nil {
		return
	}
	open := func() (*os.File, error) {
		return os.OpenFile(e.eventsFile(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	}
	f, err := open()
	if errors.Is(err, fs.ErrNotExist) && os.MkdirAll(e.Roots.Run, 0o711) == nil {
		f, err = open()
	}
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

package ui

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// A Progress shows long work: on a terminal one line a task, redrawn in place;
// elsewhere a line when a task ends. A nil Progress shows nothing, and so do
// its tasks.
type Progress struct {
	out   *os.File
	live  bool
	mu    sync.Mutex
	tasks []*Task
	drawn int
	stop  chan struct{}
	done  chan struct{}
}

// A Task is one line of a Progress.
type Task struct {
	p     *Progress
	name  string
	phase string
	now   int64
	total int64
	ended bool
}

// redrawEvery is the pace of the live view.
const redrawEvery = 100 * time.Millisecond

// Progress starts a display on standard error. Call Close when the work ends,
// also after an error.
func (o *Output) Progress() *Progress {
	p := &Progress{out: o.Err}
	if o.Err == nil {
		return nil
	}
	if p.live = IsTerminal(o.Err); p.live {
		p.stop, p.done = make(chan struct{}), make(chan struct{})
		go p.redraw()
	}
	return p
}

// IsTerminal reports whether f is a terminal.
func IsTerminal(f *os.File) bool { return f != nil && term.IsTerminal(int(f.Fd())) }

// Task adds a line: a short name and the total in bytes, 0 when unknown.
func (p *Progress) Task(name string, total int64) *Task {
	if p == nil {
		return nil
	}
	t := &Task{p: p, name: name, total: total}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tasks = append(p.tasks, t)
	return t
}

// Phase says what is being done, "Downloading" for example, and starts the
// count of bytes again with a new total, 0 when unknown.
func (t *Task) Phase(phase string, total int64) {
	if t == nil {
		return
	}
	t.p.mu.Lock()
	defer t.p.mu.Unlock()
	t.phase, t.now, t.total = phase, 0, total
}

// Add counts n bytes done.
func (t *Task) Add(n int64) {
	if t == nil {
		return
	}
	t.p.mu.Lock()
	defer t.p.mu.Unlock()
	t.now += n
}

// Write counts the bytes of b, so that a Task may stand in an io.MultiWriter.
func (t *Task) Write(b []byte) (int, error) {
	t.Add(int64(len(b)))
	return len(b), nil
}

// Done ends the task with a last word: "Pull complete".
func (t *Task) Done(word string) {
	if t == nil {
		return
	}
	t.p.mu.Lock()
	defer t.p.mu.Unlock()
	if t.ended {
		return
	}
	t.phase, t.ended = word, true
	if !t.p.live {
		fmt.Fprintf(t.p.out, "%s: %s\n", Escape(t.name), Escape(word))
	}
}

// Close draws the last state and ends the display.
func (p *Progress) Close() {
	if p == nil || !p.live {
		return
	}
	close(p.stop)
	<-p.done
	p.live = false
}

func (p *Progress) redraw() {
	defer close(p.done)
	tick := time.NewTicker(redrawEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			p.draw()
		case <-p.stop:
			p.draw()
			return
		}
	}
}

// draw writes the whole view with one write, so that it does not flicker.
func (p *Progress) draw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	width, height, err := term.GetSize(int(p.out.Fd()))
	if err != nil || width < 1 || height < 1 {
		width, height = 80, 24 // a terminal that was never told its size
	}
	var b bytes.Buffer
	if p.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", p.drawn)
	}
	shown := p.tasks
	if len(shown) >= height {
		shown = shown[len(shown)-height+1:]
	}
	for _, t := range shown {
		fmt.Fprintf(&b, "\x1b[2K%s\r\n", Ellipsis(t.line(), width-1))
	}
	p.drawn = len(shown)
	p.out.Write(b.Bytes())
}

func (t *Task) line() string {
	s := Escape(t.name) + ": " + Escape(t.phase)
	switch {
	case t.ended || t.now == 0:
		return s
	case t.total > 0:
		const cells = 30
		full := int(min(t.now, t.total) * cells / t.total)
		return fmt.Sprintf("%s [%s%s] %s/%s", s, strings.Repeat("=", full), strings.Repeat(" ", cells-full), Size(t.now), Size(t.total))
	}
	return s + " " + Size(t.now)
}

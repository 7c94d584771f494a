package build

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// A line is one step on the display.
type line struct {
	d      *display
	number int
	name   string
	// cached: the step was not done; layer: it wrote files; quiet: no need to
	// show it unless it takes time or fails.
	// stopped: another step failed first, or the user wanted no more.
	cached, layer, quiet, stopped bool

	began time.Time
	shown bool
	rest  []byte
	// tail are the last lines of output.
	tail []string
}

// start announces a step.
func (d *display) start(where, text string) *line {
	first, more, _ := strings.Cut(strings.TrimSpace(text), "\n")
	if more != "" {
		first += " …"
	}
	l := &line{d: d, name: fmt.Sprintf("[%s] %s", where, first), began: time.Now()}
	if d == nil {
		return l
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.count++
	l.number = d.count
	d.running = append(d.running, l)
	return l
}

// begin says that the work starts: until then the step may come from the cache.
func (l *line) begin() {
	l.began = time.Now()
	l.show()
}

func (l *line) show() {
	if l.d == nil || l.shown {
		return
	}
	l.shown = true
	switch l.d.mode {
	case progressPlain:
		l.d.note("#%d %s", l.number, l.name)
	case progressJSON:
		l.event("start", "")
	}
}

// maxTail is how much output is kept for the live view and for errors.
const maxTail = 12

// Write takes output of the step's command.
func (l *line) Write(b []byte) (int, error) {
	if l.d == nil {
		l.keep(b)
		return len(b), nil
	}
	l.d.mu.Lock()
	fresh := l.keep(b)
	l.d.mu.Unlock()
	for _, text := range fresh {
		switch l.d.mode {
		case progressPlain:
			l.d.note("#%d %.3f %s", l.number, time.Since(l.began).Seconds(), text)
		case progressJSON:
			l.event("log", text)
		}
	}
	return len(b), nil
}

// keep splits output into lines and remembers the last of them.
func (l *line) keep(b []byte) []string {
	const maxLine = 64 << 10
	l.rest = append(l.rest, b...)
	var fresh []string
	for {
		i := bytes.IndexByte(l.rest, '\n')
		if i < 0 && len(l.rest) < maxLine {
			break
		}
		if i < 0 {
			i = len(l.rest) - 1
		}
		text := strings.TrimSuffix(string(l.rest[:i]), "\r")
		// Of a progress bar that redraws itself only the last state is kept.
		text = text[strings.LastIndexByte(text, '\r')+1:]
		fresh = append(fresh, text)
		l.rest = l.rest[i+1:]
	}
	l.tail = append(l.tail, fresh...)
	l.tail = l.tail[max(0, len(l.tail)-maxTail):]
	return fresh
}

// end says how the step ended.
func (l *line) end(err error) {
	if len(l.rest) > 0 {
		l.Write([]byte("\n"))
	}
	if l.d == nil {
		return
	}
	if !l.quiet || err != nil || time.Since(l.began) > 100*time.Millisecond {
		l.show()
	}
	l.d.mu.Lock()
	defer l.d.mu.Unlock()
	for i, r := range l.d.running {
		if r == l {
			l.d.running = append(l.d.running[:i], l.d.running[i+1:]...)
			break
		}
	}
	if !l.shown {
		return
	}
	word := fmt.Sprintf("DONE %.1fs", time.Since(l.began).Seconds())
	switch {
	case l.stopped:
		word = "CANCELED"
	case err != nil:
		word = "ERROR"
	case l.cached:
		word = "CACHED"
	}
	switch l.d.mode {
	case progressPlain:
		l.d.note("#%d %s", l.number, word)
	case progressJSON:
		l.event(strings.ToLower(strings.Fields(word)[0]), "")
	case progressTTY:
		l.d.erase()
		l.d.note("%s", liveLine(l.name, word, l.d.width()))
		if err != nil && !l.stopped {
			for _, t := range l.tail {
				l.d.note("    %s", t)
			}
		}
		l.d.draw()
	}
}

func (l *line) event(what, text string) {
	data, err := json.Marshal(struct {
		ID    int       `json:"id"`
		Name  string    `json:"name"`
		Event string    `json:"event"`
		Text  string    `json:"text,omitempty"`
		Time  time.Time `json:"time"`
	}{l.number, l.name, what, text, time.Now().UTC()})
	if err == nil && l.d.out.Err != nil {
		fmt.Fprintf(l.d.out.Err, "%s\n", data)
	}
}

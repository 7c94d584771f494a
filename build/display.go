package build

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/kist-containers/kist/internal/ui"
)

// How a build shows what it does, docker's --progress.
const (
	progressAuto  = "auto"
	progressPlain = "plain"
	progressTTY   = "tty"
	progressJSON  = "json"
	progressQuiet = "quiet"
)

// A display shows the steps of a build on standard error. A nil display shows
// nothing.
type display struct {
	mode string
	out  *ui.Output
	mu   sync.Mutex
	// count numbers the lines, running are those that a live view redraws.
	count   int
	running []*line
	drawn   int
	stop    chan struct{}
	stopped chan struct{}
}

// A line is one step on the display.
type line struct {
	d      *display
	number int
	name   string
	// cached: the step was not done; layer: it wrote files; quiet: no need to
	// show it unless it takes time or fails.
	cached, layer, quiet bool

	began time.Time
	shown bool
	rest  []byte
	// tail are the last lines of output.
	tail []string
}

func newDisplay(mode string, out *ui.Output) *display {
	if mode == "" || mode == progressAuto {
		mode = progressPlain
		if ui.IsTerminal(out.Err) {
			mode = progressTTY
		}
	}
	if mode == "rawjson" {
		mode = progressJSON
	}
	d := &display{mode: mode, out: out}
	if d.mode == progressTTY && out.Err != nil {
		d.stop, d.stopped = make(chan struct{}), make(chan struct{})
		go d.redraw()
	}
	return d
}

// progress shows a pull, where nothing else redraws the terminal.
func (d *display) progress() *ui.Progress {
	if d == nil || d.mode != progressPlain {
		return nil
	}
	return d.out.Progress()
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
		if err != nil {
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

func (d *display) note(format string, a ...any) { d.out.Notef(format, a...) }

// Close draws the last state and ends the live view.
func (d *display) Close() {
	if d == nil || d.stop == nil {
		return
	}
	close(d.stop)
	<-d.stopped
	d.stop = nil
}

func (d *display) redraw() {
	defer close(d.stopped)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-d.stop:
			d.mu.Lock()
			d.erase()
			d.mu.Unlock()
			return
		}
		d.mu.Lock()
		d.erase()
		d.draw()
		d.mu.Unlock()
	}
}

func (d *display) width() int {
	if w, _, err := term.GetSize(int(d.out.Err.Fd())); err == nil && w > 20 {
		return w
	}
	return 80
}

// erase takes the running steps off the screen.
func (d *display) erase() {
	if d.drawn > 0 {
		fmt.Fprintf(d.out.Err, "\x1b[%dA\x1b[J", d.drawn)
	}
	d.drawn = 0
}

// liveTail is how many lines of output a running step shows.
const liveTail = 4

func (d *display) draw() {
	var b bytes.Buffer
	width := d.width()
	for _, l := range d.running {
		if l.quiet && time.Since(l.began) < 200*time.Millisecond || !l.shown && !l.quiet {
			continue
		}
		fmt.Fprintln(&b, ui.Escape(liveLine(l.name, fmt.Sprintf("%.1fs", time.Since(l.began).Seconds()), width)))
		d.drawn++
		for _, t := range l.tail[max(0, len(l.tail)-liveTail):] {
			fmt.Fprintln(&b, ui.Escape(ui.Ellipsis("    "+t, width-1)))
			d.drawn++
		}
	}
	d.out.Err.Write(b.Bytes())
}

// liveLine is a step with its time or result at the right edge.
func liveLine(name, word string, width int) string {
	room := width - len(word) - 6
	name = ui.Ellipsis(name, max(room, 10))
	return fmt.Sprintf(" => %s %s", name+strings.Repeat(" ", max(0, room-len([]rune(name)))), word)
}

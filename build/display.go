package build

import (
	"bytes"
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

func (d *display) note(format string, a ...any) { d.out.Notef(format, a...) }

// warn says what the user should know whatever comes of the build.
func (d *display) warn(format string, a ...any) {
	if d == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.erase()
	d.out.Warn(format, a...)
}

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

package container

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"
)

// An eventLog reads the events file and what is appended to it, across the moment
// when a full file makes place for a new one.
type eventLog struct {
	path string
	show func(*Event) error
	file *os.File
	in   *bufio.Reader
	rest string // of a line that is being written
}

// pollEvents is how often a reader looks for more.
const pollEvents = 50 * time.Millisecond

// read shows the events that are there, the oldest first.
func (l *eventLog) read() error {
	// The newer file first: were it replaced in between, it is the older one.
	if err := l.open(); err != nil {
		return err
	}
	old := eventLog{path: l.path + ".1", show: l.show}
	if err := old.open(); err != nil {
		return err
	}
	defer old.close()
	if old.file != nil && (l.file == nil || !sameFile(old.file, l.file)) {
		if err := old.drain(); err != nil {
			return err
		}
	}
	return l.drain()
}

// follow shows what comes, until the end time unless it is zero, or ctx ends.
func (l *eventLog) follow(ctx context.Context, until time.Time) error {
	for until.IsZero() || time.Now().Before(until) {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pollEvents):
		}
		replaced := l.replaced()
		if err := l.drain(); err != nil {
			return err
		}
		if replaced || l.file == nil {
			l.close()
			if err := l.open(); err != nil {
				return err
			}
		}
	}
	return l.drain()
}

func (l *eventLog) open() error {
	f, err := os.Open(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	l.file, l.in, l.rest = f, bufio.NewReader(f), ""
	return nil
}

func (l *eventLog) close() {
	if l.file != nil {
		l.file.Close()
		l.file = nil
	}
}

// replaced reports whether what is open is no longer written to.
func (l *eventLog) replaced() bool {
	if l.file == nil {
		return false
	}
	now, err := os.Open(l.path)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	defer now.Close()
	return !sameFile(now, l.file)
}

func sameFile(a, b *os.File) bool {
	infoA, errA := a.Stat()
	infoB, errB := b.Stat()
	return errA == nil && errB == nil && os.SameFile(infoA, infoB)
}

// drain shows the whole lines up to the end of the file.
func (l *eventLog) drain() error {
	for l.file != nil {
		text, err := l.in.ReadString('\n')
		l.rest += text
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		line := l.rest
		l.rest = ""
		ev := new(Event)
		if json.Unmarshal([]byte(line), ev) != nil {
			continue // a line that a full disk cut
		}
		if err := l.show(ev); err != nil {
			return err
		}
	}
	return nil
}

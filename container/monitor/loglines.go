package monitor

import (
	"bytes"
	"sync"
	"time"
)

// A line is one line of output, without its newline, or a part of a long one.
type line struct {
	stderr  bool
	time    time.Time
	text    []byte
	partial bool
}

// A sink takes lines, one after the other. An error is of that line alone.
type sink interface {
	send(l line) error
	close()
}

// lineLog cuts output into lines for a sink.
type lineLog struct {
	mu   sync.Mutex
	sink sink
	rest [2][]byte
}

func (l *lineLog) write(kind byte, t time.Time, data []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	rest := &l.rest[streamIndex(kind)]
	for len(data) > 0 {
		n := bytes.IndexByte(data, '\n')
		room := mostInEntry - len(*rest)
		switch {
		case n >= 0 && n <= room:
			l.sink.send(line{kind == kindStderr, t, append(*rest, data[:n]...), false})
			*rest, data = (*rest)[:0], data[n+1:]
		case len(data) > room:
			l.sink.send(line{kind == kindStderr, t, append(*rest, data[:room]...), true})
			*rest, data = (*rest)[:0], data[room:]
		default:
			*rest, data = append(*rest, data...), nil
		}
	}
}

func (l *lineLog) end(kind byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if rest := l.rest[streamIndex(kind)]; len(rest) > 0 {
		l.sink.send(line{kind == kindStderr, time.Now(), rest, false})
	}
	l.rest[streamIndex(kind)] = nil
}

func (l *lineLog) close() { l.sink.close() }

// both writes to two logs: a remote one, and the file that `kist logs` reads.
type both [2]logWriter

func (b both) write(kind byte, t time.Time, data []byte) {
	for _, l := range b {
		l.write(kind, t, data)
	}
}

func (b both) end(kind byte) {
	for _, l := range b {
		l.end(kind)
	}
}

func (b both) flush() {
	for _, l := range b {
		if q, ok := l.(*queuedLog); ok {
			q.flush()
		}
	}
}

func (b both) close() {
	for _, l := range b {
		l.close()
	}
}

// A queuedLog never holds up the container: what its log cannot take in time is
// dropped once more than most bytes wait. docker: mode=non-blocking.
type queuedLog struct {
	log  logWriter
	most int

	mu     sync.Mutex
	more   *sync.Cond
	queue  []queued
	bytes  int
	closed bool
	// writing says that an entry is on its way.
	writing bool
	done    chan struct{}
}

type queued struct {
	kind byte
	time time.Time
	data []byte // nil is the stream's end
}

func newQueuedLog(log logWriter, most int) *queuedLog {
	q := &queuedLog{log: log, most: most, done: make(chan struct{})}
	q.more = sync.NewCond(&q.mu)
	go q.run()
	return q
}

func (q *queuedLog) write(kind byte, t time.Time, data []byte) {
	q.put(queued{kind, t, append(make([]byte, 0, len(data)), data...)})
}

func (q *queuedLog) end(kind byte) { q.put(queued{kind: kind}) }

func (q *queuedLog) put(e queued) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if e.data != nil && q.bytes+len(e.data) > q.most {
		return
	}
	q.queue = append(q.queue, e)
	q.bytes += len(e.data)
	q.more.Signal()
}

func (q *queuedLog) run() {
	defer close(q.done)
	for {
		q.mu.Lock()
		q.writing = false
		for len(q.queue) == 0 && !q.closed {
			q.more.Wait()
		}
		if len(q.queue) == 0 {
			q.mu.Unlock()
			return
		}
		e := q.queue[0]
		q.queue = q.queue[1:]
		q.bytes -= len(e.data)
		q.writing = true
		q.mu.Unlock()
		if e.data == nil {
			q.log.end(e.kind)
		} else {
			q.log.write(e.kind, e.time, e.data)
		}
	}
}

// queuePatience is how long the container's end waits for a log that takes nothing.
const queuePatience = time.Second

// flush waits until all is written that was queued, up to queuePatience.
func (q *queuedLog) flush() {
	for deadline := time.Now().Add(queuePatience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		q.mu.Lock()
		idle := len(q.queue) == 0 && !q.writing
		q.mu.Unlock()
		if idle {
			return
		}
	}
}

// close waits for what is queued, but not for a log that takes nothing.
func (q *queuedLog) close() {
	q.mu.Lock()
	q.closed = true
	q.more.Signal()
	q.mu.Unlock()
	select {
	case <-q.done:
	case <-time.After(queuePatience):
	}
	q.log.close()
}

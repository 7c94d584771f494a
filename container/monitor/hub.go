package monitor

import (
	"io"
	"os"
	goruntime "runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A hub takes what the container prints to its log and to the clients that look
// on. Of one stream every byte goes through once and in order: one goroutine
// reads it, and writes it to all before it reads on.
type hub struct {
	log  logWriter
	exit int

	mu      sync.Mutex
	clients map[*client]bool
	stdin   *os.File // the container's standard input, or the terminal
	console *os.File
	closers []io.Closer
	reading sync.WaitGroup
}

// streams are the ends of the container's pipes: theirs go to its first process.
type streams struct {
	theirs  [3]*os.File
	ours    [3]*os.File
	console *os.File
}

func newHub(log logWriter) *hub { return &hub{log: log, clients: map[*client]bool{}} }

// newStreams makes the pipes; a terminal brings its own.
func newStreams(terminal, stdin bool) (*streams, error) {
	s := &streams{}
	if terminal {
		return s, nil
	}
	for fd := range 3 {
		if fd == 0 && !stdin {
			continue
		}
		r, w, err := os.Pipe()
		if err != nil {
			s.closeTheirs()
			s.closeOurs()
			return nil, err
		}
		if fd == 0 {
			s.theirs[fd], s.ours[fd] = r, w
		} else {
			s.theirs[fd], s.ours[fd] = w, r
		}
	}
	return s, nil
}

func (s *streams) closeTheirs() { closeAll(s.theirs[:]) }
func (s *streams) closeOurs()   { closeAll(append(s.ours[:], s.console)) }

func closeAll(files []*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}

// open begins to read what the container prints.
func (h *hub) open(s *streams) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closers = nil
	if s.console != nil {
		console := pollable(s.console)
		h.console, h.stdin = console, console
		h.read(kindStdout, console)
		return
	}
	h.console, h.stdin = nil, s.ours[0]
	h.read(kindStderr, s.ours[2])
	h.read(kindStdout, s.ours[1])
}

func (h *hub) read(kind byte, f *os.File) {
	h.closers = append(h.closers, f)
	h.reading.Go(func() { h.copy(kind, f) })
}

// pollable lets the reads of f, which it closes, wait without a thread.
func pollable(f *os.File) *os.File {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return f
	}
	if unix.SetNonblock(fd, true) != nil {
		unix.Close(fd)
		return f
	}
	f.Close()
	return os.NewFile(uintptr(fd), f.Name())
}

// readSize is how much of a stream is taken at once; a packet to a client holds
// it whole.
const readSize = 32 << 10

// copy reads a stream to its end: EOF of a pipe, EIO of a terminal whose last
// slave was closed.
func (h *hub) copy(kind byte, f *os.File) {
	buf := make([]byte, 1+readSize)
	buf[0] = kind
	for {
		n, err := f.Read(buf[1:])
		if kind == kindStderr {
			// What came on both while nobody looked has no order. A program says
			// what it does before it says what went wrong.
			goruntime.Gosched()
		}
		if n > 0 {
			h.output(kind, buf[:1+n])
		}
		if err != nil {
			break
		}
	}
	h.log.end(kind)
}

// output takes one packet everywhere. Clients that joined later only get it into
// their queue; the one that started the container is waited for, as a pipe's
// reader is.
func (h *hub) output(kind byte, packet []byte) {
	h.log.write(kind, time.Now(), packet[1:])
	var waitFor []*client
	h.mu.Lock()
	for c := range h.clients {
		if c.primary {
			waitFor = append(waitFor, c)
		} else if !c.enqueue(packet) {
			delete(h.clients, c)
		}
	}
	h.mu.Unlock()
	for _, c := range waitFor {
		if !c.send(packet) {
			h.leave(c)
		}
	}
}

func (h *hub) join(c *client) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clients[c] = true
}

func (h *hub) leave(c *client) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.clients, c)
}

// input passes what a client typed to the container. It is lost when the
// container does not take input.
func (h *hub) input(data []byte) {
	h.mu.Lock()
	stdin := h.stdin
	h.mu.Unlock()
	if stdin != nil {
		stdin.Write(data)
	}
}

// endInput closes the container's standard input. A terminal has no end of its
// own: there the line discipline's end-of-file character stands for it.
func (h *hub) endInput() {
	h.mu.Lock()
	stdin, terminal := h.stdin, h.console != nil
	if !terminal {
		h.stdin = nil
	}
	h.mu.Unlock()
	switch {
	case stdin == nil:
	case terminal:
		const endOfTransmission = 4
		stdin.Write([]byte{endOfTransmission})
	default:
		stdin.Close()
	}
}

func (h *hub) resize(rows, cols uint16) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.console != nil {
		control(h.console, func(fd int) {
			unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
		})
	}
}

// control calls f with the descriptor without taking it out of polling, as Fd would.
func control(file *os.File, f func(fd int)) {
	if raw, err := file.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { f(int(fd)) })
	}
}

// drain waits until all output was read: nobody holds the pipes any more.
func (h *hub) drain() {
	h.reading.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stdin != nil && h.console == nil {
		h.stdin.Close()
	}
	h.stdin, h.console = nil, nil
	for _, c := range h.closers {
		c.Close()
	}
	h.closers = nil
}

// finish tells every client the exit code and closes the log.
func (h *hub) finish() {
	h.mu.Lock()
	clients := h.clients
	h.clients = map[*client]bool{}
	h.mu.Unlock()
	for c := range clients {
		c.end(h.exit)
	}
	h.log.close()
}

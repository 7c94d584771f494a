package monitor

import (
	"net"
	"os"
	"slices"
	"time"

	"github.com/kist-containers/kist/internal/reexec"
	"github.com/kist-containers/kist/internal/sys"
)

// settledArg tells a monitor that its container runs already.
const settledArg = "settled"

// settled is what a monitor tells itself over execve(2).
type settled struct {
	Init     sys.Process `json:"init"`
	Began    time.Time   `json:"began"`
	Restarts int         `json:"restarts,omitempty"`
	InRow    int         `json:"inRow,omitempty"`
	// Sockets is how many of the files are those of Hooks.Listen.
	Sockets int `json:"sockets,omitempty"`
}

// settledEnv is for a process that mostly waits, beside a thousand others: one
// thread that runs Go code. The bound on the heap is above what an idle monitor
// ever allocates, as the first collection alone costs 200 KiB of the collector's
// own memory.
var settledEnv = []string{"GOMAXPROCS=1", "GOGC=50"}

// settle begins the program anew in this process, which keeps its number, its
// child and its mount namespace: what starting a container took of memory, more
// than half of all, is given back. It happens before the output is read, so there
// is nothing to lose, and not while clients are connected. It returns when it
// cannot be done; the monitor then goes on as it is.
func (m *monitor) settle() {
	// A probe in flight has a child that only its goroutine waits for; unreaped it
	// would hold up the end of the container's pid namespace.
	if m.sock.busy() || m.notify != nil || !m.probing.TryLock() {
		return
	}
	defer m.probing.Unlock()
	// What waits to be written of an earlier run would be lost.
	if log, ok := m.hub.log.(interface{ flush() }); ok {
		log.flush()
	}
	listener, err := m.sock.listener.File()
	if err != nil {
		return
	}
	defer listener.Close()
	o := order{Spec: m.Spec, Settled: &settled{m.init, m.began, m.restarts, m.inRow, len(m.sockets)}}
	reexec.Become([]string{Role, settledArg}, settledEnv, o, slices.Concat(m.streams.files(), m.sockets, []*os.File{listener})...)
}

// resume is the other side of settle: files are the streams', the sockets of the
// network and the listener.
func (m *monitor) resume(s *settled, files []*os.File) int {
	m.init, m.began, m.restarts, m.inRow = s.Init, s.Began, s.Restarts, s.InRow
	last := len(files) - 1
	l, err := net.FileListener(files[last])
	files[last].Close()
	if err != nil {
		return 1
	}
	m.sock = newServer(m, l.(*net.UnixListener))
	first := last - s.Sockets
	m.sockets = files[first:last]
	m.streams = adoptStreams(files[:first], m.Terminal, m.OpenStdin)
	log, err := openLog(m.Log)
	if err != nil {
		// It was open a moment ago. The container is worth more than its log.
		log = noLog{}
	}
	m.hub = newHub(log)
	// Beside a thousand others each page counts. An error leaves it as it is.
	time.AfterFunc(time.Second, func() { sys.ForgetFiles() })
	return m.supervise()
}

// files are our ends, in an order that adoptStreams knows.
func (s *streams) files() []*os.File {
	var files []*os.File
	for _, f := range append(s.ours[:], s.console) {
		if f != nil {
			files = append(files, f)
		}
	}
	return files
}

func adoptStreams(files []*os.File, terminal, stdin bool) *streams {
	s := &streams{}
	for i, f := range files {
		files[i] = pollable(f)
	}
	switch {
	case terminal:
		s.console = files[0]
	case stdin:
		copy(s.ours[:], files)
	default:
		copy(s.ours[1:], files)
	}
	return s
}

package monitor

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// startWatch asks for word of changes in the log's directory; see inotify(7).
func (r *logReader) startWatch() error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return os.NewSyscallError("inotify_init1", err)
	}
	r.watch = os.NewFile(uintptr(fd), "inotify")
	const mask = unix.IN_MODIFY | unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_DELETE_SELF
	if _, err := unix.InotifyAddWatch(fd, filepath.Dir(r.path), mask); err != nil {
		return os.NewSyscallError("inotify_add_watch", err)
	}
	return nil
}

// look is how often a reader that waits asks whether the container still runs.
const look = 100 * time.Millisecond

// follow shows what is added until the container has ended and all is read.
func (r *logReader) follow(ctx context.Context) error {
	events := make([]byte, 4096)
	for !r.done {
		// Asked before the read: what a container wrote before its end is in the
		// file when the end shows.
		alive := r.o.Alive == nil || r.o.Alive()
		more, err := r.advance()
		if err != nil {
			return err
		}
		if err := r.flush(); err != nil {
			return nil // our reader went away
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case more:
			continue
		case !alive:
			r.showRest(r.files[len(r.files)-1])
			return nil
		}
		if !r.o.Until.IsZero() && time.Now().After(r.o.Until) {
			return nil
		}
		r.watch.SetReadDeadline(time.Now().Add(look))
		r.watch.Read(events)
	}
	return nil
}

// advance reads the current file to its end, then goes to the next if it was
// rotated away, and reports whether it did.
func (r *logReader) advance() (bool, error) {
	current := r.files[len(r.files)-1]
	next := r.successor(current)
	if err := r.drain(current); err != nil {
		return false, err
	}
	if next == "" {
		return false, nil
	}
	f, err := os.Open(next)
	if err != nil {
		return false, nil // rotated again meanwhile: look again
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return false, err
	}
	r.showRest(current)
	current.f.Close()
	r.files = []*logFile{{f: f, info: info, gzip: strings.HasSuffix(next, ".gz")}}
	return true, nil
}

// successor is the file written after f, or "" while f is the current one. It is
// looked up before f is read to its end, so that nothing written to f meanwhile
// is missed.
func (r *logReader) successor(f *logFile) string {
	names, err := r.numbers()
	if err != nil {
		return ""
	}
	for i, name := range names {
		if info, err := os.Stat(name); err == nil && os.SameFile(info, f.info) {
			if i == 0 {
				return ""
			}
			return names[i-1]
		}
	}
	// Rotated out, or compressed: go on with what follows it.
	if len(names) > 1 && f.info.Size() >= 0 {
		return names[0]
	}
	if _, err := os.Stat(r.path); err == nil {
		return r.path
	}
	return ""
}

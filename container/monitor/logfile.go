package monitor

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/kist-containers/kist/internal/state"
)

// mostInEntry is where docker splits a line into several entries.
const mostInEntry = 16 << 10

// jsonLog writes docker's json-file format.
type jsonLog struct {
	logLimits
	path  string
	attrs []byte

	mu      sync.Mutex
	f       *os.File
	size    int64
	out     []byte
	partial [2][]byte // of stdout and stderr: a line that has no end yet
}

func (j *jsonLog) open() error {
	f, err := os.OpenFile(j.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	j.f, j.size = f, st.Size()
	return nil
}

func streamIndex(kind byte) int {
	if kind == kindStderr {
		return 1
	}
	return 0
}

// write splits data into lines, one entry each. Lines of one call go to the file
// with one system call.
func (j *jsonLog) write(kind byte, t time.Time, data []byte) {
	j.mu.Lock()
	defer j.mu.Unlock()
	var stamp [40]byte
	when := t.UTC().AppendFormat(stamp[:0], time.RFC3339Nano)
	rest := &j.partial[streamIndex(kind)]
	for len(data) > 0 {
		n := bytes.IndexByte(data, '\n') + 1
		whole := n > 0
		if !whole {
			n = len(data)
		}
		n = min(n, mostInEntry-len(*rest))
		line := data[:n]
		data = data[n:]
		if len(*rest) > 0 {
			*rest = append(*rest, line...)
			line = *rest
		}
		if line[len(line)-1] == '\n' || len(line) == mostInEntry {
			j.entry(kind, when, line)
			*rest = nil
		} else if len(*rest) == 0 {
			*rest = append(*rest, line...)
		}
	}
	j.flush()
}

func (j *jsonLog) end(kind byte) {
	j.mu.Lock()
	defer j.mu.Unlock()
	rest := &j.partial[streamIndex(kind)]
	if len(*rest) > 0 {
		j.entry(kind, time.Now().UTC().AppendFormat(nil, time.RFC3339Nano), *rest)
		*rest = nil
	}
	j.flush()
	j.out = nil
}

var streamNames = map[byte]string{kindStdout: "stdout", kindStderr: "stderr"}

// entry appends one entry to what is to be written.
func (j *jsonLog) entry(kind byte, when, line []byte) {
	if j.maxSize > 0 && j.size+int64(len(j.out)) >= j.maxSize {
		j.flush()
		j.rotate()
	}
	j.out = append(j.out, `{"log":"`...)
	j.out = appendEscaped(j.out, line)
	j.out = append(j.out, `","stream":"`...)
	j.out = append(j.out, streamNames[kind]...)
	j.out = append(j.out, '"')
	j.out = append(j.out, j.attrs...)
	j.out = append(j.out, `,"time":"`...)
	j.out = append(j.out, when...)
	j.out = append(j.out, "\"}\n"...)
}

// flush writes what is pending. A full disk costs log entries, not the container.
func (j *jsonLog) flush() {
	if len(j.out) == 0 || j.f == nil {
		return
	}
	n, _ := j.f.Write(j.out)
	j.size += int64(n)
	const most = 256 << 10
	if j.out = j.out[:0]; cap(j.out) > most {
		j.out = nil
	}
}

// rotate makes path path.1, and so on; the oldest goes.
func (j *jsonLog) rotate() {
	j.f.Close()
	if j.maxFile == 1 {
		os.Remove(j.path)
	}
	for n := j.maxFile - 1; n > 0; n-- {
		from, to := numbered(j.path, n-1), numbered(j.path, n)
		if os.Rename(from+".gz", to+".gz") == nil && n > 1 {
			continue
		}
		os.Rename(from, to)
	}
	if j.compress && j.maxFile > 1 {
		compressFile(numbered(j.path, 1))
	}
	if j.open() != nil {
		j.f = nil
	}
}

func numbered(path string, n int) string {
	if n == 0 {
		return path
	}
	return path + "." + strconv.Itoa(n)
}

// compressFile replaces a file by its gzip. A reader that has it open goes on.
func compressFile(path string) {
	in, err := os.Open(path)
	if err != nil {
		return
	}
	defer in.Close()
	err = state.WriteFileFrom(path+".gz", 0o640, func(w io.Writer) error {
		z := gzip.NewWriter(w)
		if _, err := io.Copy(z, in); err != nil {
			return err
		}
		return z.Close()
	})
	if err == nil {
		os.Remove(path)
	}
}

func (j *jsonLog) close() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.flush()
	if j.f != nil {
		j.f.Close()
		j.f = nil
	}
}

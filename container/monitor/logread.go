package monitor

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"
)

// ErrNoLogs is returned for a driver that cannot be read.
var ErrNoLogs = errors.New("configured logging driver does not support reading")

// ReadOptions choose entries and how they are shown.
type ReadOptions struct {
	// Follow goes on until the container has ended.
	Follow bool
	// Since and Until bound the entries' times; zero is no bound.
	Since, Until time.Time
	// Tail is how many of the last entries are shown; -1 for all.
	Tail int
	// Timestamps puts the time before each entry, Details the attributes.
	Timestamps, Details bool
	// Alive reports whether the container runs; used with Follow.
	Alive func() bool
}

// ReadLogs writes a container's log, in the order in which it was written,
// across rotation without a gap.
func ReadLogs(ctx context.Context, c LogConfig, o ReadOptions, stdout, stderr io.Writer) error {
	if c.Uncached() {
		return ErrNoLogs
	}
	r := &logReader{o: o, path: c.Path, out: bufio.NewWriterSize(stdout, 64<<10)}
	r.err = r.out
	if stderr != stdout {
		r.err = bufio.NewWriterSize(stderr, 64<<10)
	}
	defer r.close()
	err := r.read(ctx)
	return errors.Join(err, r.flush())
}

type logReader struct {
	o        ReadOptions
	path     string
	out, err *bufio.Writer
	files    []*logFile // oldest first
	last     *bufio.Writer
	done     bool
	e        entry
	watch    *os.File
}

// logFile is one open file of the log.
type logFile struct {
	f    *os.File
	info os.FileInfo
	gzip bool
	rest []byte // an entry that is not complete yet
}

func (r *logReader) close() {
	for _, f := range r.files {
		f.f.Close()
	}
	if r.watch != nil {
		r.watch.Close()
	}
}

func (r *logReader) flush() error { return errors.Join(r.out.Flush(), r.err.Flush()) }

func (r *logReader) read(ctx context.Context) error {
	if r.o.Follow {
		if err := r.startWatch(); err != nil {
			return err
		}
	}
	if err := r.openAll(); err != nil || len(r.files) == 0 {
		return err
	}
	if err := r.seekTail(); err != nil {
		return err
	}
	for i, f := range r.files {
		if ctx.Err() != nil || r.done {
			return ctx.Err()
		}
		if err := r.drain(f); err != nil {
			return err
		}
		if i < len(r.files)-1 {
			r.showRest(f)
		}
	}
	if !r.o.Follow || r.done {
		r.showRest(r.files[len(r.files)-1])
		return nil
	}
	return r.follow(ctx)
}

// showRest shows an entry that no newline ended: a writer was killed in it.
func (r *logReader) showRest(f *logFile) {
	if len(f.rest) > 0 {
		r.show(f.rest)
		f.rest = nil
	}
}

// openAll opens the current file first: a rotation meanwhile only makes one of
// the older ones the same file again.
func (r *logReader) openAll() error {
	numbers, err := r.numbers()
	if err != nil {
		return err
	}
	for _, name := range numbers {
		f, err := os.Open(name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		info, err := f.Stat()
		if err != nil || r.has(info) {
			f.Close()
			continue
		}
		r.files = append([]*logFile{{f: f, info: info, gzip: strings.HasSuffix(name, ".gz")}}, r.files...)
	}
	return nil
}

func (r *logReader) has(info os.FileInfo) bool {
	for _, f := range r.files {
		if os.SameFile(f.info, info) {
			return true
		}
	}
	return false
}

// numbers lists the files of the log, newest first.
func (r *logReader) numbers() ([]string, error) {
	older, err := filepath.Glob(globEscape(r.path) + ".*")
	if err != nil {
		return nil, err
	}
	sort.Slice(older, func(i, j int) bool {
		a, b := strings.TrimSuffix(older[i], ".gz"), strings.TrimSuffix(older[j], ".gz")
		return len(a) < len(b) || len(a) == len(b) && a < b
	})
	return append([]string{r.path}, older...), nil
}

func globEscape(s string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(s)
}

// drain shows what a file holds by now, entry by entry.
func (r *logReader) drain(f *logFile) error {
	var in io.Reader = f.f
	if f.gzip {
		z, err := gzip.NewReader(f.f)
		if err != nil {
			return err
		}
		defer z.Close()
		in = z
	}
	buf := make([]byte, 256<<10)
	for !r.done {
		n, err := in.Read(buf)
		data := buf[:n]
		for len(data) > 0 && !r.done {
			i := bytes.IndexByte(data, '\n')
			if i < 0 {
				f.rest = append(f.rest, data...)
				break
			}
			line := data[:i]
			if len(f.rest) > 0 {
				line = append(f.rest, line...)
				f.rest = f.rest[:0]
			}
			r.show(line)
			data = data[i+1:]
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// show writes an entry if it is wanted.
func (r *logReader) show(line []byte) {
	e := &r.e
	if len(line) == 0 || e.parse(line) != nil {
		return
	}
	if !r.o.Since.IsZero() && e.time.Before(r.o.Since) {
		return
	}
	if !r.o.Until.IsZero() && e.time.After(r.o.Until) {
		r.done = true
		return
	}
	w := r.out
	if e.stderr {
		w = r.err
	}
	// Two streams on one terminal keep their order.
	if r.last != w && r.last != nil {
		r.last.Flush()
	}
	r.last = w
	if r.o.Timestamps {
		var b [40]byte
		w.Write(append(e.time.AppendFormat(b[:0], "2006-01-02T15:04:05.000000000Z07:00"), ' '))
	}
	if r.o.Details {
		w.WriteString(details(e.attrs))
	}
	if _, err := w.Write(e.text); err != nil {
		r.done = true
	}
}

// details are docker's: sorted, with commas, and a blank behind.
func details(attrs map[string]string) string {
	if len(attrs) == 0 {
		return " "
	}
	var pairs []string
	for k, v := range attrs {
		pairs = append(pairs, k+"="+v)
	}
	sort.Strings(pairs)
	return strings.Join(pairs, ",") + " "
}

// seekTail moves the files to where the last Tail entries begin.
func (r *logReader) seekTail() error {
	if r.o.Tail < 0 {
		return nil
	}
	left := r.o.Tail
	for i := len(r.files) - 1; i >= 0; i-- {
		if left <= 0 && i < len(r.files)-1 {
			for _, f := range r.files[:i+1] {
				f.f.Close()
			}
			r.files = r.files[i+1:]
			return nil
		}
		if r.files[i].gzip {
			return nil // read from its start: more than asked for is cut by nobody
		}
		n, err := seekBack(r.files[i].f, left)
		if err != nil {
			return err
		}
		left -= n
	}
	return nil
}

// seekBack places f before its last n lines and returns how many there are.
func seekBack(f *os.File, n int) (found int, err error) {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil || n == 0 {
		return 0, err
	}
	buf := make([]byte, 64<<10)
	for pos := end; pos > 0; {
		size := min(int64(len(buf)), pos)
		pos -= size
		if _, err := f.ReadAt(buf[:size], pos); err != nil {
			return 0, err
		}
		for i := size - 1; i >= 0; i-- {
			if buf[i] != '\n' || pos+i+1 == end {
				continue
			}
			if found++; found == n {
				_, err := f.Seek(pos+i+1, io.SeekStart)
				return n, err
			}
		}
	}
	_, err = f.Seek(0, io.SeekStart)
	if end > 0 {
		found++
	}
	return found, err
}

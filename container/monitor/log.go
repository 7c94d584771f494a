package monitor

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	units "github.com/docker/go-units"

	"github.com/kist-containers/kist/internal/state"
)

// A logWriter keeps what the container prints. write is called by one goroutine
// per stream; end when the stream is at its end.
type logWriter interface {
	write(kind byte, t time.Time, data []byte)
	end(kind byte)
	close()
}

// Log drivers and their defaults.
const (
	driverJSON     = "json-file"
	driverLocal    = "local"
	driverJournald = "journald"
	driverSyslog   = "syslog"
	driverNone     = "none"

	// DefaultMaxSize and DefaultMaxFile bound a log unless the user says
	// otherwise: docker's own default of no bound fills disks.
	DefaultMaxSize = 10_000_000
	DefaultMaxFile = 3
)

// CheckLog reports whether a log configuration can be used.
func CheckLog(c LogConfig) error {
	if !slices.Contains(Drivers(), c.Driver) && c.Driver != "" {
		return fmt.Errorf("--log-driver %s: no such driver (there are %s)", c.Driver, strings.Join(Drivers(), ", "))
	}
	for key := range c.Options {
		if !slices.Contains(optionsOf(c.Driver), key) {
			return fmt.Errorf("--log-opt %s: no such option of this driver", key)
		}
	}
	if _, err := limitsOf(c.Options); err != nil {
		return err
	}
	if c.Driver == driverSyslog {
		_, err := newSyslog(c)
		return err
	}
	return nil
}

// Drivers are the log drivers.
func Drivers() []string {
	return []string{driverJSON, driverLocal, driverJournald, driverSyslog, driverNone}
}

var (
	commonOptions = [...]string{"labels", "labels-regex", "env", "env-regex", "tag", "mode", "max-buffer-size"}
	fileOptions   = [...]string{"max-size", "max-file", "compress"}
	cacheOptions  = [...]string{"cache-disabled", "cache-max-size", "cache-max-file", "cache-compress"}
	syslogOptions = [...]string{"syslog-address", "syslog-facility", "syslog-format", "syslog-tls-ca-cert", "syslog-tls-cert",
		"syslog-tls-key", "syslog-tls-skip-verify"}
)

func optionsOf(driver string) []string {
	switch driver {
	case driverNone:
		return commonOptions[:]
	case driverJournald:
		return slices.Concat(commonOptions[:], cacheOptions[:])
	case driverSyslog:
		return slices.Concat(commonOptions[:], cacheOptions[:], syslogOptions[:])
	}
	return slices.Concat(commonOptions[:], fileOptions[:])
}

func openLog(c LogConfig) (logWriter, error) {
	l, err := limitsOf(c.Options)
	if err != nil {
		return nil, err
	}
	remote, err := openRemote(c)
	switch {
	case err != nil:
		return nil, err
	case c.Driver == driverNone:
		return noLog{}, nil
	case remote == nil:
		return openFile(c, l)
	}
	var log logWriter = &lineLog{sink: remote}
	if c.Options["mode"] == nonBlocking {
		log = newQueuedLog(log, l.maxBuffer)
	}
	if c.Uncached() {
		return log, nil
	}
	// The file that `kist logs` reads has every line, whatever becomes of those
	// that a server does not take; docker calls that dual logging.
	file := &jsonLog{path: c.Path, logLimits: l, attrs: attrsJSON(c.Attrs)}
	return both{log, file}, file.open()
}

const nonBlocking = "non-blocking"

// openFile opens a log that is kept here.
func openFile(c LogConfig, l logLimits) (logWriter, error) {
	j := &jsonLog{path: c.Path, logLimits: l, attrs: attrsJSON(c.Attrs)}
	if err := j.open(); err != nil || c.Options["mode"] != nonBlocking {
		return j, err
	}
	return newQueuedLog(j, l.maxBuffer), nil
}

// openRemote opens a log that is kept elsewhere, nil for one that is not.
func openRemote(c LogConfig) (sink, error) {
	switch c.Driver {
	case driverJournald:
		return openJournal(c)
	case driverSyslog:
		return openSyslog(c)
	}
	return nil, nil
}

// Uncached reports whether nothing is kept that `kist logs` could read.
func (c LogConfig) Uncached() bool {
	off, _ := strconv.ParseBool(c.Options["cache-disabled"])
	return c.Driver == driverNone || off
}

type noLog struct{}

func (noLog) write(byte, time.Time, []byte) {}
func (noLog) end(byte)                      {}
func (noLog) close()                        {}

type logLimits struct {
	maxSize  int64 // bytes; -1 is no bound
	maxFile  int   // files, the current one included
	compress bool
	// maxBuffer is how many bytes wait in mode non-blocking.
	maxBuffer int
}

func limitsOf(options map[string]string) (logLimits, error) {
	l := logLimits{maxSize: DefaultMaxSize, maxFile: DefaultMaxFile, maxBuffer: 1 << 20}
	for key, value := range options {
		var err error
		switch strings.TrimPrefix(key, "cache-") {
		case "max-size":
			if value == "-1" {
				l.maxSize = -1
			} else if l.maxSize, err = units.FromHumanSize(value); err == nil && l.maxSize <= 0 {
				err = errors.New("want a size such as 10m, or -1")
			}
		case "max-file":
			if l.maxFile, err = strconv.Atoi(value); err == nil && l.maxFile < 1 {
				err = errors.New("want at least 1")
			}
		case "compress":
			l.compress, err = strconv.ParseBool(value)
		case "disabled", "syslog-tls-skip-verify":
			_, err = strconv.ParseBool(value)
		case "mode":
			if value != "blocking" && value != nonBlocking {
				err = errors.New("want blocking or non-blocking")
			}
		case "max-buffer-size":
			var n int64
			if n, err = units.RAMInBytes(value); err == nil && (n <= 0 || n > 1<<30) {
				err = errors.New("want a size such as 4m")
			}
			l.maxBuffer = int(n)
		}
		if err != nil {
			return l, fmt.Errorf("--log-opt %s=%s: %w", key, value, err)
		}
	}
	return l, nil
}

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

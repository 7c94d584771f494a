package monitor

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	units "github.com/docker/go-units"
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

func (noLog) end(byte) {}

func (noLog) close() {}

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

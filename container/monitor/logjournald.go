package monitor

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"
	"unicode"
)

// journalSocket is where journald listens; see systemd's JOURNAL_NATIVE_PROTOCOL.
const journalSocket = "/run/systemd/journal/socket"

// journal sends each line as an entry with docker's fields.
type journal struct {
	conn *net.UnixConn
	// fields are the same for every entry.
	fields []byte
	buf    []byte
	// stuck is when it last took nothing for remoteWait.
	stuck time.Time
}

func openJournal(c LogConfig) (sink, error) {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: journalSocket, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("--log-driver journald: no journald listens on %s", journalSocket)
	}
	j := &journal{conn: conn}
	for _, f := range [][2]string{
		{"CONTAINER_ID", shortID(c.ID)}, {"CONTAINER_ID_FULL", c.ID}, {"CONTAINER_NAME", c.Name},
		{"CONTAINER_TAG", c.Tag}, {"IMAGE_NAME", c.Image}, {"SYSLOG_IDENTIFIER", c.Tag},
	} {
		j.fields = appendField(j.fields, f[0], []byte(f[1]))
	}
	for k, v := range c.Attrs {
		if name := fieldName(k); name != "" && k != "tag" {
			j.fields = appendField(j.fields, name, []byte(v))
		}
	}
	return j, nil
}

func shortID(id string) string { return id[:min(12, len(id))] }

// fieldName makes a valid field's name: capitals, digits, underscores, no
// underscore in front.
func fieldName(key string) string {
	name := strings.Map(func(r rune) rune {
		switch r = unicode.ToUpper(r); {
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, key)
	return strings.TrimLeft(name, "_0123456789")
}

// appendField writes NAME=value, or a value with newlines by its length.
func appendField(b []byte, name string, value []byte) []byte {
	b = append(b, name...)
	if strings.IndexByte(string(value), '\n') < 0 {
		b = append(append(b, '='), value...)
	} else {
		b = binary.LittleEndian.AppendUint64(append(b, '\n'), uint64(len(value)))
		b = append(b, value...)
	}
	return append(b, '\n')
}

func (j *journal) send(l line) error {
	priority := "6" // informational
	if l.stderr {
		priority = "3" // error
	}
	b := append(j.buf[:0], j.fields...)
	b = appendField(b, "PRIORITY", []byte(priority))
	b = appendField(b, "SYSLOG_TIMESTAMP", []byte(l.time.UTC().Format("2006-01-02T15:04:05.000000000Z")))
	if l.partial {
		b = appendField(b, "CONTAINER_PARTIAL_MESSAGE", []byte("true"))
	}
	b = appendField(b, "MESSAGE", l.text)
	j.buf = b
	if time.Since(j.stuck) < remotePause {
		return errors.New("journald: takes nothing")
	}
	j.conn.SetWriteDeadline(time.Now().Add(remoteWait))
	_, err := j.conn.Write(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		j.stuck = time.Now()
	}
	return os.NewSyscallError("journald", err)
}

func (j *journal) close() { j.conn.Close() }

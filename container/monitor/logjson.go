package monitor

import (
	"encoding/json"
	"errors"
	"strconv"
	"time"
	"unicode/utf8"
)

const hexDigits = "0123456789abcdef"

// plainByte are the bytes that stand for themselves in a JSON string. Bytes from
// 0x80 up do too, valid UTF-8 or not: what a container printed is kept byte for
// byte, and readers that insist on UTF-8 replace the odd ones as docker does.
var plainByte = func() (t [256]bool) {
	for i := range t {
		t[i] = i >= 0x20 && i != '"' && i != '\\' && i != '<' && i != '>' && i != '&'
	}
	return t
}()

// appendEscaped appends s as the inside of a JSON string, escaped as docker does.
func appendEscaped(out, s []byte) []byte {
	start := 0
	for i, b := range s {
		if plainByte[b] {
			continue
		}
		out = append(out, s[start:i]...)
		start = i + 1
		switch b {
		case '"', '\\':
			out = append(out, '\\', b)
		case '\n':
			out = append(out, '\\', 'n')
		case '\r':
			out = append(out, '\\', 'r')
		case '\t':
			out = append(out, '\\', 't')
		default:
			out = append(out, '\\', 'u', '0', '0', hexDigits[b>>4], hexDigits[b&15])
		}
	}
	return append(out, s[start:]...)
}

// attrsJSON is the attrs member of every entry, with its comma in front.
func attrsJSON(attrs map[string]string) []byte {
	if len(attrs) == 0 {
		return nil
	}
	data, err := json.Marshal(attrs)
	if err != nil {
		return nil
	}
	return append([]byte(`,"attrs":`), data...)
}

// An entry is one record of a log file.
type entry struct {
	text   []byte
	stderr bool
	time   time.Time
	attrs  map[string]string
}

var errNoEntry = errors.New("not a log entry")

// parse reads an entry as jsonLog writes it, into a buffer that is used again;
// any other JSON goes the long way.
func (e *entry) parse(line []byte) error {
	const head = `{"log":"`
	if len(line) < len(head) || string(line[:len(head)]) != head {
		return e.parseSlow(line)
	}
	rest, ok := e.unescape(line[len(head):])
	if !ok {
		return e.parseSlow(line)
	}
	e.attrs = nil
	switch {
	case hasPrefix(rest, `","stream":"stdout","time":"`):
		e.stderr = false
	case hasPrefix(rest, `","stream":"stderr","time":"`):
		e.stderr = true
	default:
		return e.parseSlow(line)
	}
	rest = rest[len(`","stream":"stdout","time":"`):]
	if len(rest) < 3 || string(rest[len(rest)-2:]) != `"}` {
		return e.parseSlow(line)
	}
	var err error
	e.time, err = time.Parse(time.RFC3339Nano, string(rest[:len(rest)-2]))
	if err != nil {
		return errNoEntry
	}
	return nil
}

func hasPrefix(b []byte, s string) bool { return len(b) >= len(s) && string(b[:len(s)]) == s }

// unescape reads the inside of a JSON string into e.text and returns the rest,
// from the closing quote on.
func (e *entry) unescape(s []byte) (rest []byte, ok bool) {
	e.text = e.text[:0]
	start := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"':
			e.text = append(e.text, s[start:i]...)
			return s[i:], true
		case '\\':
			e.text = append(e.text, s[start:i]...)
			n := e.escape(s[i:])
			if n == 0 {
				return nil, false
			}
			i += n - 1
			start = i + 1
		}
	}
	return nil, false
}

var escapes = map[byte]byte{'n': '\n', 'r': '\r', 't': '\t', '"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f'}

// escape decodes one escape at the start of s and returns its length, 0 for none.
func (e *entry) escape(s []byte) int {
	if len(s) < 2 {
		return 0
	}
	if s[1] != 'u' {
		b, ok := escapes[s[1]]
		if !ok {
			return 0
		}
		e.text = append(e.text, b)
		return 2
	}
	if len(s) < 6 {
		return 0
	}
	n, err := strconv.ParseUint(string(s[2:6]), 16, 16)
	if err != nil || n >= 0xd800 && n < 0xe000 {
		return 0 // half of a pair: the long way
	}
	e.text = utf8.AppendRune(e.text, rune(n))
	return 6
}

func (e *entry) parseSlow(line []byte) error {
	var v struct {
		Log, Stream string
		Time        time.Time
		Attrs       map[string]string
	}
	if err := json.Unmarshal(line, &v); err != nil {
		return errNoEntry
	}
	e.text, e.stderr, e.time, e.attrs = append(e.text[:0], v.Log...), v.Stream == "stderr", v.Time, v.Attrs
	return nil
}

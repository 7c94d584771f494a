package monitor

import (
	"bytes"
	"fmt"
	"io"
	"strings"
)

// DefaultDetachKeys are ctrl-p, ctrl-q.
var DefaultDetachKeys = []byte{16, 17}

// ParseDetachKeys reads docker's form: single characters and ctrl-X (X a letter
// or one of @ [ \ ] ^ _), separated by commas.
func ParseDetachKeys(s string) ([]byte, error) {
	var keys []byte
	for _, k := range strings.Split(s, ",") {
		name, ctrl := strings.CutPrefix(strings.ToLower(k), "ctrl-")
		switch {
		case ctrl && len(name) == 1 && name[0] >= 'a' && name[0] <= 'z':
			keys = append(keys, name[0]-'a'+1)
		case ctrl && len(name) == 1 && strings.Contains(`@[\]^_`, name):
			keys = append(keys, name[0]-'@')
		case !ctrl && len(k) == 1:
			keys = append(keys, k[0])
		default:
			return nil, fmt.Errorf("--detach-keys %s: %q is neither a character nor ctrl-X", s, k)
		}
	}
	return keys, nil
}

// A detector finds the keys in what is typed, also when they come one by one.
// What could be their beginning is held back until it is known not to be.
type detector struct {
	keys []byte
	held []byte
}

// feed returns what is to be sent, and whether the keys were complete.
func (d *detector) feed(typed []byte) (send []byte, found bool) {
	for _, b := range typed {
		d.held = append(d.held, b)
		for len(d.held) > 0 && !bytes.HasPrefix(d.keys, d.held) {
			send = append(send, d.held[0])
			d.held = d.held[1:]
		}
		if len(d.held) == len(d.keys) {
			return send, true
		}
	}
	return send, false
}

// CopyUntilKeys sends what is typed until the keys come, which it reports, or
// either side ends.
func CopyUntilKeys(w io.Writer, typed io.Reader, keys []byte) bool {
	d := detector{keys: keys}
	buf := make([]byte, 4096)
	for {
		n, err := typed.Read(buf)
		send, found := d.feed(buf[:n])
		if len(send) > 0 {
			if _, err := w.Write(send); err != nil {
				return false
			}
		}
		if found {
			return true
		}
		if err != nil {
			return false
		}
	}
}

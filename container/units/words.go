package units

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// escapes are systemd's of one letter; see systemd.service(5), "Command lines".
const (
	escapeLetters = `abfnrtvs\"'`
	escapeBytes   = "\a\b\f\n\r\t\v \\\"'"
)

// SplitWords splits a value as systemd does a command line: at white space, with
// quotes around words or parts of them, and with C's escapes.
func SplitWords(s string) (words []string, err error) {
	var word strings.Builder
	if strings.IndexByte(s, 0) >= 0 {
		return nil, errors.New("a NUL byte")
	}
	inside, quote := false, byte(0)
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\':
			n, text, err := unescape(s[i+1:])
			if err != nil {
				return nil, err
			}
			word.WriteString(text)
			i, inside = i+n, true
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			word.WriteByte(c)
		case c == '"' || c == '\'':
			quote, inside = c, true
		case strings.IndexByte(" \t\r\n", c) >= 0:
			if inside {
				words = append(words, word.String())
				word.Reset()
			}
			inside = false
		default:
			word.WriteByte(c)
			inside = true
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("a quote %c is not closed", quote)
	}
	if inside {
		words = append(words, word.String())
	}
	return words, nil
}

// unescape reads what follows a backslash and returns how long that is.
func unescape(s string) (n int, text string, err error) {
	if s == "" {
		return 0, "", errors.New("a backslash ends it")
	}
	if i := strings.IndexByte(escapeLetters, s[0]); i >= 0 {
		return 1, escapeBytes[i : i+1], nil
	}
	digits, base, from := 0, 8, 0
	switch {
	case s[0] == 'x':
		digits, base, from = 2, 16, 1
	case s[0] == 'u':
		digits, base, from = 4, 16, 1
	case s[0] == 'U':
		digits, base, from = 8, 16, 1
	case s[0] >= '0' && s[0] <= '7':
		digits = 3
	default:
		// Not an escape: systemd leaves such a pair as it is.
		return 1, `\` + s[:1], nil
	}
	if len(s) < from+digits {
		return 0, "", fmt.Errorf(`\%s is cut off`, s)
	}
	code, err := strconv.ParseUint(s[from:from+digits], base, 32)
	if err != nil || code == 0 || base == 8 && code > 255 {
		return 0, "", fmt.Errorf(`\%s is no character`, s[:from+digits])
	}
	if digits > 3 {
		return from + digits, string(rune(code)), nil
	}
	return from + digits, string([]byte{byte(code)}), nil
}

// quote writes a word so that SplitWords reads it back.
func quote(word string) string {
	if word != "" && !strings.ContainsAny(word, " \t\"'\\;") && strings.IndexFunc(word, func(r rune) bool { return r < ' ' || r == 127 }) < 0 {
		return word
	}
	var b strings.Builder
	b.WriteByte('"')
	for i := 0; i < len(word); i++ {
		switch c := word[i]; {
		case c == '"' || c == '\\':
			b.WriteString(`\` + string(c))
		case c < ' ' || c == 127:
			fmt.Fprintf(&b, `\x%02x`, c)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// commandLine is argv for an Exec line.
func commandLine(argv []string) string {
	quoted := make([]string, len(argv))
	for i, a := range argv {
		quoted[i] = quote(a)
	}
	return strings.Join(quoted, " ")
}

// literal keeps systemd from reading anything into a word of a command line.
func literal(word string) string {
	return strings.NewReplacer("%", "%%", "$", "$$").Replace(word)
}

package ui

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Exit is an error that says nothing and sets the exit status: the container's
// own code, for example.
type Exit int

func (e Exit) Error() string { return "exit status " + strconv.Itoa(int(e)) }

// A CodedError is an error with the exit status it leads to.
type CodedError struct {
	Code int
	Err  error
}

func (e *CodedError) Error() string { return e.Err.Error() }
func (e *CodedError) Unwrap() error { return e.Err }

// WithCode makes err end kist with code. It returns nil for nil.
func WithCode(code int, err error) error {
	if err == nil {
		return nil
	}
	return &CodedError{code, err}
}

type hinted struct {
	err  error
	hint string
}

func (h *hinted) Error() string { return h.err.Error() }
func (h *hinted) Unwrap() error { return h.err }

// Hint adds to err what to do about it, as a command to paste.
func Hint(err error, format string, a ...any) error {
	if err == nil {
		return nil
	}
	return &hinted{err, fmt.Sprintf(format, a...)}
}

// ErrorText returns what kist prints for err: a line, then a hint when one of
// the wrapped errors has one.
func ErrorText(err error) string {
	// Joined errors come as lines of their own; clean-up errors follow the first.
	line := "kist: " + strings.ReplaceAll(err.Error(), "\n", "; ")
	var h *hinted
	if errors.As(err, &h) {
		return Escape(line) + "\nhint: " + Escape(h.hint)
	}
	return Escape(line)
}

// Causes lists what err is made of, a line each, the inner ones indented: for
// --debug.
func Causes(err error) string {
	var b strings.Builder
	causes(&b, err, "")
	return strings.TrimSuffix(b.String(), "\n")
}

func causes(b *strings.Builder, err error, indent string) {
	fmt.Fprintf(b, "debug: %s%s\n", indent, Escape(fmt.Sprintf("%T %q", err, err.Error())))
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		if inner := e.Unwrap(); inner != nil {
			causes(b, inner, indent+"  ")
		}
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			causes(b, inner, indent+"  ")
		}
	}
}

// ExitCode returns the exit status for err: 0 for nil, that of an Exit or
// CodedError, else other.
func ExitCode(err error, other int) int {
	var exit Exit
	var coded *CodedError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return int(exit)
	case errors.As(err, &coded):
		return coded.Code
	}
	return other
}

// maxLine bounds one printed line: a registry may send a whole page as an error.
const maxLine = 4 << 10

// Escape shows control bytes of s as text, so that what a container or registry
// is named never reaches the terminal as a command. Tabs and newlines stay.
func Escape(s string) string {
	if len(s) > maxLine {
		s = s[:maxLine] + "…"
	}
	return visible(s)
}

// visible is Escape of any length.
func visible(s string) string {
	if strings.IndexFunc(s, control) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if control(r) {
			q := strconv.QuoteRuneToASCII(r)
			b.WriteString(q[1 : len(q)-1])
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

func control(r rune) bool {
	return r < 0x20 && r != '\t' && r != '\n' || r >= 0x7f && r < 0xa0 || r >= 0x202a && r <= 0x202e || r == 0xfffd
}

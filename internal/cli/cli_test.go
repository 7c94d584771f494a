package cli

import (
	"errors"
	"fmt"
	"testing"
)

func TestNearest(t *testing.T) {
	commands := []string{"run", "rm", "rmi", "ps", "images", "inspect", "container", "top", "stop"}
	for word, want := range map[string]string{
		"rnu": "run", "imges": "images", "inspct": "inspect", "contianer": "container", "stpo": "stop",
		"foo": "", "xyz": "", "qqqqqqqq": "", "": "",
	} {
		if got := Nearest(word, commands); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", word, got, want)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"ab", "ba", 1}, {"kitten", "sitting", 3}, {"FORM", "FROM", 1}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("distance(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

func TestStatus(t *testing.T) {
	for want, err := range map[int]error{
		1:   fmt.Errorf("ps: %w", &usageError{"too many", errArguments}),
		125: &usageError{text: "unknown flag"},
	} {
		if got := Status(err); got != want {
			t.Errorf("Status(%v) = %d, want %d", err, got, want)
		}
	}
	if Status(fmt.Errorf("x: %w", errNoCommand)) != 1 || Status(errors.New("any")) != 125 {
		t.Error("an unknown command is not 1, or another error not 125")
	}
}

func TestWrap(t *testing.T) {
	got := wrap("one two  three-long four", 8)
	want := []string{"one two", "three-long", "four"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("wrap = %q, want %q", got, want)
	}
}

package ui

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

type row struct {
	ID     string
	Names  string
	Labels map[string]string `json:",omitempty"`
}

var table = Table{
	Headers: map[string]string{"ID": "CONTAINER ID", "Names": "NAMES"},
	Default: "{{.ID}}\t{{.Names}}",
	Quiet:   "{{.ID}}",
}

func TestTableFormats(t *testing.T) {
	rows := []any{row{ID: "0123", Names: "web"}, row{ID: "4567", Names: "a<b"}}
	for _, c := range []struct {
		format string
		quiet  bool
		want   string
	}{
		{"", false, "CONTAINER ID   NAMES\n0123           web\n4567           a<b\n"},
		{"table", false, "CONTAINER ID   NAMES\n0123           web\n4567           a<b\n"},
		{"table {{.Names}}", false, "NAMES\nweb\na<b\n"},
		{`table {{upper .Names}}\t{{.ID}}`, false, "NAMES     CONTAINER ID\nWEB       0123\nA<B       4567\n"},
		{"", true, "0123\n4567\n"},
		{"table {{.Names}}", true, "0123\n4567\n"},
		{"{{.Names}}", true, "web\na<b\n"},
		{"{{.ID}}:{{.Names}}", false, "0123:web\n4567:a<b\n"},
		{"json", false, "{\"ID\":\"0123\",\"Names\":\"web\"}\n{\"ID\":\"4567\",\"Names\":\"a<b\"}\n"},
	} {
		var b bytes.Buffer
		if err := table.Write(&b, c.format, c.quiet, rows); err != nil || b.String() != c.want {
			t.Errorf("format %q quiet %v = %q, %v; want %q", c.format, c.quiet, b.String(), err, c.want)
		}
	}
	for _, bad := range []string{"{{.Nope}}", "{{", "table {{nofunc .ID}}"} {
		var b bytes.Buffer
		if err := table.Write(&b, bad, false, rows); err == nil || b.Len() > 0 {
			t.Errorf("format %q = %q, %v; want an error and no output", bad, b.String(), err)
		}
	}
}

func TestInspectTakesGoAndJSONNames(t *testing.T) {
	type object struct {
		State struct {
			OOM bool `json:"OOMKilled"`
		}
	}
	for format, want := range map[string]string{
		"{{.State.OOM}}": "false\n", "{{.State.OOMKilled}}": "false\n", "json": "{\"State\":{\"OOMKilled\":false}}\n",
		"": "[\n    {\n        \"State\": {\n            \"OOMKilled\": false\n        }\n    }\n]\n",
	} {
		var b bytes.Buffer
		if err := Inspect(&b, format, []any{object{}}); err != nil || b.String() != want {
			t.Errorf("Inspect %q = %q, %v; want %q", format, b.String(), err, want)
		}
	}
	if err := Inspect(&bytes.Buffer{}, "{{.State.Nope}}", []any{object{}}); err == nil {
		t.Error("a field that is not there passes")
	}
}

func TestEscapeShowsControlBytes(t *testing.T) {
	for in, want := range map[string]string{
		"plain ü": "plain ü", "a\x1b[2Jb": `a\x1b[2Jb`, "tab\tline\n": "tab\tline\n", "\u202eevil": `\u202eevil`,
	} {
		if got := Escape(in); got != want {
			t.Errorf("Escape(%q) = %q, want %q", in, got, want)
		}
	}
}

// terminal opens both ends of a pseudo-terminal that changes nothing.
func terminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("needs /dev/ptmx")
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

func TestTerminalsGetNoOrders(t *testing.T) {
	rows := []any{row{ID: "0123", Names: "\x1b]0;x\a\u009bH"}}
	for _, format := range []string{"", "{{.Names}}", "table {{.Names}}", "json"} {
		master, slave := terminal(t)
		if err := table.Write(slave, format, false, rows); err != nil {
			t.Fatal(err)
		}
		if err := Inspect(slave, format, rows); err != nil && !strings.HasPrefix(format, "table") {
			t.Fatal(err)
		}
		buf := make([]byte, 4096)
		n, err := master.Read(buf)
		if text := string(buf[:n]); err != nil || !strings.Contains(text, "1b]0;x") || strings.ContainsAny(text, "\x1b\a\u009b") {
			t.Errorf("format %q on a terminal = %q, %v", format, text, err)
		}
	}
	// Columns are for people; what a program asked for is what it gets.
	for format, want := range map[string]string{"table {{.Names}}": "NAMES\n\\x1b]0;x\\a\\u009bH\n", "{{.Names}}": "\x1b]0;x\a\u009bH\n"} {
		var b bytes.Buffer
		if err := table.Write(&b, format, false, rows); err != nil || b.String() != want {
			t.Errorf("format %q = %q, %v; want %q", format, b.String(), err, want)
		}
	}
}

func TestErrorTextAndExitCode(t *testing.T) {
	err := fmt.Errorf("start web: %w", Hint(errors.New("no such container"), "kist ps -a"))
	if got, want := ErrorText(err), "kist: start web: no such container\nhint: kist ps -a"; got != want {
		t.Errorf("ErrorText = %q, want %q", got, want)
	}
	for _, c := range []struct {
		err  error
		want int
	}{{nil, 0}, {err, 1}, {Exit(7), 7}, {fmt.Errorf("x: %w", WithCode(127, err)), 127}} {
		if got := ExitCode(c.err, 1); got != c.want {
			t.Errorf("ExitCode(%v) = %d, want %d", c.err, got, c.want)
		}
	}
}

func TestCausesAreALineEach(t *testing.T) {
	inner := errors.New("bad\x1b[2J")
	err := errors.Join(fmt.Errorf("start web: %w", inner), errors.New("clean up"))
	want := `debug: *errors.joinError "start web: bad\x1b[2J\nclean up"
debug:   *fmt.wrapError "start web: bad\x1b[2J"
debug:     *errors.errorString "bad\x1b[2J"
debug:   *errors.errorString "clean up"`
	if got := Causes(err); got != want {
		t.Errorf("Causes = %s\nwant %s", got, want)
	}
}

func TestParseTime(t *testing.T) {
	now := time.Unix(1000, 0)
	for in, want := range map[string]time.Time{
		"10s": time.Unix(990, 0), "1700000000": time.Unix(1700000000, 0), "1700000000.5": time.Unix(1700000000, 500_000_000),
		"2024-01-02T03:04:05Z": time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC),
	} {
		if got, err := ParseTime(in, now); err != nil || !got.Equal(want) {
			t.Errorf("ParseTime(%q) = %v, %v; want %v", in, got, err, want)
		}
	}
	for _, bad := range []string{"", "yesterday", "12x", "1.x", "2024-13-01"} {
		if got, err := ParseTime(bad, now); err == nil {
			t.Errorf("ParseTime(%q) = %v, want an error", bad, got)
		}
	}
}

func TestFilters(t *testing.T) {
	f, err := ParseFilters([]string{"label=a", "label=b=1", "status=x", "status=y"}, "label", "status")
	if err != nil {
		t.Fatal(err)
	}
	if !f.MatchLabels("label", map[string]string{"a": "", "b": "1"}) || f.MatchLabels("label", map[string]string{"a": ""}) {
		t.Error("labels are not matched all together")
	}
	if !f.Match("status", func(v string) bool { return v == "y" }) || f.Match("status", func(v string) bool { return v == "z" }) {
		t.Error("values of one key are not alternatives")
	}
	for _, bad := range []string{"nokey", "color=red"} {
		if _, err := ParseFilters([]string{bad}, "label"); err == nil {
			t.Errorf("filter %q passes", bad)
		}
	}
}

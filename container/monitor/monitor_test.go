package monitor

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestDetachKeys(t *testing.T) {
	for s, want := range map[string][]byte{"ctrl-p,ctrl-q": {16, 17}, "a": {'a'}, "ctrl-@,x": {0, 'x'}, "ctrl-_": {31}} {
		if got, err := ParseDetachKeys(s); err != nil || !bytes.Equal(got, want) {
			t.Errorf("ParseDetachKeys(%q) = %v, %v; want %v", s, got, err, want)
		}
	}
	for _, bad := range []string{"", "ab", "ctrl-", "ctrl-1", "a,,b"} {
		if got, err := ParseDetachKeys(bad); err == nil {
			t.Errorf("ParseDetachKeys(%q) = %v, want an error", bad, got)
		}
	}
}

func TestDetectorHoldsBackOnlyWhatMayBeKeys(t *testing.T) {
	for _, c := range []struct {
		typed []string
		sent  string
		found bool
	}{
		{[]string{"ab", "\x10", "\x11", "c"}, "ab", true},
		{[]string{"a\x10b"}, "a\x10b", false},
		{[]string{"\x10\x10\x11"}, "\x10", true},
		{[]string{"\x10"}, "", false},
	} {
		d := detector{keys: DefaultDetachKeys}
		var sent []byte
		found := false
		for _, s := range c.typed {
			var out []byte
			out, found = d.feed([]byte(s))
			sent = append(sent, out...)
			if found {
				break
			}
		}
		if string(sent) != c.sent || found != c.found {
			t.Errorf("typed %q: sent %q, found %v; want %q, %v", c.typed, sent, found, c.sent, c.found)
		}
	}
}

// A client sends its input and the end of it as soon as the program runs, which
// is before the monitor has turned to it.
func TestInputBeforeTheHubIsOpenIsNotLost(t *testing.T) {
	m := &monitor{Spec: Spec{StdinOnce: true}, hub: newHub(noLog{})}
	m.sock = newServer(m, &net.UnixListener{})
	ours, theirs, err := AttachPair()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	if err := m.sock.adopt(theirs); err != nil {
		t.Fatal(err)
	}
	for _, packet := range [][]byte{{kindStdin, 'x'}, {kindStdinEnd}} {
		if _, err := ours.Write(packet); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(10 * time.Millisecond) // time to lose it
	streams, err := newStreams(false, true)
	if err != nil {
		t.Fatal(err)
	}
	m.hub.open(streams)
	go m.sock.accept()
	streams.theirs[0].SetReadDeadline(time.Now().Add(10 * time.Second))
	if got, err := io.ReadAll(streams.theirs[0]); string(got) != "x" || err != nil {
		t.Errorf("the program read %q, %v; want \"x\" and the end", got, err)
	}
}

func TestRestartDelaysDouble(t *testing.T) {
	for n, want := range map[int]time.Duration{0: 100 * time.Millisecond, 1: 200 * time.Millisecond, 3: 800 * time.Millisecond, 30: time.Minute} {
		if got := restartDelay(n); got != want {
			t.Errorf("restartDelay(%d) = %v, want %v", n, got, want)
		}
	}
}

func TestHealthCountsFailuresAfterTheStartPeriod(t *testing.T) {
	h := Health{StartPeriod: time.Minute, Retries: 2}.withDefaults()
	s := HealthState{Status: HealthStarting}
	fail, fine := ProbeResult{ExitCode: 1}, ProbeResult{}
	if s = h.after(s, fail, time.Second); s.Status != HealthStarting || s.FailingStreak != 0 {
		t.Errorf("a failure within the start period counts: %+v", s)
	}
	s = h.after(s, fail, 2*time.Minute)
	if s = h.after(s, fail, 2*time.Minute); s.Status != HealthUnhealthy {
		t.Errorf("after two failures: %+v", s)
	}
	if s = h.after(s, fine, 2*time.Minute); s.Status != HealthHealthy || s.FailingStreak != 0 {
		t.Errorf("after a success: %+v", s)
	}
	for range 10 {
		s = h.after(s, fine, time.Hour)
	}
	if len(s.Log) != keptProbes {
		t.Errorf("%d results are kept, want %d", len(s.Log), keptProbes)
	}
}

// logOf writes lines to a log of its own and returns its configuration.
func logOf(t *testing.T, options map[string]string, write func(logWriter)) LogConfig {
	t.Helper()
	c := LogConfig{Path: filepath.Join(t.TempDir(), "x-json.log"), Options: options}
	l, err := openLog(c)
	if err != nil {
		t.Fatal(err)
	}
	write(l)
	l.end(kindStdout)
	l.end(kindStderr)
	l.close()
	return c
}

func readAll(t *testing.T, c LogConfig, o ReadOptions) (string, string) {
	t.Helper()
	var out, errs bytes.Buffer
	if err := ReadLogs(context.Background(), c, o, &out, &errs); err != nil {
		t.Fatal(err)
	}
	return out.String(), errs.String()
}

func TestLogKeepsBytes(t *testing.T) {
	odd := "quote \" back \\ tab \t <&> ü \xff\xfe \x00\x01\r\n"
	long := strings.Repeat("x", 3*mostInEntry+5) + "\n"
	c := logOf(t, map[string]string{"max-size": "-1"}, func(l logWriter) {
		l.write(kindStdout, time.Now(), []byte("a\nb"))
		l.write(kindStderr, time.Now(), []byte("err\n"))
		l.write(kindStdout, time.Now(), []byte("c\n"+odd+long+"no end"))
	})
	out, errs := readAll(t, c, ReadOptions{Tail: -1})
	if want := "a\nbc\n" + odd + long + "no end"; out != want || errs != "err\n" {
		t.Errorf("log = %q, %q", out, errs)
	}
}

func TestLogRotatesWithoutAGap(t *testing.T) {
	for _, compress := range []string{"false", "true"} {
		var want strings.Builder
		c := logOf(t, map[string]string{"max-size": "2k", "max-file": "4", "compress": compress}, func(l logWriter) {
			for i := range 60 {
				line := strings.Repeat(string(rune('a'+i%26)), 30) + "\n"
				want.WriteString(line)
				l.write(kindStdout, time.Now(), []byte(line))
			}
		})
		out, _ := readAll(t, c, ReadOptions{Tail: -1})
		if !strings.HasSuffix(want.String(), out) || len(out) < 31*40 {
			t.Errorf("compress %s: %d bytes are left of %d, or in disorder", compress, len(out), want.Len())
		}
		files, _ := os.ReadDir(filepath.Dir(c.Path))
		if len(files) > 4 {
			t.Errorf("%d files, want at most 4", len(files))
		}
	}
}

func TestLogTail(t *testing.T) {
	c := logOf(t, map[string]string{"max-size": "1k", "max-file": "9"}, func(l logWriter) {
		for i := range 40 {
			l.write(kindStdout, time.Now(), []byte(strings.Repeat("z", i)+"\n"))
		}
	})
	for _, n := range []int{0, 1, 3, 15} {
		out, _ := readAll(t, c, ReadOptions{Tail: n})
		if got := strings.Count(out, "\n"); got != n || n > 0 && !strings.HasSuffix(out, strings.Repeat("z", 39)+"\n") {
			t.Errorf("tail %d shows %d lines", n, got)
		}
	}
}

func TestLogFollowEndsWithTheContainer(t *testing.T) {
	c := LogConfig{Path: filepath.Join(t.TempDir(), "f.log"), Options: map[string]string{"max-size": "1k", "max-file": "100"}}
	l, err := openLog(c)
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	alive := make(chan struct{})
	go func() {
		defer close(alive)
		for i := range 300 {
			line := strings.Repeat("q", i%50) + "\n"
			want.WriteString(line)
			l.write(kindStdout, time.Now(), []byte(line))
			time.Sleep(100 * time.Microsecond)
		}
		l.end(kindStdout)
		l.close()
	}()
	out, _ := readAll(t, c, ReadOptions{Tail: -1, Follow: true, Alive: func() bool {
		select {
		case <-alive:
			return false
		default:
			return true
		}
	}})
	if out != want.String() {
		t.Errorf("followed %d bytes of %d", len(out), want.Len())
	}
}

func FuzzLogEntry(f *testing.F) {
	f.Add([]byte(`{"log":"a\n","stream":"stdout","time":"2024-01-01T00:00:00Z"}`))
	f.Add([]byte(`{"log":"\u00e9\ud83d\ude00","stream":"stderr","attrs":{"a":"b"},"time":"2024-01-01T00:00:00.1Z"}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		var e entry
		e.parse(line)
	})
}

func FuzzLogRoundTrip(f *testing.F) {
	f.Add([]byte("a\"\\\n\xff"))
	f.Fuzz(func(t *testing.T, text []byte) {
		line := append([]byte(`{"log":"`), appendEscaped(nil, text)...)
		line = append(line, `","stream":"stdout","time":"2024-01-01T00:00:00Z"}`...)
		var e entry
		if err := e.parse(line); err != nil || !bytes.Equal(e.text, text) {
			t.Errorf("%q reads back as %q, %v", text, e.text, err)
		}
	})
}

func BenchmarkLogWrite(b *testing.B) {
	l, err := openLog(LogConfig{Path: filepath.Join(b.TempDir(), "b.log")})
	if err != nil {
		b.Fatal(err)
	}
	defer l.close()
	data := []byte(strings.Repeat("a line of a usual length, as servers print them, with a number 12345\n", 400))
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		l.write(kindStdout, time.Now(), data)
	}
}

// CVE-2017-1002101: who shares a volume puts a link where another container
// mounts a part of it.
func TestSubpathStaysInside(t *testing.T) {
	host, dir := t.TempDir(), t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := ImageMount{Lowers: []string{dir}, Inside: "sub"}.open(false)
	if errors.Is(err, unix.EPERM) {
		t.Skip("needs CAP_SYS_ADMIN")
	}
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	for name, target := range map[string]string{"absolute": host, "climbs": "../" + filepath.Base(host), "magic": "/proc/self/root" + host} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		if f, err := (ImageMount{Lowers: []string{dir}, Inside: name}).open(false); err == nil {
			f.Close()
			t.Errorf("a link to %s was followed", target)
		}
	}
}

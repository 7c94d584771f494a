package reexec

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMessagesArriveWholeWithTheirFiles(t *testing.T) {
	ours, theirs, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	type message struct{ Text string }
	for _, text := range []string{"", "a", strings.Repeat("long", 10_000)} {
		if err := ours.Send(message{text}, w); err != nil {
			t.Fatal(err)
		}
		var got message
		files, err := theirs.Receive(&got)
		if err != nil || got.Text != text || len(files) != 1 {
			t.Fatalf("received %d bytes, %d files, %v; want %d bytes", len(got.Text), len(files), err, len(text))
		}
		if flags, err := unix.FcntlInt(files[0].Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("a received descriptor is not close-on-exec: %v", err)
		}
		files[0].WriteString("x")
		closeAll(files)
	}
	w.Close()
	if data, err := io.ReadAll(r); string(data) != "xxx" || err != nil {
		t.Errorf("through the received descriptors came %q, %v", data, err)
	}
	ours.Close()
	if _, err := theirs.Receive(&message{}); !errors.Is(err, io.EOF) {
		t.Errorf("Receive after the end = %v, want EOF", err)
	}
}

// TestLastWords: an end with a message unread takes nothing from what it had said.
func TestLastWords(t *testing.T) {
	ours, theirs, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	if err := errors.Join(ours.Send("never read"), theirs.Send("why"), theirs.Close()); err != nil {
		t.Fatal(err)
	}
	var got string
	if _, err := ours.Receive(&got); got != "why" || err != nil {
		t.Errorf("received %q, %v", got, err)
	}
	if _, err := ours.Receive(&got); !errors.Is(err, io.EOF) {
		t.Errorf("then %v, want EOF", err)
	}
}

func TestAMessageThatDoesNotParseKeepsNoFile(t *testing.T) {
	ours, theirs, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	defer theirs.Close()
	before := openFiles(t)
	if err := ours.Send("text", os.Stdin); err != nil {
		t.Fatal(err)
	}
	if files, err := theirs.Receive(new(int)); err == nil || files != nil {
		t.Errorf("a string was received as a number: %v", files)
	}
	if after := openFiles(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
	if err := ours.Send(strings.Repeat("x", maxMessage)); err == nil {
		t.Error("a message over the limit was sent")
	}
}

func openFiles(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("needs /proc")
	}
	return len(entries)
}

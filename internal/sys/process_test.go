package sys

import (
	"errors"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseStat(t *testing.T) {
	const tail = " 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20"
	for _, name := range []string{"(sh)", "(a) b)", "(x) R 1 (y)"} {
		state, start, err := parseStat([]byte("17 " + name + " S" + tail))
		if state != 'S' || start != 4242 || err != nil {
			t.Errorf("parseStat of %s = %c, %d, %v; want S, 4242", name, state, start, err)
		}
	}
	for _, bad := range []string{"", "1 sh S", "1 (sh) S 1 2", "1 (sh) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 x 20"} {
		if _, _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("parseStat(%q) = nil error", bad)
		}
	}
}

func TestProcessIsGoneAfterItsEnd(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p, err := ProcessOf(cmd.Process.Pid)
	if err != nil || !p.Alive() {
		t.Fatalf("ProcessOf a running process = %v, %v", p, err)
	}
	if (Process{p.Pid, p.Start + 1}).Alive() {
		t.Error("a process with another start time counts as alive")
	}
	if err := p.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	if err := p.Signal(unix.SIGKILL); !errors.Is(err, ErrGone) {
		t.Errorf("Signal after the end = %v, want ErrGone", err)
	}
}

func TestOpenInRootStaysInside(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(dir+"/etc", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/etc/passwd", []byte("inside"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{"/etc/passwd", "../../../etc/passwd", "etc/passwd"} {
		os.Remove(dir + "/link")
		if err := os.Symlink(target, dir+"/link"); err != nil {
			t.Fatal(err)
		}
		root, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		f, err := OpenInRoot(root, "link", unix.O_RDONLY, 0)
		if err != nil {
			t.Fatalf("open link to %s: %v", target, err)
		}
		defer f.Close()
		buf := make([]byte, 6)
		if f.Read(buf); string(buf) != "inside" {
			t.Errorf("link to %s leads out of the root", target)
		}
	}
}

package sys

import (
	"errors"
	"io"
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
	if f, err := p.OpenFile("root", unix.O_PATH); err != nil {
		t.Errorf("root of a running process: %v", err)
	} else {
		f.Close()
	}
	if _, err := (Process{p.Pid, p.Start + 1}).OpenFile("root", unix.O_PATH); !errors.Is(err, ErrGone) {
		t.Errorf("root of a later process of the number: %v, want ErrGone", err)
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

// A FIFO would wait for a writer, and this device has no driver to open it.
func TestOnlyRegularFilesAreOpened(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(unix.Mkfifo(dir+"/fifo", 0o600), os.Symlink("/fifo", dir+"/link"), os.Mkdir(dir+"/dir", 0o700),
		os.WriteFile(dir+"/file", []byte("text"), 0o600)); err != nil {
		t.Fatal(err)
	}
	names := []string{"fifo", "link", "dir"}
	if unix.Mknod(dir+"/device", unix.S_IFCHR|0o600, int(unix.Mkdev(250, 77))) == nil {
		names = append(names, "device")
	}
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for _, name := range names {
		if _, err := OpenRegular(root, name); !errors.Is(err, ErrNotRegular) {
			t.Errorf("open %s = %v, want %v", name, err, ErrNotRegular)
		}
	}
	f, err := OpenRegular(root, "file")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if data, err := io.ReadAll(f); string(data) != "text" {
		t.Errorf("read = %q, %v", data, err)
	}
}

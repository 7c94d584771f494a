package state

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestMain lets the test binary be a process that holds a lock until it is killed.
func TestMain(m *testing.M) {
	if path := os.Getenv("STATE_TEST_HOLD"); path != "" {
		if _, err := TryLock(path); err == nil {
			os.Stdout.WriteString("held\n")
		}
		io.Copy(io.Discard, os.Stdin)
		return
	}
	os.Exit(m.Run())
}

func TestAKilledHolderReleasesItsLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock", "x")
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "STATE_TEST_HOLD="+path)
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "held\n" {
		t.Fatalf("the holder said %q, %v", line, err)
	}
	if _, err := TryLock(path); !errors.Is(err, ErrLocked) {
		t.Errorf("TryLock of a held lock = %v, want ErrLocked", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := AcquireLock(ctx, path); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("AcquireLock of a held lock = %v, want the context's end", err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	l, err := TryLock(path)
	if err != nil {
		t.Fatalf("TryLock after the holder was killed: %v", err)
	}
	l.Unlock()
}

func TestLocksExcludeOneAnother(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	var wg sync.WaitGroup
	var inside, most atomic.Int32
	for range 8 {
		wg.Go(func() {
			for range 20 {
				l, err := AcquireLock(context.Background(), path)
				if err != nil {
					t.Error(err)
					return
				}
				if n := inside.Add(1); n > 1 {
					most.Store(n)
				}
				inside.Add(-1)
				l.Unlock()
			}
		})
	}
	wg.Wait()
	if n := most.Load(); n != 0 {
		t.Errorf("%d held the lock at once", n)
	}
	a, errA := AcquireRLock(context.Background(), path)
	b, errB := AcquireRLock(context.Background(), path)
	if errA != nil || errB != nil {
		t.Fatalf("two readers: %v, %v", errA, errB)
	}
	if _, err := TryLock(path); !errors.Is(err, ErrLocked) {
		t.Errorf("a writer beside readers: %v", err)
	}
	a.Unlock()
	b.Unlock()
}

func TestWriteFileReplacesOrLeavesAsItWas(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := WriteFile(path, []byte("old"), 0o640); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("the source broke")
	err := WriteFileFrom(path, 0o600, func(w io.Writer) error {
		io.WriteString(w, "half")
		return broken
	})
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), path) {
		t.Errorf("error %v does not name the cause and the file", err)
	}
	data, _ := os.ReadFile(path)
	info, _ := os.Stat(path)
	if string(data) != "old" || info.Mode().Perm() != 0o640 {
		t.Errorf("after a failed write: %q, %v", data, info.Mode())
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestJSONFilesNameThemselvesWhenBroken(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f.json")
	for _, write := range []func(string, any) error{WriteJSON, WriteVolatileJSON} {
		if err := write(path, map[string]int{"a": 1}); err != nil {
			t.Fatal(err)
		}
		var got map[string]int
		if err := ReadJSON(path, &got); err != nil || got["a"] != 1 {
			t.Errorf("read back %v, %v", got, err)
		}
	}
	os.WriteFile(path, []byte("{"), 0o600)
	if err := ReadJSON(path, new(any)); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("ReadJSON of a broken file = %v", err)
	}
	if err := ReadJSON(path+"x", new(any)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("ReadJSON of no file = %v", err)
	}
	if err := WriteVolatileJSON(path, make(chan int)); err == nil {
		t.Error("a channel was written as JSON")
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestRemovalIsInvisibleAtOnceAndFollowsNoLink(t *testing.T) {
	dir := t.TempDir()
	outside := filepath.Join(dir, "outside")
	tree := filepath.Join(dir, "tree")
	os.MkdirAll(filepath.Join(tree, "sub"), 0o700)
	os.WriteFile(outside, nil, 0o600)
	os.Symlink(dir, filepath.Join(tree, "link"))
	trash, err := Discard(tree)
	if err != nil || !IsLitter(filepath.Base(trash)) {
		t.Fatalf("Discard = %q, %v", trash, err)
	}
	if _, err := os.Lstat(tree); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a discarded tree is still there: %v", err)
	}
	if err := Purge(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(trash); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Purge left it: %v", err)
	}
	if _, err := os.Lstat(outside); err != nil {
		t.Errorf("removed through a link: %v", err)
	}
	if trash, err := Discard(tree); trash != "" || err != nil {
		t.Errorf("Discard of nothing = %q, %v", trash, err)
	}
}

func TestValidName(t *testing.T) {
	for _, good := range []string{"a", "web-1", "0_x.y", strings.Repeat("a", 128)} {
		if !ValidName(good) {
			t.Errorf("%q is refused", good)
		}
	}
	for _, bad := range []string{"", ".", "..", "-a", ".trash", "a/b", "a\x00", "a\n", "ä", "a b", strings.Repeat("a", 129)} {
		if ValidName(bad) {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestDefaultRoots(t *testing.T) {
	env := map[string]string{"HOME": "/home/u"}
	getenv := func(k string) string { return env[k] }
	if got := DefaultRoots(0, getenv); got != (Roots{"/var/lib/kist", "/run/kist"}) {
		t.Errorf("root: %+v", got)
	}
	if got := DefaultRoots(7, getenv); got != (Roots{"/home/u/.local/share/kist", "/tmp/kist-run-7/kist"}) {
		t.Errorf("a user without XDG: %+v", got)
	}
	env["XDG_DATA_HOME"], env["XDG_RUNTIME_DIR"] = "/d", "/r"
	if got := DefaultRoots(7, getenv); got != (Roots{"/d/kist", "/r/kist"}) {
		t.Errorf("a user with XDG: %+v", got)
	}
	env["KIST_ROOT"] = "/k"
	if got := DefaultRoots(0, getenv); got != (Roots{"/k", "/run/kist"}) {
		t.Errorf("KIST_ROOT: %+v", got)
	}
	if err := (Roots{"rel", "/r"}).Dirs(0o700); err == nil {
		t.Error("a relative root was taken")
	}
}

func TestSweepTakesOldTemporaryFilesAlone(t *testing.T) {
	dir := t.TempDir()
	for name, age := range map[string]time.Duration{".tmp-old": time.Hour, ".tmp-new": 0, "file": time.Hour} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		os.Chtimes(path, time.Time{}, time.Now().Add(-age))
	}
	for _, repair := range []bool{false, true} {
		found, err := Sweep(dir, repair)
		if err != nil || len(found) != 1 || found[0] != "temporary file "+filepath.Join(dir, ".tmp-old") {
			t.Errorf("found %v, %v", found, err)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) != 2 {
		t.Errorf("left: %v", left)
	}
	if found, err := Sweep(filepath.Join(dir, "none"), true); found != nil || err != nil {
		t.Errorf("%v, %v", found, err)
	}
}

package volume

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kist-containers/kist/internal/state"
	"github.com/kist-containers/kist/internal/ui"
)

func TestTwoCreatorsAgree(t *testing.T) {
	s, ctx := newStore(t), context.Background()
	var wg sync.WaitGroup
	var made [16]*Volume
	for i := range made {
		wg.Go(func() {
			v, err := s.Ensure(ctx, Volume{Name: "same", Labels: map[string]string{"by": fmt.Sprint(i)}})
			if err != nil {
				t.Error(err)
			}
			made[i] = v
		})
	}
	wg.Wait()
	for _, v := range made[1:] {
		if v == nil || v.Labels["by"] != made[0].Labels["by"] {
			t.Fatalf("creators disagree: %v and %v", made[0], v)
		}
	}
	if _, err := s.Ensure(ctx, Volume{Name: "same", Driver: "other"}); !errors.Is(err, ErrConflict) {
		t.Errorf("another driver: %v, want ErrConflict", err)
	}
	if _, err := s.Ensure(ctx, Volume{Name: "same", Options: map[string]string{"o": "x"}}); !errors.Is(err, ErrConflict) {
		t.Errorf("other options: %v, want ErrConflict", err)
	}
}

func TestRemoveNamesTheUsers(t *testing.T) {
	s, ctx := newStore(t), context.Background()
	s.o.Uses = func() ([]Use, error) {
		return []Use{{"container a (0123456789ab)", "data"}, {"container b (ba9876543210)", "data"}}, nil
	}
	must[*Volume](t)(s.Ensure(ctx, Volume{Name: "data"}))
	err := s.Remove(ctx, "data")
	want := "data: volume is in use by container a (0123456789ab), container b (ba9876543210)"
	if !errors.Is(err, ErrInUse) || err.Error() != want {
		t.Errorf("Remove = %v, want %s", err, want)
	}
	if hint := ui.ErrorText(err); !strings.Contains(hint, "hint: kist rm 0123456789ab") {
		t.Errorf("hint: %s", hint)
	}
}

func TestNamesNeverLeaveTheRoot(t *testing.T) {
	s, ctx := newStore(t), context.Background()
	for _, name := range []string{"", ".", "..", "../x", "/x", "a/b", ".lock", "x\x00y", "-x", strings.Repeat("a", 129)} {
		if _, err := s.Ensure(ctx, Volume{Name: name}); err == nil {
			t.Errorf("Ensure(%q) made a volume", name)
		}
		if err := s.Remove(ctx, name); !errors.Is(err, ErrNotFound) {
			t.Errorf("Remove(%q) = %v, want ErrNotFound", name, err)
		}
	}
}

func TestPruneKeepsNamedAndUsed(t *testing.T) {
	s, ctx := newStore(t), context.Background()
	for _, v := range []Volume{{Name: "named"}, {Name: "anon", Anonymous: true}, {Name: "used", Anonymous: true}, {Name: "kept", Anonymous: true, Labels: map[string]string{"keep": "1"}}} {
		must[*Volume](t)(s.Ensure(ctx, v))
	}
	s.o.Uses = func() ([]Use, error) { return []Use{{"container a (0)", "used"}}, nil }
	os.WriteFile(filepath.Join(s.dir("anon", dataDir), "f"), make([]byte, 1000), 0o600)
	// What killed commands left goes too.
	os.MkdirAll(s.dir(".tmp-half"), 0o700)
	os.MkdirAll(s.dir(".trash-XYZ"), 0o700)
	p, err := s.Prune(ctx, false, false, ui.Filters{"label!": {"keep"}})
	if err != nil || len(p.Names) != 1 || p.Names[0] != "anon" || p.Reclaimed != 1000 {
		t.Errorf("Prune = %+v, %v", p, err)
	}
	if entries, _ := os.ReadDir(s.dir()); len(entries) != 4 { // .lock and three volumes
		t.Errorf("left: %v", entries)
	}
}

// tree makes an image with a directory that has all kinds of files.
func tree(t *testing.T, files int) (root *os.File, dir string) {
	t.Helper()
	dir = t.TempDir()
	top := filepath.Join(dir, "tree")
	if err := os.MkdirAll(filepath.Join(top, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range files {
		os.WriteFile(filepath.Join(top, "sub", fmt.Sprintf("f%d", i)), []byte(strings.Repeat("x", i*37)), 0o640)
	}
	os.WriteFile(filepath.Join(top, "one"), []byte("content"), 0o600)
	root = must[*os.File](t)(os.Open(dir))
	t.Cleanup(func() { root.Close() })
	return root, top
}

// TestKilledCreatorsAndCopies kills, at random moments, a process that makes,
// fills and removes volumes: each volume is then absent, or can be filled, and is
// never half.
func TestKilledCreatorsAndCopies(t *testing.T) {
	_, top := tree(t, 40)
	base := filepath.Dir(top)
	os.Rename(top, filepath.Join(base, "moved"))
	os.Mkdir(filepath.Join(base, "image"), 0o755)
	os.Rename(filepath.Join(base, "moved"), filepath.Join(base, "image", "tree"))
	root := must[*os.File](t)(os.Open(filepath.Join(base, "image")))
	defer root.Close()
	s := Open(state.Roots{Data: filepath.Join(base, "data"), Run: filepath.Join(base, "run")}, Options{})
	ctx := context.Background()
	for range 40 {
		cmd := helper(t, "fill", base)
		time.Sleep(5*time.Millisecond + rand.N(20*time.Millisecond))
		cmd.Process.Kill()
		cmd.Wait()
		list := must[[]*Volume](t)(s.List())
		for _, v := range list {
			dir := must[string](t)(s.Attach(ctx, v.Name, "test"))
			if n := count(t, dir); n != 0 && n != 42 {
				t.Fatalf("%s (filled: %v) has %d entries, want none or 42", v.Name, v.Filled, n)
			}
			if err := s.CopyUp(ctx, v.Name, dir, root, "/tree"); err != nil {
				t.Fatal(err)
			}
			if n := count(t, dir); n != 42 {
				t.Fatalf("%s has %d entries after its copy, want 42", v.Name, n)
			}
		}
	}
	if err := s.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	for _, e := range must[[]os.DirEntry](t)(os.ReadDir(s.dir())) {
		if state.IsLitter(e.Name()) {
			t.Errorf("Sweep left %s", e.Name())
		}
	}
}

func count(t *testing.T, dir string) (n int) {
	t.Helper()
	filepath.WalkDir(dir, func(string, os.DirEntry, error) error {
		n++
		return nil
	})
	return n - 1
}

func BenchmarkList1000(b *testing.B) {
	dir := b.TempDir()
	s := Open(state.Roots{Data: filepath.Join(dir, "data"), Run: filepath.Join(dir, "run")}, Options{})
	for i := range 1000 {
		if _, err := s.Ensure(b.Context(), Volume{Name: fmt.Sprintf("vol%d", i)}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		if list, err := s.Filter(nil); err != nil || len(list) != 1000 {
			b.Fatal(len(list), err)
		}
	}
}

func BenchmarkCreateRemove(b *testing.B) {
	dir := b.TempDir()
	s := Open(state.Roots{Data: filepath.Join(dir, "data"), Run: filepath.Join(dir, "run")}, Options{})
	for b.Loop() {
		if _, err := s.Ensure(b.Context(), Volume{Name: "data"}); err != nil {
			b.Fatal(err)
		}
		if err := s.Remove(b.Context(), "data"); err != nil {
			b.Fatal(err)
		}
	}
}

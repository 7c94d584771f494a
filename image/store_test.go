package image

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	kreg "github.com/kist-containers/kist/image/registry"
	"github.com/kist-containers/kist/internal/reexec"
	"github.com/kist-containers/kist/internal/state"
)

func TestMain(m *testing.M) {
	reexec.Dispatch(Roles())
	os.Exit(m.Run())
}

// newStore returns an empty store of this test's own.
func newStore(t testing.TB) *Store {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	d := t.TempDir()
	s := Open(state.Roots{Data: d + "/data", Run: d + "/run"}, Options{})
	t.Cleanup(func() { waitForReaper(s) })
	return s
}

// waitForReaper keeps the test's directory until nobody removes trash in it.
func waitForReaper(s *Store) {
	for range 500 {
		trash := slices.ContainsFunc(readNames(s.layerDir()), isTrash)
		if lock, err := state.TryLock(s.layerDir(reapLock)); err == nil {
			lock.Unlock()
			if !trash {
				return
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// quiet are options that read no file of the machine.
func quiet() PullOptions { return PullOptions{Registry: &kreg.Config{}} }

func mustPull(t testing.TB, s *Store, name string) *Image {
	t.Helper()
	img, err := s.Pull(context.Background(), name, quiet())
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func read(t testing.TB, elem ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(elem...))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestHelloIsThisBinary(t *testing.T) {
	s := newStore(t)
	img, err := s.Ensure(context.Background(), "hello", "", quiet())
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(filepath.Join(img.LowerDirs()[0], "kist"))
	self, _ := os.Stat("/proc/self/exe")
	if err != nil || st.Size() != self.Size() || st.Mode().Perm() != 0o755 {
		t.Errorf("kist = %v, %v", st, err)
	}
	if again, err := s.Ensure(context.Background(), "hello", "", quiet()); err != nil || again.ID != img.ID {
		t.Errorf("again = %+v, %v", again, err)
	}
}

func TestLayerFromDirectory(t *testing.T) {
	s := newStore(t)
	ctx := context.Background()
	l1, d1, err := s.AddLayer(ctx, "", bytes.NewReader(layerOf{"d/": "", "d/a": "a"}.tar(t)), LayerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	upper := filepath.Join(s.roots.Data, "upper")
	os.MkdirAll(upper+"/d", 0o755)
	os.WriteFile(upper+"/d/b", []byte("b"), 0o640)
	l2, d2, err := s.AddLayerFromDir(ctx, l1.ChainID, upper, LayerOptions{})
	if err != nil || exists(upper) || read(t, l2.Dir, "d/b") != "b" {
		t.Fatalf("layer = %+v, %v", l2, err)
	}
	h1, _ := v1.NewHash(l1.DiffID)
	h2, _ := v1.NewHash(l2.DiffID)
	img, err := s.AddImage(ctx, &v1.ConfigFile{OS: "linux", Architecture: "amd64", RootFS: v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{h1, h2}}},
		[]v1.Descriptor{d1, d2}, []string{"made", "made:2"})
	if err != nil || len(img.Names) != 2 || img.Size != 2 {
		t.Fatalf("image = %+v, %v", img, err)
	}
	// The archive that was written gives the same layer again.
	os.RemoveAll(l2.Dir)
	if img, err := s.Ensure(ctx, "made", PullNever, quiet()); err != nil || read(t, img.LowerDirs()[0], "d/b") != "b" {
		t.Errorf("unpacked again: %v", err)
	}
}

func BenchmarkList500(b *testing.B) {
	s := newStore(b)
	var entries []entry
	for i := range 500 {
		d := v1.Descriptor{MediaType: types.OCIManifestSchema1, Digest: hashOf(fmt.Append(nil, i)), Size: 100}
		cfg := &v1.ConfigFile{OS: "linux", Architecture: "amd64", Created: v1.Time{Time: time.Unix(int64(i), 0)}}
		entries = append(entries, noted(d, fmt.Sprintf("docker.io/library/i%d:latest", i), "", hashOf(fmt.Append(nil, "c", i)), cfg, 1))
	}
	if err := s.update(context.Background(), func([]entry) ([]entry, error) { return entries, nil }); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if list, err := s.List(); err != nil || len(list) != 500 {
			b.Fatal(len(list), err)
		}
	}
}

package image

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func TestRemoveByDigestKeepsTheNames(t *testing.T) {
	s, f := newStore(t), newRegistry(t)
	img := mustPull(t, s, f.push(t, "a:1", []layerOf{{"a": "a"}}, nil).name)
	byDigest := img.RepoDigests[0]
	done, err := s.Remove(context.Background(), byDigest, RemoveOptions{})
	if err != nil || !slices.Equal(done, []Removed{{Untagged: byDigest}}) {
		t.Fatalf("removed %v, %v", done, err)
	}
	if got, err := s.Resolve(img.Names[0]); err != nil || len(got.RepoDigests) != 0 {
		t.Errorf("image = %+v, %v", got, err)
	}
}

func TestRemoveListLeavesNothing(t *testing.T) {
	s, f := newStore(t), newRegistry(t)
	ctx := context.Background()
	// The build cache is a holder without an image.
	s.o.Uses = func() ([]Use, error) { return []Use{{Holder: "build cache"}}, nil }
	img := mustPull(t, s, f.push(t, "a:1", []layerOf{{"a": "a"}}, nil).name)
	d, err := s.AddIndex(ctx, []v1.Descriptor{bareWithPlatform(img.Manifest)}, []string{"list"})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.Resolve("list"); err != nil || got.ID != img.ID {
		t.Errorf("the list means %+v, %v", got, err)
	}
	if _, err := s.ResolvePlatform("list", "linux/s390x"); err == nil || !strings.Contains(err.Error(), "no image for linux/s390x") {
		t.Errorf("err = %v", err)
	}
	done, err := s.Remove(ctx, "list", RemoveOptions{})
	if err != nil || !slices.Contains(done, Removed{Deleted: d.Digest.String()}) {
		t.Errorf("removed %v, %v", done, err)
	}
	if list, err := s.List(); err != nil || len(list) != 1 {
		t.Errorf("list = %v, %v", list, err)
	}
}

func TestMountedImageIsInUse(t *testing.T) {
	s, f := newStore(t), newRegistry(t)
	ctx := context.Background()
	img := mustPull(t, s, f.push(t, "a:1", []layerOf{{"a": "a"}, {"b": "b"}}, nil).name)
	dir, err := s.Mount(ctx, img)
	if err != nil {
		t.Skipf("needs overlay mounts: %v", err)
	}
	defer s.Unmount(ctx, img.ID)
	if again, err := s.Mount(ctx, img); err != nil || again != dir || read(t, dir, "b") != "b" {
		t.Errorf("mounted again at %s, %v", again, err)
	}
	if m := s.Mounts(); m[short(img.ID)] != dir {
		t.Errorf("mounts = %v", m)
	}
	for _, force := range []bool{false, true} {
		if _, err := s.Remove(ctx, img.ID, RemoveOptions{Force: force}); !errors.Is(err, ErrInUse) {
			t.Errorf("force %v: %v, want ErrInUse", force, err)
		}
	}
	if _, err := s.Prune(ctx, true, nil); err != nil || !img.unpacked() {
		t.Errorf("prune: %v, unpacked %v", err, img.unpacked())
	}
	if err := s.Unmount(ctx, img.ID); err != nil || len(s.Mounts()) > 0 {
		t.Errorf("unmount: %v, %v", err, s.Mounts())
	}
	if _, err := s.Remove(ctx, img.ID, RemoveOptions{}); err != nil {
		t.Error(err)
	}
}

func TestPlatformThatTheImageIsNotFor(t *testing.T) {
	s, f := newStore(t), newRegistry(t)
	r := f.push(t, "a:1", []layerOf{{"a": "a"}}, nil)
	o := quiet()
	o.Platform = "linux/arm64"
	for _, policy := range []string{PullAlways, PullMissing} {
		if _, err := s.Ensure(context.Background(), r.name, policy, o); err == nil || !strings.Contains(err.Error(), "is for linux/amd64, not linux/arm64") {
			t.Errorf("%s: %v", policy, err)
		}
		mustPull(t, s, r.name)
	}
}

func TestRemoveKeepsWhatIsUsed(t *testing.T) {
	f := newRegistry(t)
	s := newStore(t)
	var uses []Use
	s.o.Uses = func() ([]Use, error) { return uses, nil }
	ctx := context.Background()
	shared := layerOf{"s": "s"}
	a := mustPull(t, s, f.push(t, "a:1", []layerOf{shared, {"a": "a"}}, nil).name)
	b := mustPull(t, s, f.push(t, "b:1", []layerOf{shared, {"b": "b"}}, nil).name)
	uses = []Use{{Holder: "container web", ImageID: a.ID, ChainIDs: a.ChainIDs(), Running: true}}
	if _, err := s.Remove(ctx, a.ID, RemoveOptions{Force: true}); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "container web") {
		t.Errorf("removing the image of a running container: %v", err)
	}
	uses[0].Running = false
	if _, err := s.Remove(ctx, a.Names[0], RemoveOptions{}); !errors.Is(err, ErrInUse) {
		t.Errorf("removing the image of a container without force: %v", err)
	}
	if _, err := s.Remove(ctx, a.Names[0], RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if !a.unpacked() {
		t.Error("the layers of a container were removed")
	}
	if _, err := s.Resolve(a.ID); err != nil {
		t.Errorf("the container's image cannot be found by ID: %v", err)
	}
	uses = nil
	done, err := s.Remove(ctx, a.ID, RemoveOptions{})
	if err != nil || !exists(b.Layers[0].Dir) || !exists(b.Layers[1].Dir) || exists(a.Layers[1].Dir) {
		t.Errorf("removed %v, %v", done, err)
	}
	if _, err := s.Remove(ctx, b.ID, RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{s.layerDir(), s.imageDir("blobs/sha256")} {
		waitForReaper(s)
		for _, n := range readNames(dir) {
			if n != reapLock && !isTrash(n) {
				t.Errorf("%s is left in %s", n, dir)
			}
		}
	}
}

func TestPinStopsTheCollector(t *testing.T) {
	s, f := newStore(t), newRegistry(t)
	img := mustPull(t, s, f.push(t, "a:1", []layerOf{{"a": "a"}}, nil).name)
	pin, err := s.Pin(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Remove(context.Background(), img.ID, RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if !img.unpacked() {
		t.Error("layers were removed under a pin")
	}
	s.unpin(pin)
	if img.unpacked() {
		t.Error("the last pin did not collect")
	}
}

func TestTagUntagAndDangling(t *testing.T) {
	s, f := newStore(t), newRegistry(t)
	ctx := context.Background()
	img := mustPull(t, s, f.push(t, "a:1", []layerOf{{"a": "a"}}, nil).name)
	if err := s.Tag(ctx, img.ID, "other"); err != nil {
		t.Fatal(err)
	}
	got, err := s.Resolve("other:latest")
	if err != nil || got.ID != img.ID || len(got.Names) != 2 {
		t.Fatalf("Resolve = %+v, %v", got, err)
	}
	done, err := s.Remove(ctx, "other", RemoveOptions{})
	if err != nil || len(done) != 1 || done[0].Untagged != "other:latest" || !img.unpacked() {
		t.Errorf("untagging = %v, %v", done, err)
	}
	// A tag that moves leaves the old image without a name.
	next := f.push(t, "a:1", []layerOf{{"b": "b"}}, nil)
	mustPull(t, s, next.name)
	old, err := s.Resolve(img.ID)
	if err != nil || len(old.Names) != 0 {
		t.Errorf("the old image = %+v, %v; want it without a name", old, err)
	}
	p, err := s.Prune(ctx, false, nil)
	if err != nil || len(p.Removed) == 0 {
		t.Errorf("prune = %+v, %v", p, err)
	}
	if _, err := s.Resolve(img.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("after prune: %v", err)
	}
}

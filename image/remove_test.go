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

package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sys/unix"

	kreg "github.com/kist-containers/kist/image/registry"
)

func TestPullUnpacksLayersReadyForOverlay(t *testing.T) {
	s, f := newStore(t), newRegistry(t)
	r := f.push(t, "app:1", []layerOf{{"etc/": "", "etc/a": "1", "etc/b": "2"}, {"etc/": "", "etc/.wh.a": "", "etc/c": "3"}}, nil)
	img := mustPull(t, s, r.name)
	if img.Digest != r.digest.String() || img.Names[0] != r.name || img.ID != r.manifest.Config.Digest.String() {
		t.Errorf("image = %+v", img)
	}
	lowers := img.LowerDirs()
	if len(lowers) != 2 || read(t, lowers[0], "etc/c") != "3" || read(t, lowers[1], "etc/a") != "1" {
		t.Errorf("lowers = %v", lowers)
	}
	before := f.requests.Load()
	if again := mustPull(t, s, r.name); again.ID != img.ID || f.requests.Load() != before+1 {
		t.Errorf("a pull of what is there took %d requests, want 1", f.requests.Load()-before)
	}
	for _, name := range []string{r.name, img.ID, short(img.ID), f.host() + "/app@" + img.Digest} {
		if got, err := s.Resolve(name); err != nil || got.ID != img.ID {
			t.Errorf("Resolve(%q) = %v, %v", name, got, err)
		}
	}
	if _, err := s.Resolve("nothing"); !errors.Is(err, ErrNotFound) {
		t.Errorf("Resolve(nothing): %v, want ErrNotFound", err)
	}
}

func TestSecondImageFetchesOnlyItsOwnLayer(t *testing.T) {
	s, f := newStore(t), newRegistry(t)
	shared := layerOf{"big": strings.Repeat("shared", 1000)}
	mustPull(t, s, f.push(t, "one:1", []layerOf{shared, {"a": "a"}}, nil).name)
	before := f.sent.Load()
	r := f.push(t, "two:1", []layerOf{shared, {"b": "b"}}, nil)
	mustPull(t, s, r.name)
	if got, want := f.sent.Load()-before, r.manifest.Layers[1].Size+r.manifest.Config.Size; got != want {
		t.Errorf("transferred %d bytes, want %d", got, want)
	}
}

func TestDownloadResumesWhenCut(t *testing.T) {
	s, f := newStore(t), newRegistry(t)
	var b strings.Builder
	for i := range 400_000 {
		fmt.Fprintf(&b, "%x-", i*i*7919)
	}
	r := f.push(t, "big:1", []layerOf{{"f": b.String()}}, nil)
	size := r.manifest.Layers[0].Size
	f.cutAfter.Store(100 << 10)
	img := mustPull(t, s, r.name)
	if got := f.sent.Load(); got > size*11/10 {
		t.Errorf("transferred %d bytes for a blob of %d", got, size)
	}
	if read(t, img.LowerDirs()[0], "f") != b.String() {
		t.Error("content differs")
	}
}

func TestResetConnectionsLoseLittle(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1<<20) != nil {
		t.Skip("needs CAP_NET_ADMIN")
	}
	s, f := newStore(t), newRegistry(t)
	noise := make([]byte, 12<<20)
	rand.NewChaCha8([32]byte{}).Read(noise)
	r := f.push(t, "big:1", []layerOf{{"f": string(noise)}}, nil)
	f.cutAfter.Store(1 << 20)
	f.reset.Store(true)
	mustPull(t, s, r.name)
	if got, size := f.sent.Load(), r.manifest.Layers[0].Size; got > size*13/10 {
		t.Errorf("transferred %d bytes for a blob of %d", got, size)
	}
}

func TestKilledPullContinues(t *testing.T) {
	s, f := newStore(t), newRegistry(t)
	r := f.push(t, "big:1", []layerOf{{"f": strings.Repeat("0123456789", 100000)}}, nil)
	d := r.manifest.Layers[0]
	// What a killed pull leaves: nine tenths of the blob.
	var blob []byte
	f.intercept = nil
	resp, err := http.Get(f.URL + "/v2/big/blobs/" + d.Digest.String())
	if err != nil {
		t.Fatal(err)
	}
	blob, _ = io.ReadAll(resp.Body)
	resp.Body.Close()
	if err := s.prepare(); err != nil {
		t.Fatal(err)
	}
	os.WriteFile(s.partialPath(d), blob[:len(blob)*9/10], 0o600)
	before := f.sent.Load()
	mustPull(t, s, r.name)
	if got := f.sent.Load() - before - r.manifest.Config.Size; got > d.Size*15/100 {
		t.Errorf("transferred %d of %d bytes", got, d.Size)
	}
	// And what a broken disk leaves: other bytes.
	s = newStore(t)
	s.prepare()
	os.WriteFile(s.partialPath(d), bytes.Repeat([]byte("x"), len(blob)/2), 0o600)
	mustPull(t, s, r.name)
}

func TestBusyRegistryIsAskedAgain(t *testing.T) {
	s, f := newStore(t), newRegistry(t)
	r := f.push(t, "app:1", []layerOf{{"a": "a"}}, nil)
	var n atomic.Int64
	f.intercept = func(w http.ResponseWriter, r *http.Request) bool {
		switch n.Add(1) {
		case 1, 4:
			w.WriteHeader(http.StatusTooManyRequests)
			return true
		case 2:
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		}
		return false
	}
	mustPull(t, s, r.name)
}

func TestTwoPullsDownloadOnce(t *testing.T) {
	s, f := newStore(t), newRegistry(t)
	r := f.push(t, "app:1", []layerOf{{"a": strings.Repeat("a", 1<<20)}, {"b": "b"}, {"c": "c"}}, nil)
	f.sent.Store(0)
	errs := make(chan error, 4)
	for range 4 {
		go func() {
			_, err := Open(s.roots, s.o).Pull(context.Background(), r.name, quiet())
			errs <- err
		}()
	}
	for range 4 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	want := int64(0)
	for _, l := range r.manifest.Layers {
		want += l.Size
	}
	if got := f.sent.Load(); got > want+4*r.manifest.Config.Size {
		t.Errorf("transferred %d bytes of layers, want %d", got, want)
	}
}

func TestIndexChoosesThePlatform(t *testing.T) {
	s, f := newStore(t), newRegistry(t)
	var list []v1.Descriptor
	for i, arch := range []string{"arm64", "amd64"} {
		r := f.push(t, fmt.Sprintf("app:%d", i), []layerOf{{"arch": arch}}, func(_ *v1.Manifest, c *v1.ConfigFile) { c.Architecture = arch })
		data, _ := json.Marshal(r.manifest)
		list = append(list, v1.Descriptor{MediaType: types.OCIManifestSchema1, Digest: r.digest, Size: int64(len(data)), Platform: &v1.Platform{OS: "linux", Architecture: arch}})
	}
	data, _ := json.Marshal(v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: list})
	f.manifest(t, "app", "multi", data, types.OCIImageIndex)
	name := f.host() + "/app:multi"
	for _, arch := range []string{"arm64", "amd64"} {
		o := quiet()
		o.Platform = "linux/" + arch
		img, err := s.Pull(context.Background(), name, o)
		if err != nil || img.Config.Architecture != arch {
			t.Errorf("%s: %+v, %v", arch, img, err)
		}
		if len(img.RepoDigests) != 1 || !strings.HasSuffix(img.RepoDigests[0], hashOf(data).String()) {
			t.Errorf("repo digests = %v, want the index's", img.RepoDigests)
		}
	}
	o := quiet()
	o.Platform = "linux/s390x"
	if _, err := s.Pull(context.Background(), name, o); err == nil || !strings.Contains(err.Error(), "no image for linux/s390x (there are linux/arm64, linux/amd64)") {
		t.Errorf("err = %v", err)
	}
}

func TestPushSendsTheSameBytes(t *testing.T) {
	s, f := newStore(t), newRegistry(t)
	to := newRegistry(t)
	ctx := context.Background()
	img := mustPull(t, s, f.push(t, "a:1", []layerOf{{"a": "a"}, {"b": strings.Repeat("b", 300_000)}}, nil).name)
	name := to.host() + "/copy/a:2"
	if err := s.Tag(ctx, img.ID, name); err != nil {
		t.Fatal(err)
	}
	o := PushOptions{Registry: &kreg.Config{}}
	if d, err := s.Push(ctx, name, o); err != nil || d.Digest.String() != img.Digest {
		t.Fatalf("push = %v, %v", d.Digest, err)
	}
	before := to.requests.Load()
	if _, err := s.Push(ctx, name, o); err != nil || to.requests.Load() != before+1 {
		t.Errorf("a second push took %d requests, %v; want 1", to.requests.Load()-before, err)
	}
	other := newStore(t)
	if got := mustPull(t, other, name); got.Digest != img.Digest || got.ID != img.ID {
		t.Errorf("pulled %s, pushed %s", got.Digest, img.Digest)
	}
}

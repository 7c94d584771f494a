package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"

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

// A fakeRegistry is go-containerregistry's in-memory one, which counts bytes
// and may misbehave.
type fakeRegistry struct {
	*httptest.Server
	// sent counts the bytes of blobs; requests all requests.
	sent, requests atomic.Int64
	// cutAfter ends each blob's response after so many bytes, 0 never.
	cutAfter atomic.Int64
	// intercept answers in place of the registry when it returns true.
	intercept func(w http.ResponseWriter, r *http.Request) bool
}

func newRegistry(t testing.TB) *fakeRegistry {
	t.Helper()
	f := &fakeRegistry{}
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.requests.Add(1)
		if f.intercept != nil && f.intercept(w, r) {
			return
		}
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/sha256:") {
			f.blob(w, r, inner)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(f.Close)
	return f
}

// blob serves ranges, which the in-memory registry does not, and cuts.
func (f *fakeRegistry) blob(w http.ResponseWriter, r *http.Request, inner http.Handler) {
	rec := httptest.NewRecorder()
	plain := r.Clone(r.Context())
	plain.Header.Del("Range")
	inner.ServeHTTP(rec, plain)
	body := rec.Body.Bytes()
	var off int
	status := rec.Code
	if n, _ := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &off); n == 1 && status == 200 {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", off, len(body)-1, len(body)))
		body, status = body[off:], http.StatusPartialContent
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	w.WriteHeader(status)
	if cut := int(f.cutAfter.Load()); cut > 0 && len(body) > cut {
		body = body[:cut]
	}
	n, _ := w.Write(body)
	f.sent.Add(int64(n))
}

func (f *fakeRegistry) host() string { return strings.TrimPrefix(f.URL, "http://") }

// A layerOf is the content of one layer: names to text; a name that ends in /
// is a directory.
type layerOf map[string]string

func (l layerOf) tar(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, text := range l {
		hdr := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(text))}
		if strings.HasSuffix(name, "/") {
			hdr = &tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755}
		}
		if err := w.WriteHeader(hdr); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, text)
	}
	w.Close()
	return b.Bytes()
}

func gz(data []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write(data)
	w.Close()
	return b.Bytes()
}

// A remote is an image that was put into a registry.
type remote struct {
	name     string
	manifest v1.Manifest
	config   v1.ConfigFile
	digest   v1.Hash
}

// push makes an image of layers in the registry. change may spoil it before.
func (f *fakeRegistry) push(t testing.TB, name string, layers []layerOf, change func(*v1.Manifest, *v1.ConfigFile)) remote {
	t.Helper()
	r := remote{name: f.host() + "/" + name}
	path, tag, _ := strings.Cut(name, ":")
	r.config = v1.ConfigFile{Architecture: "amd64", OS: "linux", RootFS: v1.RootFS{Type: "layers"}, Config: v1.Config{Cmd: []string{name}}}
	r.manifest = v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1}
	for _, l := range layers {
		plain := l.tar(t)
		r.config.RootFS.DiffIDs = append(r.config.RootFS.DiffIDs, hashOf(plain))
		r.manifest.Layers = append(r.manifest.Layers, f.put(t, path, gz(plain), types.OCILayer))
	}
	m := &r.manifest
	raw, _ := json.Marshal(r.config)
	m.Config = f.put(t, path, raw, types.OCIConfigJSON)
	if change != nil {
		change(m, &r.config)
		raw, _ = json.Marshal(r.config)
		m.Config = f.put(t, path, raw, types.OCIConfigJSON)
	}
	data, _ := json.Marshal(m)
	r.digest = hashOf(data)
	f.manifest(t, path, tag, data, types.OCIManifestSchema1)
	return r
}

func (f *fakeRegistry) put(t testing.TB, path string, data []byte, mt types.MediaType) v1.Descriptor {
	t.Helper()
	h := hashOf(data)
	req, _ := http.NewRequest(http.MethodPost, f.URL+"/v2/"+path+"/blobs/uploads/?digest="+h.String(), bytes.NewReader(data))
	f.must(t, req)
	return v1.Descriptor{MediaType: mt, Digest: h, Size: int64(len(data))}
}

func (f *fakeRegistry) manifest(t testing.TB, path, ref string, data []byte, mt types.MediaType) {
	t.Helper()
	req, _ := http.NewRequest(http.MethodPut, f.URL+"/v2/"+path+"/manifests/"+ref, bytes.NewReader(data))
	req.Header.Set("Content-Type", string(mt))
	f.must(t, req)
}

func (f *fakeRegistry) must(t testing.TB, req *http.Request) {
	t.Helper()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		t.Fatalf("%s %s: %s", req.Method, req.URL, resp.Status)
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

func TestSaveAndLoadKeepDigests(t *testing.T) {
	s, f := newStore(t), newRegistry(t)
	ctx := context.Background()
	a := mustPull(t, s, f.push(t, "a:1", []layerOf{{"a": "a"}, {"b": "b"}}, nil).name)
	for _, format := range []string{DockerArchive, OCIArchive} {
		var b bytes.Buffer
		if err := s.Save(ctx, &b, []string{a.Names[0]}, SaveOptions{Format: format}); err != nil {
			t.Fatal(err)
		}
		for name, data := range map[string][]byte{"plain": b.Bytes(), "gzip": gz(b.Bytes())} {
			other := newStore(t)
			path := t.TempDir() + "/a.tar"
			os.WriteFile(path, data, 0o600)
			images, err := other.LoadFile(ctx, path, LoadOptions{})
			if err != nil || len(images) != 1 || images[0].Digest != a.Digest || images[0].Names[0] != a.Names[0] || !images[0].unpacked() {
				t.Errorf("%s %s: loaded %+v, %v", format, name, images, err)
			}
		}
	}
	dir := t.TempDir() + "/layout"
	if err := s.SaveDir(ctx, dir, []string{a.ID}, SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	images, err := newStore(t).LoadFile(ctx, dir, LoadOptions{})
	if err != nil || images[0].Digest != a.Digest || len(images[0].Names) != 0 {
		t.Errorf("directory: loaded %+v, %v", images, err)
	}
}

// dockerArchive is what docker save wrote before version 25.
func dockerArchive(t testing.TB, change func(map[string][]byte)) []byte {
	one, two := layerOf{"a": "a"}.tar(t), layerOf{"b": "b"}.tar(t)
	cfg, _ := json.Marshal(v1.ConfigFile{Architecture: "amd64", OS: "linux", RootFS: v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{hashOf(one), hashOf(two)}}})
	manifest, _ := json.Marshal([]dockerItem{{Config: "c.json", RepoTags: []string{"old:1", "old:2"}, Layers: []string{"l1/layer.tar", "l2/layer.tar"}}})
	files := map[string][]byte{"l1/layer.tar": one, "l2/layer.tar": gz(two), "c.json": cfg, "manifest.json": manifest}
	if change != nil {
		change(files)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, data := range files {
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(data))})
		w.Write(data)
	}
	w.Close()
	return b.Bytes()
}

func TestLoadDockerArchive(t *testing.T) {
	s := newStore(t)
	path := t.TempDir() + "/a.tar"
	os.WriteFile(path, dockerArchive(t, nil), 0o600)
	for range 2 {
		images, err := s.LoadFile(context.Background(), path, LoadOptions{})
		if err != nil || len(images) != 1 || len(images[0].Names) != 2 || read(t, images[0].LowerDirs()[0], "b") != "b" {
			t.Fatalf("loaded %+v, %v", images, err)
		}
	}
	for name, change := range map[string]func(map[string][]byte){
		"other layer":    func(f map[string][]byte) { f["l1/layer.tar"] = layerOf{"evil": "x"}.tar(t) },
		"missing layer":  func(f map[string][]byte) { delete(f, "l1/layer.tar") },
		"missing config": func(f map[string][]byte) { delete(f, "c.json") },
		"no json":        func(f map[string][]byte) { f["manifest.json"] = []byte("<html>") },
		"layer is text":  func(f map[string][]byte) { f["l1/layer.tar"] = bytes.Repeat([]byte("text "), 1000) },
		"nothing":        func(f map[string][]byte) { clear(f) },
	} {
		s := newStore(t)
		os.WriteFile(path, dockerArchive(t, change), 0o600)
		if images, err := s.LoadFile(context.Background(), path, LoadOptions{}); err == nil {
			t.Errorf("%s: loaded %+v", name, images)
		}
		if list, err := s.List(); err != nil || len(list) != 0 {
			t.Errorf("%s: left %v, %v", name, list, err)
		}
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

package image

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/state"
)

func noLitter(t *testing.T, s *Store) {
	t.Helper()
	litter, _ := filepath.Glob(s.layerDir(".tmp-*"))
	if len(litter) > 0 {
		t.Errorf("left %v", litter)
	}
}

func TestBadImagesLeaveTheStoreUnharmed(t *testing.T) {
	ok := []layerOf{{"a": "a"}}
	for name, c := range map[string]struct {
		change func(*v1.Manifest, *v1.ConfigFile)
		want   string
	}{
		"wrong diffID":     {func(_ *v1.Manifest, c *v1.ConfigFile) { c.RootFS.DiffIDs[0] = hashOf([]byte("other")) }, "does not match"},
		"size too small":   {func(m *v1.Manifest, _ *v1.ConfigFile) { m.Layers[0].Size-- }, "does not match"},
		"size too large":   {func(m *v1.Manifest, _ *v1.ConfigFile) { m.Layers[0].Size++ }, ""},
		"layer missing":    {func(m *v1.Manifest, _ *v1.ConfigFile) { m.Layers[0].Digest = hashOf([]byte("nope")) }, ""},
		"more diffIDs":     {func(_ *v1.Manifest, c *v1.ConfigFile) { c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, hashOf(nil)) }, "1 layers, the configuration 2"},
		"negative size":    {func(m *v1.Manifest, _ *v1.ConfigFile) { m.Layers[0].Size = -5 }, "negative"},
		"schema 1":         {func(m *v1.Manifest, _ *v1.ConfigFile) { m.SchemaVersion = 1 }, "too old"},
		"other media type": {func(m *v1.Manifest, _ *v1.ConfigFile) { m.MediaType = types.DockerManifestSchema2 }, "served as"},
		"thousands of layers": {func(m *v1.Manifest, c *v1.ConfigFile) {
			for range 2000 {
				m.Layers = append(m.Layers, m.Layers[0])
				c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, c.RootFS.DiffIDs[0])
			}
		}, "more than 500"},
	} {
		t.Run(name, func(t *testing.T) {
			s, f := newStore(t), newRegistry(t)
			good := mustPull(t, s, f.push(t, "good:1", ok, nil).name)
			r := f.push(t, "bad:1", []layerOf{{"b": name}}, c.change)
			_, err := s.Pull(context.Background(), r.name, quiet())
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("err = %v, want one line with %q", err, c.want)
			}
			if _, err := s.Resolve(r.name); !errors.Is(err, ErrNotFound) {
				t.Errorf("the bad image is there: %v", err)
			}
			if again, err := s.Resolve(good.ID); err != nil || !again.unpacked() {
				t.Errorf("the good image is harmed: %v", err)
			}
			noLitter(t, s)
		})
	}
}

func TestOddRegistriesAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(w http.ResponseWriter)
		want   string
	}{
		"web page": {func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", string(types.OCIManifestSchema1))
			io.WriteString(w, "<html>login</html>")
		}, "web page"},
		"huge manifest": {func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", string(types.OCIManifestSchema1))
			w.Write(bytes.Repeat([]byte(" "), 5<<20))
		}, "more than 4194304 bytes"},
		"index with layers": {func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", string(types.OCIImageIndex))
			io.WriteString(w, `{"schemaVersion":2,"manifests":[],"layers":[],"config":{}}`)
		}, "like an image"},
		"redirect to file": {func(w http.ResponseWriter) {
			w.Header().Set("Location", "file:///etc/passwd")
			w.WriteHeader(http.StatusFound)
		}, "not a web address"},
		"text with escapes": {func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusForbidden)
			io.WriteString(w, `{"errors":[{"code":"DENIED","message":"no \u001b[2J"}]}`)
		}, "no"},
	} {
		t.Run(name, func(t *testing.T) {
			s, f := newStore(t), newRegistry(t)
			f.intercept = func(w http.ResponseWriter, r *http.Request) bool {
				c.answer(w)
				return true
			}
			_, err := s.Pull(context.Background(), f.host()+"/x:1", quiet())
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("err = %v, want %q", err, c.want)
			}
		})
	}
}

// TestBadBlobsAreNamedAndARetryWorks spoils what the registry sends of a layer,
// and then sends it right.
func TestBadBlobsAreNamedAndARetryWorks(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(w http.ResponseWriter, blob []byte)
		want  string
	}{
		"web page":    {func(w http.ResponseWriter, _ []byte) { io.WriteString(w, "<html>please log in</html>") }, "the registry has 26 of the"},
		"other bytes": {func(w http.ResponseWriter, blob []byte) { w.Write(bytes.Repeat([]byte("x"), len(blob))) }, "content does not match its digest: got sha256:"},
		"one bit": {func(w http.ResponseWriter, blob []byte) {
			blob = bytes.Clone(blob)
			blob[len(blob)/2] ^= 1
			w.Write(blob)
		}, "content does not match its digest: got sha256:"},
		"too short":  {func(w http.ResponseWriter, blob []byte) { w.Write(blob[:len(blob)/2]) }, "of its descriptor"},
		"more bytes": {func(w http.ResponseWriter, blob []byte) { w.Write(append(bytes.Clone(blob), "more"...)) }, "more than the"},
		"endless":    {func(w http.ResponseWriter, _ []byte) { io.Copy(w, endless{}) }, "does not match"},
		"not found":  {func(w http.ResponseWriter, _ []byte) { w.WriteHeader(http.StatusNotFound) }, "404 Not Found"},
		"a loop": {func(w http.ResponseWriter, _ []byte) {
			w.Header().Set("Location", "?again")
			w.WriteHeader(http.StatusFound)
		}, "more than 5 redirects"},
		"a wrong part": {func(w http.ResponseWriter, _ []byte) {
			w.Header().Set("Content-Range", "bytes x-y/z")
			w.WriteHeader(http.StatusPartialContent)
		}, "sent the range"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, f := newStore(t), newRegistry(t)
			text := make([]byte, 20_000)
			rand.Read(text)
			r := f.push(t, "app:1", []layerOf{{"a": "fine"}, {"b": string(text)}}, nil)
			d := r.manifest.Layers[1]
			resp, err := http.Get(f.URL + "/v2/app/blobs/" + d.Digest.String())
			if err != nil {
				t.Fatal(err)
			}
			blob, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			f.intercept = func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.Contains(r.URL.Path, d.Digest.Hex) {
					return false
				}
				c.spoil(w, blob)
				return true
			}
			_, err = s.Pull(context.Background(), r.name, quiet())
			if err == nil || !strings.Contains(err.Error(), "blob "+short(d.Digest.String())) && !strings.Contains(err.Error(), "blob "+d.Digest.String()) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("err = %v, want the blob and %q", err, c.want)
			}
			noLitter(t, s)
			f.intercept = nil
			img := mustPull(t, s, r.name)
			if read(t, img.LowerDirs()[0], "b") != string(text) {
				t.Error("content differs")
			}
		})
	}
}

type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

func TestManifestsThatAreSomethingElse(t *testing.T) {
	s, f := newStore(t), newRegistry(t)
	r := f.push(t, "app:1", []layerOf{{"a": "a"}}, nil)
	serve := func(tag string, mt types.MediaType, doc any) {
		data, _ := json.Marshal(doc)
		f.manifest(t, "app", tag, data, mt)
	}
	m := r.manifest
	m.Config.MediaType = "application/vnd.example.thing+json"
	serve("artifact", types.OCIManifestSchema1, m)
	huge := r.manifest
	huge.Config.Size = 9 << 20
	serve("config", types.OCIManifestSchema1, huge)
	nested := v1.Descriptor{MediaType: types.OCIManifestSchema1, Digest: r.digest, Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}
	for i := range 4 {
		data, _ := json.Marshal(v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{nested}})
		f.manifest(t, "app", fmt.Sprintf("nest%d", i), data, types.OCIImageIndex)
		nested = v1.Descriptor{MediaType: types.OCIImageIndex, Digest: hashOf(data), Size: int64(len(data)), Platform: nested.Platform}
	}
	for tag, want := range map[string]string{"artifact": "not a container image but an artifact (application/vnd.example.thing+json)", "config": "bytes, more than", "nest3": "nest too deep"} {
		if _, err := s.Pull(context.Background(), f.host()+"/app:"+tag, quiet()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", tag, err, want)
		}
	}
	mustPull(t, s, f.host()+"/app:nest1")
}

// TestTypesThatSayNothing pulls what is served as text or as octets.
func TestTypesThatSayNothing(t *testing.T) {
	s, f := newStore(t), newRegistry(t)
	r := f.push(t, "app:1", []layerOf{{"a": "a"}}, nil)
	m := r.manifest
	m.MediaType = ""
	data, _ := json.Marshal(m)
	index, _ := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": []any{map[string]any{"digest": hashOf(data).String(), "size": len(data), "platform": map[string]string{"os": "linux", "architecture": "amd64"}}}})
	f.intercept = func(w http.ResponseWriter, r *http.Request) bool {
		_, ref, is := strings.Cut(r.URL.Path, "/manifests/")
		if !is {
			return false
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if ref == "index" {
			w.Write(index)
		} else {
			w.Write(data)
		}
		return true
	}
	for _, tag := range []string{"plain", "index"} {
		img := mustPull(t, s, f.host()+"/app:"+tag)
		if img.Manifest.MediaType != types.OCIManifestSchema1 {
			t.Errorf("%s: recorded as %q", tag, img.Manifest.MediaType)
		}
	}
}

// TestForeignLayersComeFromTheRegistryOnly has a layer whose urls lead elsewhere.
func TestForeignLayersComeFromTheRegistryOnly(t *testing.T) {
	s, f := newStore(t), newRegistry(t)
	asked := false
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true }))
	defer elsewhere.Close()
	foreign := func(m *v1.Manifest, _ *v1.ConfigFile) {
		m.Layers[0].URLs = []string{elsewhere.URL + "/layer"}
		m.Layers[0].MediaType = types.DockerForeignLayer
	}
	mustPull(t, s, f.push(t, "app:1", []layerOf{{"a": "a"}}, foreign).name)
	r := f.push(t, "app:2", []layerOf{{"b": "b"}}, func(m *v1.Manifest, c *v1.ConfigFile) {
		foreign(m, c)
		m.Layers[0].Digest = hashOf([]byte("nowhere"))
	})
	_, err := s.Pull(context.Background(), r.name, quiet())
	if err == nil || !strings.Contains(err.Error(), "blob "+short(r.manifest.Layers[0].Digest.String())) || asked {
		t.Errorf("err = %v, asked elsewhere: %v", err, asked)
	}
}

func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("kist-test", dir, "tmpfs", 0, "size=6m"); err != nil {
		t.Skipf("needs to mount tmpfs: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	s := Open(state.Roots{Data: dir + "/data", Run: t.TempDir()}, Options{})
	t.Cleanup(func() { waitForReaper(s) })
	f := newRegistry(t)
	good := mustPull(t, s, f.push(t, "good:1", []layerOf{{"good": "g"}}, nil).name)
	text := make([]byte, 5<<20)
	rand.Read(text)
	r := f.push(t, "big:1", []layerOf{{"b": string(text)}}, nil)
	for name, fill := range map[string]func() error{
		"pull": func() error { _, err := s.Pull(context.Background(), r.name, quiet()); return err },
		"load": func() error {
			path := t.TempDir() + "/a.tar"
			os.WriteFile(path, dockerArchive(t, func(f map[string][]byte) { f["l1/layer.tar"] = layerOf{"b": string(text) + string(text)}.tar(t) }), 0o600)
			_, err := s.LoadFile(context.Background(), path, LoadOptions{})
			return err
		},
	} {
		if err := fill(); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("%s: %v, want no space left", name, err)
		}
		noLitter(t, s)
		if again, err := s.Resolve(good.ID); err != nil || !again.unpacked() {
			t.Errorf("the good image is harmed: %v", err)
		}
		if _, err := s.Resolve(r.name); !errors.Is(err, ErrNotFound) {
			t.Errorf("the half image is there: %v", err)
		}
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}
	if img := mustPull(t, s, r.name); read(t, img.LowerDirs()[0], "b") != string(text) {
		t.Error("content differs")
	}
}

package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"os"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

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

package image

import (
	"archive/tar"
	"bytes"
	"context"
	"os"
	"strings"
	"testing"

	"github.com/kist-containers/kist/internal/state"
)

func FuzzParseReference(f *testing.F) {
	for _, s := range []string{"busybox", "localhost:5000/a/b:c", "a@sha256:" + strings.Repeat("0", 64), "[::1]:80/x", "a__b/c--d", "UP/x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseReference(s)
		if err != nil {
			return
		}
		for _, text := range []string{r.String(), r.Familiar()} {
			if again, err := ParseReference(text); err != nil || again != r {
				t.Fatalf("%q gives %+v, whose text %q gives %+v, %v", s, r, text, again, err)
			}
		}
		if strings.ContainsAny(r.String(), " \n\x00\\?#%") || strings.Contains(r.Path, "..") {
			t.Fatalf("%q gives %q", s, r)
		}
	})
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"config":{"digest":"sha256:` + strings.Repeat("0", 64) + `","size":2},"layers":[]}`))
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"platform":{"os":"linux","architecture":"arm"}}]}`))
	f.Add([]byte(`{"rootfs":{"diff_ids":["sha256:x"]},"config":{"Healthcheck":{"Interval":"1s"}}}`))
	f.Add([]byte(`[{"Config":"../x","RepoTags":["a:b"],"Layers":["/etc/passwd"]}]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if m, err := parseManifest(data, ""); err == nil && len(m.Layers) > maxLayers {
			t.Fatal("too many layers")
		}
		if im, err := parseIndex(data, ""); err == nil {
			p, _ := ParsePlatform("")
			choose(im.Manifests, p)
		}
		parseConfig(data)
		parseDockerManifest(data)
	})
}

// FuzzLoad loads archives of any content. Nothing may be left in the store
// after an error but blobs for the collector.
func FuzzLoad(f *testing.F) {
	if os.Geteuid() != 0 {
		f.Skip("needs root")
	}
	f.Add(dockerArchive(f, nil))
	f.Add(dockerArchive(f, func(files map[string][]byte) { files["c.json"] = []byte("{}") }))
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "manifest.json", Linkname: "/etc/passwd"})
	w.Close()
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		d := t.TempDir()
		s := Open(state.Roots{Data: d + "/data", Run: d + "/run"}, Options{})
		path := d + "/a.tar"
		os.WriteFile(path, data, 0o600)
		images, err := s.LoadFile(context.Background(), path, LoadOptions{})
		list, lerr := s.List()
		if lerr != nil || err != nil && len(list) > len(images) {
			t.Fatalf("after %v: %v, %v", err, list, lerr)
		}
	})
}

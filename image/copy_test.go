package image

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/kist-containers/kist/internal/ui"
)

// copyImage is `kist image copy`, without progress.
func copyImage(t *testing.T, s *Store, from, to string) (digest string) {
	t.Helper()
	c := CopyCmd{Quiet: true, Source: from, Dest: to, RegistryFlags: RegistryFlags{TLSVerify: true}}
	d, err := c.copy(context.Background(), s, &ui.Output{})
	if err != nil {
		t.Fatalf("copy %s %s: %v", from, to, err)
	}
	return d.Digest.String()
}

func TestCopyBetweenAllTransports(t *testing.T) {
	s, f := newStore(t), newRegistry(t)
	r := f.push(t, "app:1", []layerOf{{"a": "1"}, {"b": strings.Repeat("2", 100_000)}}, nil)
	dir := t.TempDir()
	places := []string{
		"docker://" + f.host() + "/copy/app:2", "oci:" + dir + "/layout:tag", "oci-archive:" + dir + "/o.tar:v1",
		"docker-archive:" + dir + "/d.tar:me/app:3", "dir:" + dir + "/flat", "here/app:4",
	}
	from := "docker://" + r.name
	for _, to := range places {
		if got := copyImage(t, s, from, to); got != r.digest.String() {
			t.Errorf("%s to %s: %s, want %s", from, to, got, r.digest)
		}
		from = to
	}
	other := newStore(t)
	for i, from := range places[:5] {
		name := "got/app:" + string(rune('a'+i))
		if got := copyImage(t, other, from, name); got != r.digest.String() {
			t.Errorf("%s into the store: %s", from, got)
		}
		if img, err := other.Resolve(name); err != nil || !img.unpacked() || len(img.Names) != i+1 {
			t.Errorf("%s: %+v, %v", name, img, err)
		}
	}
	if images, err := newStore(t).LoadFile(context.Background(), dir+"/flat", LoadOptions{}); err != nil || images[0].Digest != r.digest.String() {
		t.Errorf("load of dir: %+v, %v", images, err)
	}
}

func TestCopyWithinARegistryMounts(t *testing.T) {
	s, f := newStore(t), newRegistry(t)
	r := f.push(t, "app:1", []layerOf{{"a": strings.Repeat("1", 10_000)}}, nil)
	before := f.sent.Load()
	copyImage(t, s, "docker://"+r.name, "docker://"+f.host()+"/other:1")
	if n := f.sent.Load() - before; n > 0 {
		t.Errorf("%d bytes of blobs were fetched", n)
	}
	mustPull(t, s, f.host()+"/other:1")
}

func TestCopyOfAnOldDockerArchive(t *testing.T) {
	s, f := newStore(t), newRegistry(t)
	path := t.TempDir() + "/old.tar"
	os.WriteFile(path, dockerArchive(t, nil), 0o600)
	name := f.host() + "/old:1"
	copyImage(t, s, "docker-archive:"+path+":old:2", "docker://"+name)
	img := mustPull(t, s, name)
	if read(t, img.LowerDirs()[0], "b") != "b" || read(t, img.LowerDirs()[1], "a") != "a" {
		t.Error("wrong layers")
	}
	descs, err := s.LayerDescriptors(img)
	if err != nil || !strings.HasSuffix(string(descs[0].MediaType), "gzip") {
		t.Errorf("layers = %v, %v", descs, err)
	}
	os.WriteFile(path, dockerArchive(t, func(f map[string][]byte) { f["l1/layer.tar"] = layerOf{"evil": "x"}.tar(t) }), 0o600)
	c := CopyCmd{Quiet: true, Source: "docker-archive:" + path, Dest: "dir:" + t.TempDir() + "/no"}
	if _, err := c.copy(context.Background(), s, &ui.Output{}); err == nil || !strings.Contains(err.Error(), "layer l1/layer.tar: content does not match") {
		t.Errorf("err = %v", err)
	}
	for _, name := range readNames(s.imageDir("partial")) {
		t.Errorf("left %s", name)
	}
}

func TestImageDiff(t *testing.T) {
	s, f := newStore(t), newRegistry(t)
	one := mustPull(t, s, f.push(t, "app:1", []layerOf{{"d/": "", "d/a": "1", "d/b": "2"}}, nil).name)
	two := mustPull(t, s, f.push(t, "app:2", []layerOf{{"d/": "", "d/a": "1", "d/b": "2"}, {"d/": "", "d/.wh.a": "", "d/b": "22", "c": "3"}}, nil).name)
	for _, other := range []string{"", one.ID} {
		changes, err := (&DiffCmd{Image: two.ID, Other: other}).changes(s)
		if err != nil {
			t.Skipf("needs overlay mounts: %v", err)
		}
		got := ""
		for _, c := range changes {
			got += string(c.Kind) + c.Path + " "
		}
		// The last layer has an entry for the directory, which is equal.
		if got = strings.Replace(got, "C/d ", "", 1); got != "A/c D/d/a C/d/b " {
			t.Errorf("diff with %q: %s", other, got)
		}
	}
}

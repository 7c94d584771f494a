package build

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kist-containers/kist/image"
)

// A buildKit is a buildkitd of the test's own, with the image base.
type buildKit struct {
	addr, base string
}

// newBuildKit starts one. It touches no network: steps that want one have the
// host's, and mounts are made in a namespace of its own.
func newBuildKit(t *testing.T, k *kit) *buildKit {
	t.Helper()
	for _, p := range []string{"buildkitd", "buildctl", "runc"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skip("needs " + p + " (github.com/moby/buildkit)")
		}
	}
	dir := t.TempDir()
	p := &buildKit{addr: "unix://" + filepath.Join(dir, "sock"), base: filepath.Join(dir, "base")}
	must(t, k.b.store.SaveDir(t.Context(), p.base, []string{"base"}, image.SaveOptions{}))
	ctx, stop := context.WithCancel(context.Background())
	d := exec.CommandContext(ctx, "buildkitd", "--addr", p.addr, "--root", filepath.Join(dir, "root"), "--config", "/dev/null",
		"--oci-worker-net", "host", "--oci-worker-binary", "runc", "--containerd-worker=false")
	d.Cancel = func() error { return d.Process.Signal(syscall.SIGTERM) }
	d.WaitDelay = time.Minute
	d.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	log, err := os.Create(filepath.Join(dir, "log"))
	must(t, err)
	defer log.Close()
	d.Stdout, d.Stderr = log, log
	must(t, d.Start())
	t.Cleanup(func() { stop(); d.Wait() })
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		out, err := exec.Command("buildctl", "--addr", p.addr, "debug", "workers").CombinedOutput()
		if err == nil {
			return p
		}
		if time.Now().After(deadline) {
			said, _ := os.ReadFile(log.Name())
			t.Skipf("needs a working buildkitd: %s\n%s", out, said)
		}
	}
}

// build builds the context dir and returns the result as it is in k's store.
func (p *buildKit) build(t *testing.T, k *kit, dir string) *image.Image {
	t.Helper()
	var index v1.IndexManifest
	raw, err := os.ReadFile(filepath.Join(p.base, "index.json"))
	must(t, err)
	must(t, json.Unmarshal(raw, &index))
	archive := filepath.Join(t.TempDir(), "result.tar")
	out, err := exec.Command("buildctl", "--addr", p.addr, "build", "--progress", "plain", "--frontend", "dockerfile.v0",
		"--local", "context="+dir, "--local", "dockerfile="+dir, "--oci-layout", "base="+p.base,
		"--opt", fmt.Sprintf("context:base=oci-layout://base@%s", index.Manifests[0].Digest),
		"--output", "type=oci,dest="+archive).CombinedOutput()
	if err != nil {
		t.Fatalf("buildctl: %s", out)
	}
	images, err := k.b.store.LoadFile(t.Context(), archive, image.LoadOptions{Unnamed: true})
	must(t, err)
	return images[0]
}

// TestLikeBuildKit builds each case with BuildKit too and compares the results.
func TestLikeBuildKit(t *testing.T) {
	if testing.Short() {
		t.Skip("needs time (not -short)")
	}
	k := newKit(t)
	peer := newBuildKit(t, k)
	top := k.dir
	for _, path := range cases(t) {
		t.Run(caseName(path), func(t *testing.T) {
			k := *k
			k.t, k.dir = t, filepath.Join(top, caseName(path))
			must(t, os.Mkdir(k.dir, 0o755))
			k.unpackCase(path)
			res, _ := k.build()
			img := peer.build(t, &k, k.dir)
			layers, err := k.b.layersOf(img)
			must(t, err)
			theirs := &Result{Images: []Built{{layers: layers, config: img.RawConfig}}}
			if got, want := k.files(res), k.files(theirs); got != want {
				t.Errorf("kist:\n%sBuildKit:\n%s", got, want)
			}
			if got, want := historyOf(t, res), historyOf(t, theirs); got != want {
				t.Errorf("kist:\n%sBuildKit:\n%s", got, want)
			}
			if got, want := described(t, res.Images[0].config), described(t, img.RawConfig); got != want {
				t.Errorf("kist:\n%sBuildKit:\n%s", got, want)
			}
		})
	}
}

// historyOf is the history without times and the name of the builder.
func historyOf(t *testing.T, res *Result) (s string) {
	t.Helper()
	var cfg v1.ConfigFile
	must(t, json.Unmarshal(res.Images[0].config, &cfg))
	for _, h := range cfg.History {
		s += fmt.Sprintf("%s %v\n", strings.TrimSuffix(h.CreatedBy, " # buildkit"), h.EmptyLayer)
	}
	return s
}

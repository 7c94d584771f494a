package build

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kist-containers/kist/image"
)

var update = flag.Bool("update", false, "rewrite testdata/golden")

// described is the configuration of an image without times, sorted.
func described(t testing.TB, raw []byte) string {
	t.Helper()
	var cfg v1.ConfigFile
	must(t, json.Unmarshal(raw, &cfg))
	c := cfg.Config
	if len(c.Labels) > 0 {
		delete(c.Labels, "io.buildah.version")
	}
	shown, err := json.MarshalIndent(map[string]any{
		"author": cfg.Author, "cmd": some(c.Cmd), "entrypoint": some(c.Entrypoint), "env": c.Env, "labels": sorted(c.Labels), "onbuild": some(c.OnBuild),
		"ports": sortedKeys(c.ExposedPorts), "volumes": sortedKeys(c.Volumes), "user": c.User, "workdir": strings.TrimSuffix(c.WorkingDir, "/"),
		"stop": c.StopSignal, "shell": c.Shell, "health": c.Healthcheck,
	}, "", " ")
	must(t, err)
	return string(shown) + "\n"
}

func sorted(m map[string]string) []string {
	var all []string
	for _, k := range sortedKeys(m) {
		all = append(all, k+"="+m[k])
	}
	return all
}

func cases(t testing.TB) []string {
	t.Helper()
	all, err := filepath.Glob("testdata/corpus/*.txtar")
	must(t, err)
	if len(all) < 60 {
		t.Fatalf("%d cases in testdata/corpus, want 60 or more", len(all))
	}
	return all
}

func caseName(path string) string { return strings.TrimSuffix(filepath.Base(path), ".txtar") }

// TestGolden builds each case and compares files, configuration and length of
// the history with what was reviewed.
func TestGolden(t *testing.T) {
	k := newKit(t)
	top := k.dir
	for _, path := range cases(t) {
		t.Run(caseName(path), func(t *testing.T) {
			k := *k
			k.t, k.dir = t, filepath.Join(top, caseName(path))
			must(t, os.Mkdir(k.dir, 0o755))
			k.unpackCase(path)
			res, _ := k.build()
			var cfg v1.ConfigFile
			must(t, json.Unmarshal(res.Images[0].config, &cfg))
			got := k.files(res) + described(t, res.Images[0].config) + fmt.Sprintf("history: %d\n", len(cfg.History)-3)
			golden := filepath.Join("testdata/golden", caseName(path))
			if *update {
				must(t, os.MkdirAll("testdata/golden", 0o755))
				must(t, os.WriteFile(golden, []byte(got), 0o644))
				return
			}
			want, err := os.ReadFile(golden)
			must(t, err)
			if got != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// differs are the cases in which buildah is known to do otherwise than docker,
// whom kist follows, or does not know the flag.
var differs = map[string]string{
	"add_unpack":               "it has no --unpack",
	"arg_inherited":            "a stage inherits no ARG",
	"args_everywhere":          "a stage inherits no ARG",
	"copy_chmod_symbolic":      "it has no symbolic --chmod",
	"copy_exclude":             "it has no --exclude",
	"copy_exclude_many":        "it has no --exclude",
	"copy_link_over":           "it has no --link",
	"copy_link_symlink_dest":   "it has no --link",
	"copy_onto_symlinked_file": "it replaces a link to a file",
	"copy_parents_pivot":       "it has no --parents",
	"copy_parents":             "it has no --parents",
	"copy_heredoc":             "it has no heredocs",
	"copy_heredoc_file":        "it has no heredocs",
	"run_heredoc":              "it has no heredocs",
	"run_heredoc_shebang":      "it has no heredocs",
	"run_heredoc_stdin":        "it has no heredocs",
	"run_network_none":         "it has no RUN --network",
	"env_prefix_suffix":        "it has no ${v##p}",
	"expose":                   "it keeps ranges of ports",
	"expose_host":              "it keeps the host's ports",
	"heredoc_expand":           "it has no heredocs",
	"run_many_mounts":          "targets must be absolute",
	"shell_form_changes":       "it has no --start-interval",
	"run_exec_form":            "argv[0] is what was written",
	"onbuild_stored":           "its from runs the triggers",
	"shell":                    "CMD goes through SHELL",
	"volume":                   "it makes the directory",
}

// TestLikeBuildah builds each case with buildah too and compares the results.
func TestLikeBuildah(t *testing.T) {
	if _, err := exec.LookPath("buildah"); err != nil {
		t.Skip("needs buildah")
	}
	if testing.Short() {
		t.Skip("needs time (not -short)")
	}
	k := newKit(t)
	peer := newBuildah(t, k)
	top := k.dir
	for _, path := range cases(t) {
		t.Run(caseName(path), func(t *testing.T) {
			if why, ok := differs[caseName(path)]; ok {
				t.Skip("needs a buildah that does as docker: " + why)
			}
			k := *k
			k.t, k.dir = t, filepath.Join(top, caseName(path))
			must(t, os.Mkdir(k.dir, 0o755))
			k.unpackCase(path)
			res, _ := k.build()
			files, config := peer.build(t, k.dir)
			if got := k.files(res); got != files {
				t.Errorf("kist:\n%sbuildah:\n%s", got, files)
			}
			if got := described(t, res.Images[0].config); got != config {
				t.Errorf("kist:\n%sbuildah:\n%s", got, config)
			}
		})
	}
}

// A buildah is the peer with storage of its own.
type buildah struct{ flags []string }

func newBuildah(t testing.TB, k *kit) *buildah {
	t.Helper()
	dir := t.TempDir()
	p := &buildah{[]string{"--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run"), "--storage-driver", "overlay"}}
	archive := filepath.Join(dir, "base.tar")
	f, err := os.Create(archive)
	must(t, err)
	must(t, k.b.store.Save(t.Context(), f, []string{"base"}, image.SaveOptions{}))
	must(t, f.Close())
	if out, err := p.run("pull", "-q", "docker-archive:"+archive); err != nil {
		t.Skipf("needs a working buildah: %s", out)
	}
	t.Cleanup(func() { p.run("rm", "-a"); p.run("rmi", "-a", "-f") })
	return p
}

// run runs buildah, again where it could not seal the copy of itself that it
// runs from: the kernel refuses that (EBUSY, memfd_create(2)) while a page of
// the copy happens to be pinned.
func (p *buildah) run(args ...string) (string, error) {
	for tries := 1; ; tries++ {
		raw, err := exec.Command("buildah", append(p.flags, args...)...).CombinedOutput()
		out := strings.TrimSpace(string(raw))
		if err == nil || tries == 10 || !strings.Contains(out, "sealing memfd copy") {
			return out, err
		}
	}
}

func (p *buildah) build(t testing.TB, dir string) (files, config string) {
	t.Helper()
	if out, err := p.run("bud", "-q", "--format", "docker", "--isolation", "chroot", "--layers=false", "--pull-never", "-t", "result", dir); err != nil {
		t.Fatalf("buildah bud: %s", out)
	}
	c, err := p.run("from", "--pull-never", "result")
	must(t, err)
	defer p.run("rm", c)
	at, err := p.run("mount", c)
	must(t, err)
	root, err := os.Open(at)
	must(t, err)
	defer root.Close()
	files = listing(t, root)
	raw, err := p.run("inspect", "--type", "image", "--format", "{{.Config}}", "result")
	must(t, err)
	return files, described(t, []byte(raw))
}

// some makes an empty list nil: JSON knows two kinds of nothing.
func some(list []string) []string {
	if len(list) == 0 {
		return nil
	}
	return list
}

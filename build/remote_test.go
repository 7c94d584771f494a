package build

import (
	"crypto/sha256"
	"fmt"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kist-containers/kist/image"
	"github.com/kist-containers/kist/internal/ui"
)

func TestAddFromURL(t *testing.T) {
	k := newKit(t)
	content, hits := "one", 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hits++
		switch r.URL.Path {
		case "/dir/file":
			tag := fmt.Sprintf("%q", content)
			w.Header().Set("ETag", tag)
			w.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
			if r.Header.Get("If-None-Match") == tag {
				w.WriteHeader(http.StatusNotModified)
				return
			}
			fmt.Fprint(w, content)
		case "/a.tar":
			fmt.Fprint(w, archiveOf(t, false, []string{"in/side:1"}))
		case "/loop":
			http.Redirect(w, r, "/loop", http.StatusFound)
		default:
			http.NotFound(w, r)
		}
	}))
	defer srv.Close()
	text := "FROM base\nADD " + srv.URL + "/dir/file /x/\n"
	res, _ := k.dockerfile(text)
	if files := k.files(res); !strings.Contains(files, "x/file 100600 0:0 3 ") {
		t.Error(files)
	}
	if _, log := k.build(); outcome(log) != "+" {
		t.Errorf("unchanged, it is added again\n%s", log)
	}
	content = "two"
	if _, log := k.build(); outcome(log) != "-" {
		t.Errorf("changed, it is not added\n%s", log)
	}
	sum := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(content)))
	k.dockerfile("FROM base\nADD --checksum=" + sum + " " + srv.URL + "/dir/file /x\n")
	res, _ = k.dockerfile("FROM base\nADD " + srv.URL + "/a.tar /plain/\nADD --unpack " + srv.URL + "/a.tar /un/\n")
	if files := k.files(res); !strings.Contains(files, "plain/a.tar ") || !strings.Contains(files, "un/in/side ") {
		t.Error(files)
	}
	for _, c := range []struct{ text, want string }{
		{"ADD --checksum=sha256:00 " + srv.URL + "/dir/file /x", "its digest is sha256:"},
		{"ADD " + srv.URL + "/none /x", "404 Not Found"},
		{"ADD " + srv.URL + "/loop /x", "more than 5 redirects"},
		{"ADD " + srv.URL + "/ /x/", "has no file name"},
		{"COPY " + srv.URL + "/dir/file /x", "COPY takes no URL"},
	} {
		k.file("Dockerfile", "FROM base\n"+c.text+"\n")
		if _, _, err := k.try(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.text, err, c.want)
		}
	}
	k.nothingLeft()
}

// gitServer serves a repository with one commit over http.
func gitServer(t *testing.T, files map[string]string) string {
	t.Helper()
	backend, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		t.Skip("needs git")
	}
	handler := filepath.Join(strings.TrimSpace(string(backend)), "git-http-backend")
	if _, err := os.Stat(handler); err != nil {
		t.Skip("needs git-http-backend")
	}
	top := t.TempDir()
	repo := filepath.Join(top, "repo.git")
	must(t, os.Mkdir(repo, 0o755))
	for name, data := range files {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(repo, name)), 0o755))
		must(t, os.WriteFile(filepath.Join(repo, name), []byte(data), 0o644))
	}
	for _, args := range [][]string{{"init", "-q", "-b", "main"}, {"add", "."}, {"-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "one"}, {"tag", "v1"}} {
		cmd := exec.Command("git", args...)
		cmd.Dir = repo
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %s", args, out)
		}
	}
	srv := httptest.NewServer(&cgi.Handler{Path: handler, Env: []string{"GIT_PROJECT_ROOT=" + top, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"}})
	t.Cleanup(srv.Close)
	return srv.URL + "/repo.git"
}

func TestGitContextAndAdd(t *testing.T) {
	url := gitServer(t, map[string]string{"sub/Dockerfile": "FROM base\nCOPY f /f\n", "sub/f": "1", "other": "2"})
	k := newKit(t)
	req := Request{Context: url + "#v1:sub", Pull: "never"}
	res, err := k.b.Build(t.Context(), &req, newDisplay(progressQuiet, &ui.Output{}))
	if err != nil {
		t.Fatal(err)
	}
	if files := k.files(res); !strings.Contains(files, "f 100") {
		t.Error(files)
	}
	res, _ = k.dockerfile("FROM base\nADD " + url + "#main /r\n")
	if files := k.files(res); !strings.Contains(files, "r/sub/f 100") || strings.Contains(files, ".git") {
		t.Error(files)
	}
	k.req = Request{Context: url, Pull: "never", File: "sub/Dockerfile", Args: map[string]string{"BUILDKIT_CONTEXT_KEEP_GIT_DIR": "1", "BUILDKIT_MULTI_PLATFORM": "1"}, Tags: []string{"git"}}
	c, err := k.b.openContext(t.Context(), &k.req)
	must(t, err)
	if _, err := c.stat(".git/HEAD"); err != nil {
		t.Error(err)
	}
	c.Close()
	k.req = Request{}
	for _, bad := range []string{url + "#--upload-pack=x", "git@-oProxyCommand=x:y.git#" + "-x", url + "#nosuch"} {
		req := Request{Context: bad, Pull: "never"}
		if _, err := k.b.Build(t.Context(), &req, newDisplay(progressQuiet, &ui.Output{})); err == nil {
			t.Errorf("%s is built", bad)
		}
	}
	k.nothingLeft()
}

func TestPushAndCacheInARegistry(t *testing.T) {
	k := newKit(t)
	srv := httptest.NewServer(registry.New(registry.Logger(silent())))
	defer srv.Close()
	host := strings.TrimPrefix(srv.URL, "http://")
	k.req.Tags = []string{host + "/app:1"}
	k.req.CacheTo = []CacheLocation{{Type: "registry", Where: host + "/cache:main"}}
	k.dockerfile("FROM base\nRUN date +%N > /f\nRUN echo 2 > /g\n")
	must(t, k.b.push(t.Context(), &k.req, &ui.Output{}))
	// Another machine.
	other := newKit(t)
	other.req.CacheFrom = k.req.CacheTo
	other.file("Dockerfile", "FROM "+host+"/app:1\n")
	other.req.Pull = "missing"
	other.build()
	_, log := other.dockerfile("FROM base\nRUN date +%N > /f\nRUN echo 2 > /g\n")
	// The base is built on each machine for itself, so the key of its layer is
	// equal only when the base is.
	a, err := k.b.store.Resolve("base")
	must(t, err)
	b, err := other.b.store.Resolve("base")
	must(t, err)
	if want := map[bool]string{true: "++", false: "--"}[sameLayers(a, b)]; outcome(log) != want {
		t.Errorf("steps %s, want %s\n%s", outcome(log), want, log)
	}
}

func sameLayers(a, b *image.Image) bool {
	return len(a.Layers) == len(b.Layers) && a.Layers[len(a.Layers)-1].ChainID == b.Layers[len(b.Layers)-1].ChainID
}

func TestSSHAgentIsReachedAndLeft(t *testing.T) {
	k := newKit(t)
	dir, err := os.MkdirTemp("", "agent")
	must(t, err)
	defer os.RemoveAll(dir)
	l, err := net.Listen("unix", dir+"/s")
	must(t, err)
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Write([]byte("agent speaks\n"))
			c.Close()
		}
	}()
	k.req.SSH = map[string]Agent{"default": {Socket: dir + "/s"}}
	res, _ := k.dockerfile("FROM base\nRUN --mount=type=ssh test -S $SSH_AUTH_SOCK && stat -c %a $SSH_AUTH_SOCK > /mode\n")
	if files := k.files(res); strings.Contains(files, "ssh_agent") || !strings.Contains(files, "mode 100644") {
		t.Error(files)
	}
	k.nothingLeft()
}

func TestInlineCacheGoesWithTheImage(t *testing.T) {
	k := newKit(t)
	srv := httptest.NewServer(registry.New(registry.Logger(silent())))
	defer srv.Close()
	host := strings.TrimPrefix(srv.URL, "http://")
	k.req.Tags = []string{host + "/base:1"}
	k.dockerfile("FROM base\n")
	must(t, k.b.push(t.Context(), &k.req, &ui.Output{}))
	steps := "FROM " + host + "/base:1 AS one\nRUN date +%N > /f\nFROM one\nRUN echo 2 > /g\nRUN true\n"
	k.req = Request{Tags: []string{host + "/app:1"}, CacheTo: []CacheLocation{{Type: "inline"}}, Epoch: time.Unix(1, 0)}
	first, _ := k.dockerfile(steps)
	if again, _ := k.dockerfile(steps); again.ID != first.ID {
		t.Error("the cache inside makes the image another one each time")
	}
	must(t, k.b.push(t.Context(), &k.req, &ui.Output{}))
	// Another machine.
	other := newKit(t)
	other.req = Request{CacheFrom: []CacheLocation{{Type: "registry", Where: host + "/app:1"}}, Pull: "missing", Epoch: time.Unix(1, 0)}
	res, log := other.dockerfile(steps)
	if outcome(log) != "+++" {
		t.Errorf("steps %s, want all from the cache\n%s", outcome(log), log)
	}
	if got, want := other.files(res), k.files(first); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	other.req = Request{CacheFrom: []CacheLocation{{Type: "registry", Where: host + "/base:1"}}}
	if _, log := other.dockerfile("FROM base\n"); !strings.Contains(log, "nor an image that carries one") {
		t.Errorf("an image without a cache: %s", log)
	}
}

func TestAllPlatforms(t *testing.T) {
	k := newKit(t)
	amd, err := parsePlatform("linux/amd64")
	must(t, err)
	arm, err := parsePlatform("linux/arm64")
	must(t, err)
	k.file("a", "a")
	k.req = Request{Platforms: []v1.Platform{amd, arm}, Tags: []string{"multi"}}
	k.dockerfile("FROM scratch\nCOPY a /a\n")
	k.req = Request{AllPlatforms: true, Tags: []string{"all"}}
	res, _ := k.dockerfile("FROM multi AS m\nFROM multi\nCOPY --from=m a /b\n")
	if len(res.Images) != 2 || platformName(res.Images[0].Platform) != "linux/amd64" || platformName(res.Images[1].Platform) != "linux/arm64" {
		t.Errorf("built %+v, want amd64 and arm64", res.Images)
	}
	k.file("Dockerfile", "FROM scratch\nCOPY a /\n")
	if _, _, err := k.try(); err == nil || !strings.Contains(err.Error(), "no base image says") {
		t.Errorf("from scratch: %v", err)
	}
}

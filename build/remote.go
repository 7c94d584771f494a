package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/kist-containers/kist/internal/state"
)

func isURL(s string) bool {
	return (strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://")) && !isGit(s)
}

// isGit reports whether s names a git repository: git@…, git://, ssh://, or
// http(s) with a path that ends in .git.
func isGit(s string) bool {
	base, _, _ := strings.Cut(s, "#")
	if strings.HasPrefix(s, "git@") && strings.Contains(s, ":") || strings.HasPrefix(s, "git://") || strings.HasPrefix(s, "ssh://") {
		return true
	}
	return (strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://")) && strings.HasSuffix(base, ".git")
}

// A fetched is a file from a URL: <root>/build/http/<digest of URL>.json says
// what the server said, the file without .json is the content.
type fetched struct {
	URL          string    `json:"url"`
	ETag         string    `json:"etag,omitempty"`
	LastModified time.Time `json:"lastModified"`
	SHA256       string    `json:"sha256"`

	path string
}

// maxFetch bounds a file from a URL.
const maxFetch = 64 << 30

// fetch gets a URL, or what it had the last time when the server says that it
// has not changed.
func (b *Builder) fetch(ctx context.Context, rawURL string) (*fetched, error) {
	u, err := url.Parse(rawURL)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("%s: not a URL", rawURL)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, rawURL, nil)
	if err != nil {
		return nil, err
	}
	f := &fetched{path: b.dir("http", digestOf("http", rawURL)[:32])}
	old := new(fetched)
	if state.ReadJSON(f.path+".json", old) == nil && old.URL == rawURL && old.ETag != "" {
		req.Header.Set("If-None-Match", old.ETag)
	}
	req.Header.Set("User-Agent", "kist")
	resp, err := httpClient().Do(req)
	if err != nil {
		return nil, fmt.Errorf("fetch %s: %w", u.Redacted(), errors.Unwrap(err))
	}
	defer resp.Body.Close()
	if _, missing := os.Stat(f.path); resp.StatusCode == http.StatusNotModified && missing == nil {
		old.path = f.path
		return old, nil
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("fetch %s: the server says %s", u.Redacted(), resp.Status)
	}
	f.URL, f.ETag = rawURL, resp.Header.Get("ETag")
	f.LastModified, _ = http.ParseTime(resp.Header.Get("Last-Modified"))
	return f, f.receive(resp.Body)
}

func (f *fetched) receive(body io.Reader) error {
	if err := os.MkdirAll(filepath.Dir(f.path), 0o700); err != nil {
		return err
	}
	h := sha256.New()
	err := state.WriteFileFrom(f.path, 0o600, func(w io.Writer) error {
		n, err := io.Copy(io.MultiWriter(w, h), io.LimitReader(body, maxFetch))
		if err == nil && n == maxFetch {
			err = fmt.Errorf("fetch %s: larger than a build takes", f.URL)
		}
		return err
	})
	f.SHA256 = hex.EncodeToString(h.Sum(nil))
	return errors.Join(err, state.WriteJSON(f.path+".json", f))
}

// httpClient follows at most five redirects, and none from https to http.
func httpClient() *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.ResponseHeaderTimeout = time.Minute
	return &http.Client{Transport: transport, CheckRedirect: func(r *http.Request, via []*http.Request) error {
		if len(via) > 5 {
			return errors.New("more than 5 redirects")
		}
		if via[len(via)-1].URL.Scheme == "https" && r.URL.Scheme != "https" {
			return errors.New("redirected from https to http")
		}
		return nil
	}}
}

// urlName is the file name of a URL: the last part of its path.
func urlName(rawURL string) (string, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return "", err
	}
	name := path.Base(path.Clean("/" + u.Path))
	if name == "/" || name == "." || name == ".." {
		return "", fmt.Errorf("%s: has no file name; give the destination one", rawURL)
	}
	return name, nil
}

// urlContext fetches an archive or a Dockerfile.
func (b *Builder) urlContext(ctx context.Context, c *buildContext, rawURL string) error {
	f, err := b.fetch(ctx, rawURL)
	if err != nil {
		return err
	}
	file, err := os.Open(f.path)
	if err != nil {
		return err
	}
	defer file.Close()
	c.origin = material{redacted(rawURL), map[string]string{"sha256": f.SHA256}}
	return b.streamContext(c, file, rawURL)
}

// A gitRef is REMOTE[#REF[:SUBDIR]].
type gitRef struct{ remote, ref, dir string }

func parseGit(s string) (gitRef, error) {
	remote, fragment, _ := strings.Cut(s, "#")
	g := gitRef{remote: remote}
	g.ref, g.dir, _ = strings.Cut(fragment, ":")
	if strings.HasPrefix(remote, "github.com/") {
		g.remote = "https://" + remote
	}
	// git would take such a word for an option.
	if strings.HasPrefix(g.remote, "-") || strings.HasPrefix(g.ref, "-") {
		return g, fmt.Errorf("%s: neither a repository nor a ref starts with '-'", s)
	}
	if g.ref == "" {
		g.ref = "HEAD"
	}
	return g, nil
}

// clone checks a repository out into dir and returns the commit.
func (g gitRef) clone(ctx context.Context, dir string, keepGitDir bool) (commit string, err error) {
	if _, err := exec.LookPath("git"); err != nil {
		return "", fmt.Errorf("clone %s: git is not installed", g.remote)
	}
	steps := [][]string{
		{"init", "-q", "."},
		{"fetch", "-q", "--depth", "1", "--end-of-options", g.remote, g.ref},
		{"checkout", "-q", "--detach", "FETCH_HEAD"},
		{"submodule", "--quiet", "update", "--init", "--recursive", "--depth", "1"},
	}
	for _, args := range steps {
		if _, err := runGit(ctx, dir, args); err != nil {
			return "", fmt.Errorf("clone %s: %w", g.remote, err)
		}
	}
	if commit, err = runGit(ctx, dir, []string{"rev-parse", "HEAD"}); err != nil {
		return "", err
	}
	if !keepGitDir {
		err = os.RemoveAll(filepath.Join(dir, ".git"))
	}
	return strings.TrimSpace(commit), err
}

// runGit runs git without the user's and the machine's hooks, without a prompt,
// and with network protocols only: neither file: nor ext:.
func runGit(ctx context.Context, dir string, args []string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", append([]string{"-c", "core.hooksPath=/dev/null", "-c", "init.defaultBranch=main", "-c", "core.symlinks=true"}, args...)...)
	cmd.Dir = dir
	for _, name := range []string{"PATH", "HOME", "SSH_AUTH_SOCK", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy"} {
		if v, ok := os.LookupEnv(name); ok {
			cmd.Env = append(cmd.Env, name+"="+v)
		}
	}
	cmd.Env = append(cmd.Env, "GIT_TERMINAL_PROMPT=0", "GIT_ALLOW_PROTOCOL=https:http:git:ssh", "GIT_CONFIG_NOSYSTEM=1", "LC_ALL=C", "GIT_ASKPASS=true")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		text := strings.TrimSpace(stderr.String())
		return "", fmt.Errorf("git %s: %s", args[0], cmpOr(lastLine(text), err.Error()))
	}
	return string(out), nil
}

func lastLine(s string) string { return s[strings.LastIndexByte(s, '\n')+1:] }

// gitContext clones a repository; a SUBDIR of it becomes the root.
func (b *Builder) gitContext(ctx context.Context, c *buildContext, where string, keepGitDir bool) error {
	g, err := parseGit(where)
	if err != nil {
		return err
	}
	dir, remove, err := b.scratch()
	if err != nil {
		return err
	}
	c.cleanup = append(c.cleanup, remove)
	commit, err := g.clone(ctx, dir, keepGitDir)
	if err != nil {
		return err
	}
	c.origin = material{redacted(where), map[string]string{"sha1": commit}}
	if c.root, err = os.Open(dir); err != nil || g.dir == "" {
		return err
	}
	sub, err := c.open(g.dir, os.O_RDONLY)
	if err != nil {
		return fmt.Errorf("%s: %s: %w", where, g.dir, errors.Unwrap(err))
	}
	defer sub.Close()
	// Its place without links: mounts are made by path.
	real, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", sub.Fd()))
	if err != nil {
		return err
	}
	c.root.Close()
	c.root, err = os.Open(real)
	return err
}

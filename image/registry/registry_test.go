package registry

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	fake "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

var ctx = context.Background()

func inner() http.Handler { return fake.New(fake.Logger(log.New(io.Discard, "", 0))) }

func host(s *httptest.Server) string { return s.Listener.Addr().String() }

func descriptor(data []byte) v1.Descriptor {
	return v1.Descriptor{MediaType: types.OCILayer, Size: int64(len(data)), Digest: v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%x", sha256.Sum256(data))}}
}

func open(t *testing.T, c *Config, host, path string) *Repository {
	t.Helper()
	r, err := Open(c, host, path)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func put(t *testing.T, r *Repository, data []byte, o PutOptions) v1.Descriptor {
	t.Helper()
	d := descriptor(data)
	if _, err := r.PutBlob(ctx, d, bytes.NewReader(data), o); err != nil {
		t.Fatal(err)
	}
	return d
}

func get(t *testing.T, r *Repository, d v1.Descriptor) string {
	t.Helper()
	body, _, err := r.Blob(ctx, d, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	data, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func credentials(user, password string) func(context.Context, string, string) (Credentials, error) {
	return func(context.Context, string, string) (Credentials, error) {
		return Credentials{Username: user, Password: password}, nil
	}
}

func TestUploadsInOnePieceAndInChunks(t *testing.T) {
	var patches int
	reg := inner()
	limit := int64(1 << 30)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPatch {
			patches++
		}
		if r.ContentLength > limit {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			return
		}
		reg.ServeHTTP(w, r)
	}))
	defer s.Close()
	r := open(t, &Config{}, host(s), "a")
	d := put(t, r, []byte("whole"), PutOptions{})
	if has, err := r.HasBlob(ctx, d); err != nil || !has || patches != 0 {
		t.Errorf("has = %v, %v after %d chunks", has, err, patches)
	}
	d = put(t, r, []byte("in pieces of four"), PutOptions{ChunkSize: 4})
	if got := get(t, r, d); got != "in pieces of four" || patches != 5 {
		t.Errorf("got %q after %d chunks", got, patches)
	}
	limit = minChunk
	d = put(t, r, bytes.Repeat([]byte("x"), minChunk+5), PutOptions{})
	if has, err := r.HasBlob(ctx, d); err != nil || !has || patches != 7 {
		t.Errorf("after 413: has = %v, %v, %d chunks", has, err, patches)
	}
	if has, err := r.HasBlob(ctx, descriptor([]byte("no"))); err != nil || has {
		t.Errorf("has a blob that is not there: %v, %v", has, err)
	}
}

// tokenServer guards reg with tokens, which user and password buy.
func tokenServer(t *testing.T, reg http.Handler, user, password string) (*httptest.Server, *[]string) {
	var scopes []string
	var s *httptest.Server
	s = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" {
			u, p, _ := r.BasicAuth()
			if user != "" && (u != user || p != password) {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			scope := strings.Join(r.URL.Query()["scope"], " ")
			scopes = append(scopes, scope)
			json.NewEncoder(w).Encode(map[string]string{"token": "T:" + scope})
			return
		}
		token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !strings.HasPrefix(token, "T:") || r.Method != http.MethodGet && r.Method != http.MethodHead && !strings.Contains(token, "push") {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="reg, with comma"`, s.URL))
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		reg.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s, &scopes
}

func TestTokens(t *testing.T) {
	s, scopes := tokenServer(t, inner(), "ann", "secret")
	r := open(t, &Config{Credentials: credentials("ann", "secret")}, host(s), "a/b")
	d := put(t, r, []byte("x"), PutOptions{})
	if got := get(t, r, d); got != "x" {
		t.Errorf("got %q", got)
	}
	if want := "[repository:a/b:pull,push repository:a/b:pull]"; fmt.Sprint(*scopes) != want {
		t.Errorf("scopes %v, want %s: one token for each", *scopes, want)
	}
	bad := open(t, &Config{Credentials: credentials("ann", "wrong")}, host(s), "a/b")
	if _, _, err := bad.Blob(ctx, d, 0); err == nil || strings.Contains(err.Error(), "wrong") {
		t.Errorf("wrong password: %v", err)
	}
}

func TestBasicAndLogin(t *testing.T) {
	reg := inner()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u, p, _ := r.BasicAuth(); u != "ann" || p != "secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		reg.ServeHTTP(w, r)
	}))
	defer s.Close()
	if err := Ping(ctx, &Config{Credentials: credentials("ann", "secret")}, host(s)); err != nil {
		t.Error(err)
	}
	var refused *Error
	if err := Ping(ctx, &Config{Credentials: credentials("ann", "no")}, host(s)); !errors.As(err, &refused) || refused.Status != 401 {
		t.Errorf("wrong password: %v", err)
	}
	if err := Ping(ctx, &Config{}, host(s)); !errors.As(err, &refused) {
		t.Errorf("no password: %v", err)
	}
}

func TestCredentialsStayWithTheirHost(t *testing.T) {
	var leaked string
	storage := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		leaked = r.Header.Get("Authorization")
		if leaked == "" {
			w.Header().Set("WWW-Authenticate", `Basic realm="give me"`)
		}
		io.WriteString(w, "blob")
	}))
	defer storage.Close()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, _, ok := r.BasicAuth(); !ok {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		http.Redirect(w, r, storage.URL+"/x", http.StatusTemporaryRedirect)
	}))
	defer s.Close()
	r := open(t, &Config{Credentials: credentials("ann", "secret")}, host(s), "a")
	if got := get(t, r, descriptor([]byte("blob"))); got != "blob" || leaked != "" {
		t.Errorf("got %q, leaked %q", got, leaked)
	}
}

func TestRedirects(t *testing.T) {
	for _, c := range []struct {
		hops string
		ok   bool
	}{
		{"http://a https://b", true},
		{"https://a https://b https://c", true},
		{"http://a http://b", true},
		{"https://a http://b", false},
		{"http://a https://b http://c", false}, // back to clear text
		{"https://a file:///etc/passwd", false},
		{"https://a gopher://b", false},
		{"https://a https://b https://c https://d https://e https://f", true},
		{"https://a https://b https://c https://d https://e https://f https://g", false}, // six
	} {
		var via []*http.Request
		for _, hop := range strings.Fields(c.hops) {
			via = append(via, httptest.NewRequest(http.MethodGet, hop, nil))
		}
		last := len(via) - 1
		if err := checkRedirect(via[last], via[:last]); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.hops, err)
		}
	}
}

func TestTokenServersThatAreRefused(t *testing.T) {
	for _, realm := range []string{"file:///etc/passwd", "http://192.0.2.1/token", "ftp://x/y", ""} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm=%q`, realm))
			w.WriteHeader(http.StatusUnauthorized)
		}))
		c := &Config{Credentials: credentials("ann", "secret")}
		servers, _ := c.servers(host(s), "a")
		servers[0].insecure = false
		cl, err := newClient(c, servers[0])
		if err != nil {
			t.Fatal(err)
		}
		req, _ := cl.request(ctx, http.MethodGet, "a", "/tags/list")
		req.URL.Scheme = "http"
		if _, err := cl.do(req, "x", 200); err == nil || !strings.Contains(err.Error(), "token server") {
			t.Errorf("realm %q: %v", realm, err)
		}
		s.Close()
	}
}

func TestParseChallenge(t *testing.T) {
	scheme, p := parseChallenge(`Bearer realm="https://a/t?x=\"y\"",service="s,1", scope=repository:a:pull ,error="e"`)
	if scheme != "Bearer" || p["realm"] != `https://a/t?x="y"` || p["service"] != "s,1" || p["scope"] != "repository:a:pull" || p["error"] != "e" {
		t.Errorf("%s %q", scheme, p)
	}
	for _, odd := range []string{"", "Bearer", "Bearer ,,,", `Bearer realm="`, "Bearer =,=", `Bearer a="\`} {
		parseChallenge(odd)
	}
}

func conffile(t *testing.T, text string) []string {
	t.Helper()
	path := t.TempDir() + "/registries.conf"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{path, "/nonexistent/registries.conf"}
}

func TestRegistriesConf(t *testing.T) {
	c := &Config{Files: conffile(t, `
unqualified-search-registries = ["quay.io", "docker.io"]
[aliases]
fedora = "registry.fedoraproject.org/fedora"
[[registry]]
prefix = "docker.io"
location = "docker.example/hub"
[[registry.mirror]]
location = "mirror.example:5000/cache"
insecure = true
pull-from-mirror = "digest-only"
[[registry]]
prefix = "docker.io/library/special"
location = "special.example/s"
[[registry]]
prefix = "*.evil.example"
blocked = true
`)}
	show := func(host, path string) string {
		list, err := c.servers(host, path)
		if err != nil {
			return err.Error()
		}
		var parts []string
		for _, s := range list {
			parts = append(parts, fmt.Sprintf("%s/%s mirror=%v insecure=%v digest=%v", s.host, s.path, s.mirror, s.insecure, s.digestOnly))
		}
		return strings.Join(parts, "; ")
	}
	for in, want := range map[[2]string]string{
		{"docker.io", "library/x"}:          "mirror.example:5000/cache/library/x mirror=true insecure=true digest=true; docker.example/hub/library/x mirror=false insecure=false digest=false",
		{"docker.io", "library/special/a"}:  "special.example/s/a mirror=false insecure=false digest=false",
		{"docker.io", "library/specialist"}: "mirror.example:5000/cache/library/specialist mirror=true insecure=true digest=true; docker.example/hub/library/specialist mirror=false insecure=false digest=false",
		{"a.evil.example", "x"}:             "a.evil.example/x: blocked by registries.conf",
		{"evil.example", "x"}:               "evil.example/x mirror=false insecure=false digest=false",
		{"localhost:1", "x"}:                "localhost:1/x mirror=false insecure=true digest=false",
	} {
		if got := show(in[0], in[1]); got != want {
			t.Errorf("%v = %s\nwant %s", in, got, want)
		}
	}
	if names, err := c.Expand("fedora"); err != nil || fmt.Sprint(names) != "[registry.fedoraproject.org/fedora]" {
		t.Errorf("fedora = %v, %v", names, err)
	}
	if names, err := c.Expand("x"); err != nil || fmt.Sprint(names) != "[quay.io/x docker.io/library/x]" {
		t.Errorf("x = %v, %v", names, err)
	}
	bad := &Config{Files: conffile(t, "unqualified-search-registries = nonsense")}
	if _, err := bad.servers("a.b", "c"); err == nil || !strings.Contains(err.Error(), "registries.conf") {
		t.Errorf("bad file: %v", err)
	}
}

func TestMirrorFirstThenTheRegistry(t *testing.T) {
	asked := map[string]int{}
	reg := inner()
	main := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked["main"]++
		reg.ServeHTTP(w, r)
	}))
	defer main.Close()
	mirror := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked["mirror"]++
		w.WriteHeader(http.StatusNotFound)
	}))
	defer mirror.Close()
	c := &Config{Files: conffile(t, fmt.Sprintf("[[registry]]\nprefix=%q\n[[registry.mirror]]\nlocation=%q\n", host(main), host(mirror)))}
	r := open(t, c, host(main), "a")
	d := put(t, r, []byte("x"), PutOptions{})
	if asked["mirror"] != 0 {
		t.Error("a push went to the mirror")
	}
	if got := get(t, r, d); got != "x" || asked["mirror"] != 1 {
		t.Errorf("got %q, mirror asked %d times", got, asked["mirror"])
	}
	_, _, err := r.Manifest(ctx, "none")
	var refused *Error
	if !errors.As(err, &refused) || refused.Host != host(main) || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "; mirror "+host(mirror)) {
		t.Errorf("both refuse: %v", err)
	}
}

func TestCertificates(t *testing.T) {
	s := httptest.NewTLSServer(inner())
	defer s.Close()
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	// A name that is no loopback address to kist, so that TLS is checked.
	dirs := t.TempDir()
	c := &Config{CertDirs: []string{dirs}}
	sv := server{host: host(s), path: "a"}
	ping := func() error {
		cl, err := newClient(c, sv)
		if err != nil {
			return err
		}
		req, _ := cl.request(ctx, http.MethodGet, "", "/")
		resp, err := cl.do(req, "", 200)
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	if err := ping(); err == nil {
		t.Error("an unknown certificate is accepted")
	}
	sub := filepath.Join(dirs, host(s))
	os.MkdirAll(sub, 0o700)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	os.WriteFile(sub+"/ca.crt", ca, 0o600)
	if err := ping(); err != nil {
		t.Errorf("with its CA: %v", err)
	}
	// A server that wants to know who asks.
	s.TLS.ClientAuth = tls.RequireAnyClientCert
	if err := ping(); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("without a client certificate: %v", err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(s.TLS.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	os.WriteFile(sub+"/client.cert", ca, 0o600)
	if err := ping(); err == nil || !strings.Contains(err.Error(), "client.cert") {
		t.Errorf("without its key: %v", err)
	}
	os.WriteFile(sub+"/client.key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600)
	if err := ping(); err != nil {
		t.Errorf("with a client certificate: %v", err)
	}
	os.WriteFile(sub+"/ca.crt", []byte("garbage"), 0o600)
	if err := ping(); err == nil || !strings.Contains(err.Error(), "ca.crt") {
		t.Errorf("a broken CA file: %v", err)
	}
}

func TestTagsOverPages(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("last") == "" {
			w.Header().Set("Link", `</v2/a/tags/list?last=b>; rel="next"`)
			io.WriteString(w, `{"tags":["a","b"]}`)
			return
		}
		io.WriteString(w, `{"tags":["c"]}`)
	}))
	defer s.Close()
	tags, err := open(t, &Config{}, host(s), "a").Tags(ctx)
	if err != nil || fmt.Sprint(tags) != "[a b c]" {
		t.Errorf("tags = %v, %v", tags, err)
	}
}

func TestSearch(t *testing.T) {
	hub := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/search" && r.URL.Query().Get("q") == "box" && r.URL.Query().Get("n") == "5" {
			io.WriteString(w, `{"results":[{"name":"busybox","description":"d","star_count":3,"is_official":true}]}`)
		}
	}))
	defer hub.Close()
	if found, err := Search(ctx, &Config{}, host(hub), "box", 5); err != nil || len(found) != 1 || found[0] != (Found{Name: "busybox", Description: "d", Stars: 3, Official: true}) {
		t.Errorf("found %+v, %v", found, err)
	}
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v2/_catalog" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		io.WriteString(w, `{"repositories":["a/box","other"]}`)
	}))
	defer plain.Close()
	if found, err := Search(ctx, &Config{}, host(plain), "box", 5); err != nil || len(found) != 1 || found[0].Name != host(plain)+"/a/box" {
		t.Errorf("found %+v, %v", found, err)
	}
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "<html>") }))
	defer page.Close()
	if _, err := Search(ctx, &Config{}, host(page), "box", 5); err == nil || !strings.Contains(err.Error(), "not JSON") {
		t.Errorf("a web page: %v", err)
	}
}

func TestKeychain(t *testing.T) {
	dir := t.TempDir()
	docker, podman := dir+"/docker/config.json", dir+"/auth.json"
	os.MkdirAll(dir+"/docker", 0o700)
	helper := filepath.Join(dir, "docker-credential-test")
	os.WriteFile(helper, []byte("#!/bin/sh\nread host\n[ \"$1\" = get ] && [ $host = helped.example ] && echo '{\"ServerURL\":\"x\",\"Username\":\"hugo\",\"Secret\":\"h\"}' && exit\necho credentials not found in native keychain; exit 1\n"), 0o755)
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	os.WriteFile(docker, []byte(`{"unknown":{"keep":1},"credHelpers":{"helped.example":"test","absent.example":"test"},"auths":{"https://index.docker.io/v1/":{"auth":"aHViOnB3"}}}`), 0o600)
	os.WriteFile(podman, []byte(`{"auths":{"quay.io/team":{"auth":"dGVhbTpw"},"quay.io":{"auth":"YWxsOnA="}}}`), 0o600)
	k := &Keychain{Files: []string{docker, podman, dir + "/none.json"}}
	if _, err := k.Store("new.example:5000", Credentials{Username: "neu", Password: "a:b"}); err != nil {
		t.Fatal(err)
	}
	for in, want := range map[[2]string]string{
		{"docker.io", "library/x"}: "hub", {"quay.io", "team/app"}: "team", {"quay.io", "teams/app"}: "all",
		{"helped.example", "x"}: "hugo", {"absent.example", "x"}: "", {"new.example:5000", "a"}: "neu", {"new.example", "a"}: "",
	} {
		a, err := k.Lookup(ctx, in[0], in[1])
		if err != nil || a.Username != want {
			t.Errorf("%v: %q, %v; want %q", in, a.Username, err, want)
		}
	}
	data, _ := os.ReadFile(docker)
	if !strings.Contains(string(data), `"keep": 1`) {
		t.Errorf("unknown keys were lost: %s", data)
	}
	if found, err := k.Erase("new.example:5000"); err != nil || !found {
		t.Errorf("erase: %v, %v", found, err)
	}
	if found, err := k.Erase("new.example:5000"); err != nil || found {
		t.Errorf("erase again: %v, %v", found, err)
	}
	k.Env = `{"auths":{"quay.io":{"auth":"ZW52OnA="}}}`
	if a, err := k.Lookup(ctx, "quay.io", "team/app"); err != nil || a.Username != "env" {
		t.Errorf("of the environment: %q, %v", a.Username, err)
	}
	k.Env = ""
	os.WriteFile(docker, []byte("{not json"), 0o600)
	if _, err := k.Lookup(ctx, "a.b", "c"); err == nil || !strings.Contains(err.Error(), "config.json") {
		t.Errorf("a broken file: %v", err)
	}
}

package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// A fakeRegistry is go-containerregistry's in-memory one, which counts bytes
// and may misbehave.
type fakeRegistry struct {
	*httptest.Server
	// sent counts the bytes of blobs; requests all requests.
	sent, requests atomic.Int64
	// cutAfter ends each blob's response after so many bytes, 0 never.
	cutAfter atomic.Int64
	// reset ends them by a reset of the connection, which loses what is under way.
	reset atomic.Bool
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
	if !f.reset.Load() {
		return
	}
	http.NewResponseController(w).Flush()
	if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
		conn.(*net.TCPConn).SetLinger(0)
		conn.Close()
	}
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

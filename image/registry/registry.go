// Package registry speaks the distribution protocol: it reads and writes
// manifests and blobs of one repository, through mirrors, with credentials,
// and asks again when a registry says it is busy.
//
// Nothing a registry sends is trusted: bodies are bounded, redirects go only to
// http(s) and never take credentials along, and what should be JSON is checked.
package registry

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// maxDocument bounds manifests and other JSON.
const maxDocument = 4 << 20

// manifestTypes are what kist reads, in the order of preference.
var manifestTypes = []types.MediaType{
	types.OCIManifestSchema1, types.OCIImageIndex, types.DockerManifestSchema2, types.DockerManifestList,
}

// A Repository is one repository of one registry.
type Repository struct {
	// Host is the registry as people write it, "docker.io" or "localhost:5000".
	Host string
	// Path is the name within it, "library/busybox".
	Path string

	endpoints []*endpoint
}

// An endpoint is a server that has the repository: a mirror or the registry.
type endpoint struct {
	client *client
	path   string
	mirror bool
	// digestOnly and tagOnly are the mirror's pull-from-mirror.
	digestOnly, tagOnly bool
}

func (e *endpoint) serves(reference string) bool {
	byDigest := strings.Contains(reference, ":")
	return !(e.digestOnly && !byDigest || e.tagOnly && byDigest)
}

// Open returns the repository path of host. It does not talk to it yet.
func Open(c *Config, host, path string) (*Repository, error) {
	r := &Repository{Host: host, Path: path}
	servers, err := c.servers(host, path)
	if err != nil {
		return nil, err
	}
	for _, s := range servers {
		cl, err := newClient(c, s)
		if err != nil {
			return nil, err
		}
		r.endpoints = append(r.endpoints, &endpoint{
			client: cl, path: s.path, mirror: s.mirror, digestOnly: s.digestOnly, tagOnly: s.tagOnly,
		})
	}
	return r, nil
}

// main is the registry itself, after its mirrors.
func (r *Repository) main() *endpoint { return r.endpoints[len(r.endpoints)-1] }

// each tries the endpoints in order and returns the first success. The error is
// the registry's own; a mirror's is told only with it.
func (r *Repository) each(ctx context.Context, reference string, try func(*endpoint) error) error {
	var errs []error
	for _, e := range r.endpoints {
		if e.mirror && !e.serves(reference) {
			continue
		}
		err := try(e)
		if err == nil || ctx.Err() != nil {
			return err
		}
		if e.mirror {
			err = fmt.Errorf("mirror %s: %w", e.client.host, err)
		}
		errs = append(errs, err)
	}
	slices.Reverse(errs)
	return Join(errs)
}

// Join is errors.Join on one line.
func Join(errs []error) error {
	if len(errs) == 1 {
		return errs[0]
	}
	return joined(errs)
}

type joined []error

func (j joined) Error() string {
	var texts []string
	for _, err := range j {
		texts = append(texts, err.Error())
	}
	return strings.Join(texts, "; ")
}

func (j joined) Unwrap() []error { return j }

// Head asks for the descriptor of a manifest by tag or digest, in one round trip.
func (r *Repository) Head(ctx context.Context, reference string) (d v1.Descriptor, err error) {
	err = r.each(ctx, reference, func(e *endpoint) error {
		resp, err := e.manifest(ctx, http.MethodHead, reference)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		d, err = headDescriptor(resp)
		return err
	})
	return d, err
}

// ErrNoDigest says that a registry does not tell digests with its answers.
var ErrNoDigest = errors.New("registry sent no digest")

func headDescriptor(resp *http.Response) (v1.Descriptor, error) {
	h, err := v1.NewHash(resp.Header.Get("Docker-Content-Digest"))
	if err != nil {
		return v1.Descriptor{}, ErrNoDigest
	}
	return v1.Descriptor{Digest: h, Size: max(resp.ContentLength, 0), MediaType: contentType(resp)}, nil
}

// Manifest fetches a manifest or index by tag or digest. Its digest is computed
// from the bytes, and must be the one that was asked for.
func (r *Repository) Manifest(ctx context.Context, reference string) (data []byte, d v1.Descriptor, err error) {
	err = r.each(ctx, reference, func(e *endpoint) error {
		resp, err := e.manifest(ctx, http.MethodGet, reference)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		data, d, err = readManifest(resp, reference)
		return err
	})
	return data, d, err
}

func (e *endpoint) manifest(ctx context.Context, method, reference string) (*http.Response, error) {
	req, err := e.client.request(ctx, method, e.path, "/manifests/"+reference)
	if err != nil {
		return nil, err
	}
	for _, t := range manifestTypes {
		req.Header.Add("Accept", string(t))
	}
	return e.client.do(req, e.scope("pull"), http.StatusOK)
}

func (e *endpoint) scope(actions string) string { return "repository:" + e.path + ":" + actions }

func readManifest(resp *http.Response, reference string) ([]byte, v1.Descriptor, error) {
	data, err := readBounded(resp.Body, maxDocument)
	if err != nil {
		return nil, v1.Descriptor{}, fmt.Errorf("manifest %s: %w", reference, err)
	}
	d := v1.Descriptor{MediaType: contentType(resp), Size: int64(len(data)), Digest: v1.Hash{
		Algorithm: "sha256", Hex: fmt.Sprintf("%x", sha256.Sum256(data)),
	}}
	if strings.Contains(reference, ":") && reference != d.Digest.String() {
		return nil, d, fmt.Errorf("manifest %s: the registry sent other content, %s", reference, d.Digest)
	}
	if slices.Contains(manifestTypes, d.MediaType) {
		return data, d, nil
	}
	// A type that says nothing is replaced by what the document says of itself.
	var own struct {
		MediaType     types.MediaType   `json:"mediaType"`
		SchemaVersion int               `json:"schemaVersion"`
		Manifests     []json.RawMessage `json:"manifests"`
	}
	switch {
	case json.Unmarshal(data, &own) != nil:
		return nil, d, fmt.Errorf("manifest %s: the registry sent %q, not a manifest", reference, d.MediaType)
	case own.SchemaVersion == 1:
		return nil, d, fmt.Errorf("manifest %s: schema 1 is too old, push the image again with a current tool", reference)
	case own.MediaType != "":
		d.MediaType = own.MediaType
	case own.Manifests != nil:
		d.MediaType = types.OCIImageIndex
	default:
		d.MediaType = types.OCIManifestSchema1
	}
	return data, d, nil
}

func contentType(resp *http.Response) types.MediaType {
	t, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	return types.MediaType(strings.TrimSpace(t))
}

// readBounded reads all of r, an error if that is more than limit bytes.
func readBounded(r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(data)) > limit {
		return nil, Fatal(fmt.Errorf("more than %d bytes", limit))
	}
	return data, err
}

// Blob opens a blob from offset on. start is where the bytes really begin: 0
// when the registry knows no ranges. The caller counts, hashes and closes.
func (r *Repository) Blob(ctx context.Context, d v1.Descriptor, offset int64) (body io.ReadCloser, start int64, err error) {
	err = r.each(ctx, d.Digest.String(), func(e *endpoint) error {
		body, start, err = e.blob(ctx, d, offset)
		return err
	})
	return body, start, err
}

func (e *endpoint) blob(ctx context.Context, d v1.Descriptor, offset int64) (io.ReadCloser, int64, error) {
	req, err := e.client.request(ctx, http.MethodGet, e.path, "/blobs/"+d.Digest.String())
	if err != nil {
		return nil, 0, err
	}
	// Transparent compression would change the bytes that the digest is of.
	req.Header.Set("Accept-Encoding", "identity")
	if offset > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	resp, err := e.client.do(req, e.scope("pull"), http.StatusOK, http.StatusPartialContent)
	if err != nil {
		return nil, 0, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, 0, nil
	}
	start, err := rangeStart(resp.Header.Get("Content-Range"))
	if err != nil {
		resp.Body.Close()
		return nil, 0, err
	}
	return resp.Body, start, nil
}

// rangeStart reads "bytes 5-9/10".
func rangeStart(s string) (int64, error) {
	first, _, _ := strings.Cut(strings.TrimPrefix(s, "bytes "), "-")
	n, err := strconv.ParseInt(first, 10, 64)
	if err != nil || n < 0 {
		return 0, Fatal(fmt.Errorf("registry sent the range %.80q", s))
	}
	return n, nil
}

// resolveLocation is where an upload continues: absolute or relative.
func resolveLocation(resp *http.Response) (*url.URL, error) {
	loc := resp.Header.Get("Location")
	if loc == "" {
		return nil, errors.New("registry sent no location for the upload")
	}
	return resp.Request.URL.Parse(loc)
}

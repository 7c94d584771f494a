package registry

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"github.com/google/go-containerregistry/pkg/v1/types"
)

// PutManifest stores a manifest under reference, a tag or its digest, and
// returns its digest as the registry confirmed it.
func (r *Repository) PutManifest(ctx context.Context, reference string, data []byte, mt types.MediaType) error {
	e := r.main()
	req, err := e.client.request(ctx, http.MethodPut, e.path, "/manifests/"+reference)
	if err != nil {
		return err
	}
	setBody(req, data)
	req.Header.Set("Content-Type", string(mt))
	resp, err := e.client.do(req, e.scope("pull,push"), http.StatusCreated, http.StatusOK, http.StatusAccepted)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// Tags lists the tags of the repository.
func (r *Repository) Tags(ctx context.Context) ([]string, error) {
	e := r.main()
	var tags []string
	next := &url.URL{Scheme: "https", Host: e.client.host, Path: "/v2/" + e.path + "/tags/list", RawQuery: "n=1000"}
	for page := 0; next != nil && page < maxPages; page++ {
		var doc struct{ Tags []string }
		link, err := e.client.getJSON(ctx, next, e.scope("pull"), &doc)
		if err != nil {
			return nil, err
		}
		tags = append(tags, doc.Tags...)
		next = link
	}
	return tags, nil
}

const maxPages = 1000

// Ping checks that the registry of host takes the credentials. See the
// distribution specification, end-1.
func Ping(ctx context.Context, c *Config, host string) error {
	r, err := Open(c, host, "")
	if err != nil {
		return err
	}
	e := r.main()
	u := &url.URL{Scheme: "https", Host: e.client.host, Path: "/v2/"}
	req, err := e.client.requestURL(ctx, http.MethodGet, u)
	if err != nil {
		return err
	}
	resp, err := e.client.do(req, "", http.StatusOK)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// Delete removes a manifest by digest.
func (r *Repository) Delete(ctx context.Context, digest string) error {
	e := r.main()
	req, err := e.client.request(ctx, http.MethodDelete, e.path, "/manifests/"+digest)
	if err != nil {
		return err
	}
	resp, err := e.client.do(req, e.scope("pull,delete"), http.StatusAccepted, http.StatusOK)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// getJSON fetches u into v and returns the address of the next page, or nil.
func (c *client) getJSON(ctx context.Context, u *url.URL, scope string, v any) (*url.URL, error) {
	req, err := c.requestURL(ctx, http.MethodGet, u)
	if err != nil {
		return nil, err
	}
	resp, err := c.do(req, scope, http.StatusOK)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	data, err := readBounded(resp.Body, maxDocument)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return nil, fmt.Errorf("%s: not JSON but %q", u.Host, resp.Header.Get("Content-Type"))
	}
	return nextPage(resp)
}

// nextPage reads `Link: </v2/…>; rel="next"`; the page is on the same server.
func nextPage(resp *http.Response) (*url.URL, error) {
	for _, link := range resp.Header.Values("Link") {
		target, rest, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(link), "<"), ">")
		if !ok || !strings.Contains(rest, "next") {
			continue
		}
		u, err := resp.Request.URL.Parse(target)
		if err != nil {
			return nil, err
		}
		u.Scheme, u.Host = "https", resp.Request.URL.Host
		return u, nil
	}
	return nil, nil
}

// setBody gives req a body that can be sent again.
func setBody(req *http.Request, data []byte) {
	req.ContentLength = int64(len(data))
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
	req.Body, _ = req.GetBody()
}

// A Found is one result of Docker Hub's search.
type Found struct {
	Name        string `json:"name"`
	Description string `json:"description"`
	Stars       int    `json:"star_count"`
	Official    bool   `json:"is_official"`
	Automated   bool   `json:"is_automated"`
}

// Search asks a registry that knows docker's search, Docker Hub or host. One
// that does not lists its repositories, among which the term is looked for.
func Search(ctx context.Context, c *Config, host, term string, limit int) ([]Found, error) {
	if host == "docker.io" {
		host = "index.docker.io"
	}
	servers, err := c.servers(host, "")
	if err != nil {
		return nil, err
	}
	s := servers[len(servers)-1]
	s.host = host
	cl, err := newClient(c, s)
	if err != nil {
		return nil, err
	}
	u := &url.URL{Scheme: "https", Host: host, Path: "/v1/search", RawQuery: url.Values{"q": {term}, "n": {itoa(int64(limit))}}.Encode()}
	var doc struct{ Results []Found }
	_, err = cl.getJSON(ctx, u, "", &doc)
	var refused *Error
	if errors.As(err, &refused) && refused.Status == http.StatusNotFound {
		return cl.catalog(ctx, term, limit)
	}
	return doc.Results, err
}

// catalog lists the repositories with term in their names.
func (c *client) catalog(ctx context.Context, term string, limit int) ([]Found, error) {
	var found []Found
	next := &url.URL{Scheme: "https", Host: c.host, Path: "/v2/_catalog", RawQuery: "n=1000"}
	for page := 0; next != nil && page < maxPages; page++ {
		var doc struct{ Repositories []string }
		link, err := c.getJSON(ctx, next, "registry:catalog:*", &doc)
		if err != nil {
			return nil, err
		}
		for _, name := range doc.Repositories {
			if strings.Contains(name, term) && len(found) < limit {
				found = append(found, Found{Name: c.host + "/" + name})
			}
		}
		next = link
	}
	return found, nil
}

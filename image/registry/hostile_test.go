package registry

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// A roundTripper answers without a network.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestPasswordsNeverTravelInClear(t *testing.T) {
	for _, c := range []struct {
		url      string
		insecure bool
		sent     bool
	}{
		{"http://registry.example/v2/", false, false},
		{"http://192.0.2.1:5000/v2/", false, false},
		{"http://registry.example/v2/", true, true},
		{"https://registry.example/v2/", false, true},
		{"http://127.0.0.1:5000/v2/", false, true},
		{"http://[::1]:5000/v2/", false, true},
	} {
		sent := false
		u, _ := url.Parse(c.url)
		a := &authorizer{host: u.Host, insecure: c.insecure}
		a.credentials = func(context.Context) (Credentials, error) {
			return Credentials{Username: "ann", Password: "secret"}, nil
		}
		a.next = roundTripper(func(r *http.Request) (*http.Response, error) {
			sent = sent || r.Header.Get("Authorization") != ""
			return &http.Response{StatusCode: http.StatusUnauthorized, Header: http.Header{"Www-Authenticate": {`Basic realm="r"`}}, Body: http.NoBody, Request: r}, nil
		})
		req, _ := http.NewRequest(http.MethodGet, c.url, nil)
		resp, err := a.RoundTrip(req)
		if err == nil {
			resp.Body.Close()
		}
		if sent != c.sent || c.sent != (err == nil) {
			t.Errorf("%s, insecure %v: sent %v, %v; want %v", c.url, c.insecure, sent, err, c.sent)
		}
	}
}

// An endlessBody counts what is read of it.
type endlessBody struct{ read int64 }

func (e *endlessBody) Read(b []byte) (int, error) {
	e.read += int64(len(b))
	if e.read > 1<<20 {
		return 0, io.EOF // ends a reader without a bound
	}
	for i := range b {
		b[i] = ' '
	}
	return len(b), nil
}

func TestErrorTextsAreBounded(t *testing.T) {
	endless := &endlessBody{}
	req := httptest.NewRequest(http.MethodGet, "http://registry.example/v2/", nil)
	resp := &http.Response{StatusCode: http.StatusForbidden, Body: io.NopCloser(endless), Request: req}
	if err := responseError(resp); err == nil || endless.read > 256<<10 {
		t.Errorf("read %d bytes of an endless error", endless.read)
	}
	long := strings.Repeat("x", 10<<10)
	resp.Body = io.NopCloser(strings.NewReader(`{"errors":[{"code":"` + long + `","message":"` + long + `"}]}`))
	if text := responseError(resp).Error(); len(text) > 2<<10 {
		t.Errorf("an error text of %d bytes", len(text))
	}
}

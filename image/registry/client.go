package registry

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// headerTimeout is how long a registry may think before it answers.
	headerTimeout = 60 * time.Second
	// idleTimeout is how long a body may stand still.
	idleTimeout = 60 * time.Second
	// maxRedirects is how many hops a request may take.
	maxRedirects = 5
	// tries is how often a request that may be repeated is sent.
	tries = 5
)

// A client talks to one server.
type client struct {
	host string // host[:port] as in URLs
	http *http.Client
	auth *authorizer
	// insecure allows unverified TLS and plain HTTP.
	insecure bool
	// plain says that the server was found to speak HTTP.
	plain atomic.Bool
}

func newClient(c *Config, s server) (*client, error) {
	tlsConfig, err := c.tls(s)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second, Control: wideWindow}).DialContext,
		TLSClientConfig:     tlsConfig,
		TLSHandshakeTimeout: 20 * time.Second, ResponseHeaderTimeout: headerTimeout,
		MaxIdleConnsPerHost: 16, IdleConnTimeout: 90 * time.Second, ForceAttemptHTTP2: true,
		// Registries send compressed blobs; compressing manifests saves nothing.
		DisableCompression: true, WriteBufferSize: 64 << 10, ReadBufferSize: 64 << 10,
	}
	cl := &client{host: s.host, insecure: s.insecure}
	cl.auth = &authorizer{host: s.host, next: transport, credentials: s.credentials, insecure: s.insecure}
	cl.http = &http.Client{Transport: cl.auth, CheckRedirect: checkRedirect}
	return cl, nil
}

// checkRedirect follows only to http(s), never from https to http, and not far.
// Credentials stay behind: the authorizer adds them to its own host alone.
func checkRedirect(req *http.Request, via []*http.Request) error {
	switch {
	case len(via) > maxRedirects:
		return Fatal(fmt.Errorf("more than %d redirects", maxRedirects))
	case req.URL.Scheme != "https" && req.URL.Scheme != "http":
		return Fatal(fmt.Errorf("redirect to %s: not a web address", req.URL.Scheme))
	case via[len(via)-1].URL.Scheme == "https" && req.URL.Scheme == "http":
		return Fatal(fmt.Errorf("redirect from https to http://%s", req.URL.Host))
	}
	return nil
}

// request makes a request for /v2/PATH/REST.
func (c *client) request(ctx context.Context, method, path, rest string) (*http.Request, error) {
	u := url.URL{Scheme: "https", Host: c.host, Path: "/v2/" + path + rest}
	if path == "" {
		u.Path = "/v2" + rest
	}
	return c.requestURL(ctx, method, &u)
}

func (c *client) requestURL(ctx context.Context, method string, u *url.URL) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "kist")
	return req, nil
}

// do sends req with a token for scope and returns a response whose status is
// one of ok. It repeats a request without a body, or with one that GetBody
// renews, when the registry is busy or the connection broke.
func (c *client) do(req *http.Request, scope string, ok ...int) (*http.Response, error) {
	ctx := withScope(req.Context(), scope)
	for try := 0; ; try++ {
		resp, err := c.once(req.WithContext(ctx), ok)
		if err == nil {
			return resp, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		pause, retry := Retry(err, try)
		if !retry || try+1 >= tries || req.Body != nil && req.GetBody == nil {
			return nil, err
		}
		if req.GetBody != nil {
			if req.Body, err = req.GetBody(); err != nil {
				return nil, err
			}
		}
		if err := sleep(ctx, pause); err != nil {
			return nil, err
		}
	}
}

func sleep(ctx context.Context, pause time.Duration) error {
	select {
	case <-time.After(pause):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (c *client) once(req *http.Request, ok []int) (*http.Response, error) {
	resp, err := c.send(req)
	if err != nil {
		return nil, unwrapURL(err)
	}
	if slices.Contains(ok, resp.StatusCode) {
		resp.Body = &idleBody{ReadCloser: resp.Body, timer: time.AfterFunc(idleTimeout, func() { resp.Body.Close() })}
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, responseError(resp)
}

// send sends the request by https, or by http where the server is insecure and
// turned out to speak nothing else.
func (c *client) send(req *http.Request) (*http.Response, error) {
	if c.plain.Load() && req.URL.Host == c.host {
		req.URL.Scheme = "http"
	}
	resp, err := c.http.Do(req)
	if err == nil || !c.insecure || req.URL.Scheme != "https" || !speaksHTTP(err) {
		return resp, err
	}
	c.plain.Store(true)
	req.URL.Scheme = "http"
	if req.GetBody != nil {
		if req.Body, err = req.GetBody(); err != nil {
			return nil, err
		}
	}
	return c.http.Do(req)
}

// speaksHTTP reports whether a TLS handshake failed because the server does not
// speak TLS. net/http has no type for its own wording of that.
func speaksHTTP(err error) bool {
	var record tls.RecordHeaderError
	return errors.As(err, &record) || strings.Contains(err.Error(), "server gave HTTP response to HTTPS client")
}

// unwrapURL drops net/url's "Get "https://…":", whose address may carry a
// signature; the host stays.
func unwrapURL(err error) error {
	var ue *url.Error
	if !errors.As(err, &ue) {
		return err
	}
	if u, perr := url.Parse(ue.URL); perr == nil {
		return fmt.Errorf("%s: %w", u.Host, ue.Err)
	}
	return ue.Err
}

// An idleBody closes itself when no byte comes for idleTimeout.
type idleBody struct {
	io.ReadCloser
	timer *time.Timer
}

func (b *idleBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.timer.Reset(idleTimeout)
	}
	return n, err
}

func (b *idleBody) Close() error {
	b.timer.Stop()
	return b.ReadCloser.Close()
}

// An Error is a registry's refusal.
type Error struct {
	Status int
	// Code is the distribution specification's, "MANIFEST_UNKNOWN" for example.
	Code, Message string
	Host          string
	retryAfter    time.Duration
}

func (e *Error) Error() string {
	s := e.Host + ": "
	switch {
	case e.Message != "":
		s += e.Message
	case e.Code != "":
		s += strings.ToLower(strings.ReplaceAll(e.Code, "_", " "))
	default:
		s += strconv.Itoa(e.Status) + " " + http.StatusText(e.Status)
	}
	if e.Status == http.StatusTooManyRequests {
		s += " (rate limit)"
	}
	return s
}

// maxErrorText bounds what is kept of a registry's words.
const maxErrorText = 1 << 10

// responseError reads the registry's error document, as far as it is one.
func responseError(resp *http.Response) error {
	e := &Error{Status: resp.StatusCode, Host: resp.Request.URL.Host}
	e.retryAfter = retryAfter(resp.Header.Get("Retry-After"), time.Now())
	data, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	var doc struct {
		Errors []struct{ Code, Message string }
	}
	if json.Unmarshal(data, &doc) == nil && len(doc.Errors) > 0 {
		e.Code, e.Message = cut(doc.Errors[0].Code), cut(doc.Errors[0].Message)
	}
	return e
}

// retryAfter reads the header of that name, seconds or a date. See RFC 9110, 10.2.3.
func retryAfter(s string, now time.Time) time.Duration {
	if n, err := strconv.Atoi(s); err == nil {
		return time.Duration(n) * time.Second
	}
	if t, err := http.ParseTime(s); err == nil {
		return t.Sub(now)
	}
	return 0
}

func cut(s string) string { return s[:min(len(s), maxErrorText)] }

// Fatal marks an error that asking again does not mend.
func Fatal(err error) error { return permanent{err} }

type permanent struct{ error }

func (p permanent) Unwrap() error   { return p.error }
func (p permanent) Permanent() bool { return true }

// Retry says whether a request that failed with err may succeed later, and how
// long to wait before try number try+1: what the registry asks for, else
// doubling from a quarter of a second.
func Retry(err error, try int) (time.Duration, bool) {
	pause := min(250*time.Millisecond<<min(try, 10), 10*time.Second)
	var e *Error
	var p interface{ Permanent() bool }
	var tlsErr *tls.CertificateVerificationError
	var dns *net.DNSError
	var op *net.OpError
	switch {
	case errors.As(err, &p) && p.Permanent(), errors.As(err, &tlsErr), errors.Is(err, context.Canceled):
		return 0, false
	case errors.As(err, &dns) && dns.IsNotFound:
		return 0, false
	// crypto/tls's way to say that the other side ended the handshake.
	case errors.As(err, &op) && op.Op == "remote error":
		return 0, false
	case errors.As(err, &e):
		busy := e.Status == http.StatusTooManyRequests || e.Status >= 500 && e.Status != http.StatusNotImplemented ||
			e.Status == http.StatusRequestTimeout
		if e.retryAfter > 0 {
			pause = min(e.retryAfter, time.Minute)
		}
		return pause, busy
	}
	// A server that is not there is tried once more: it may be restarting.
	gone := errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EHOSTUNREACH)
	return pause, !gone || try < 1
}

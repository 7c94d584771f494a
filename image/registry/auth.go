package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
)

// An authorizer adds credentials to the requests for its host, and only to
// those. It asks without first: most pulls need none, and so take one round
// trip less than with a ping.
type authorizer struct {
	host        string
	next        http.RoundTripper
	credentials func(context.Context) (Credentials, error)
	insecure    bool

	mu     sync.Mutex
	basic  string            // the Authorization header once basic was asked for
	tokens map[string]string // by scope
}

type scopeKey struct{}

// withScope notes what a request needs: "repository:NAME:pull", several with spaces.
func withScope(ctx context.Context, scope string) context.Context {
	return context.WithValue(ctx, scopeKey{}, scope)
}

// RoundTrip implements http.RoundTripper.
func (a *authorizer) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Host != a.host {
		return a.next.RoundTrip(req)
	}
	scope, _ := req.Context().Value(scopeKey{}).(string)
	used := a.header(scope)
	resp, err := a.next.RoundTrip(a.with(req, used))
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		return resp, err
	}
	challenges := resp.Header.Values("WWW-Authenticate")
	header, err := a.answer(req, challenges, scope, used)
	if err != nil || header == "" || header == used {
		if err != nil {
			resp.Body.Close()
			return nil, err
		}
		return resp, nil
	}
	if req.Body != nil && req.GetBody == nil {
		return resp, nil
	}
	io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	resp.Body.Close()
	again := a.with(req, header)
	if req.GetBody != nil {
		if again.Body, err = req.GetBody(); err != nil {
			return nil, err
		}
	}
	return a.next.RoundTrip(again)
}

func (a *authorizer) with(req *http.Request, header string) *http.Request {
	if header == "" {
		return req
	}
	req = req.Clone(req.Context())
	req.Header.Set("Authorization", header)
	return req
}

func (a *authorizer) header(scope string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if t, ok := a.tokens[scope]; ok {
		return "Bearer " + t
	}
	return a.basic
}

// answer gets what the challenges ask for; "" when there is nothing to give.
func (a *authorizer) answer(req *http.Request, challenges []string, scope, used string) (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if t, ok := a.tokens[scope]; ok && "Bearer "+t != used {
		return "Bearer " + t, nil // another request was faster
	}
	for _, text := range challenges {
		scheme, params := parseChallenge(text)
		switch strings.ToLower(scheme) {
		case "bearer":
			token, err := a.token(req, params, scope)
			if err != nil {
				return "", fmt.Errorf("log in to %s: %w", a.host, err)
			}
			if a.tokens == nil {
				a.tokens = map[string]string{}
			}
			a.tokens[scope] = token
			return "Bearer " + token, nil
		case "basic":
			return a.basicHeader(req)
		}
	}
	return "", nil
}

func (a *authorizer) basicHeader(req *http.Request) (string, error) {
	creds, err := a.creds(req.Context())
	if err != nil || creds.Username == "" {
		return "", err
	}
	if err := a.mayCarry(req.URL); err != nil {
		return "", err
	}
	r := http.Request{Header: http.Header{}}
	r.SetBasicAuth(creds.Username, creds.Password)
	a.basic = r.Header.Get("Authorization")
	return a.basic, nil
}

// mayCarry refuses to send a password in clear to another machine, unless the
// registry was declared insecure.
func (a *authorizer) mayCarry(u *url.URL) error {
	if u.Scheme == "https" || isLoopback(u.Hostname()) || a.insecure {
		return nil
	}
	return Fatal(fmt.Errorf("refusing to send credentials to http://%s in clear", u.Host))
}

func (a *authorizer) creds(ctx context.Context) (Credentials, error) {
	if a.credentials == nil {
		return Credentials{}, nil
	}
	return a.credentials(ctx)
}

// parseChallenge reads `Bearer realm="…",service="…"`. See RFC 9110, 11.6.1.
func parseChallenge(s string) (scheme string, params map[string]string) {
	scheme, rest, _ := strings.Cut(strings.TrimSpace(s), " ")
	params = map[string]string{}
	for rest = strings.TrimLeft(rest, " ,"); rest != ""; rest = strings.TrimLeft(rest, " ,") {
		key, value, ok := strings.Cut(rest, "=")
		if !ok {
			break
		}
		key = strings.ToLower(strings.TrimSpace(key))
		if quoted, is := strings.CutPrefix(value, `"`); is {
			var end int
			params[key], end = unquote(quoted)
			rest = quoted[end:]
			continue
		}
		value, rest, _ = strings.Cut(value, ",")
		params[key] = strings.TrimSpace(value)
	}
	return scheme, params
}

// unquote reads up to the closing quote and returns where it ended.
func unquote(s string) (string, int) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return b.String(), i + 1
		case s[i] == '\\' && i+1 < len(s):
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String(), len(s)
}

// token fetches a token for scope from the realm. See the distribution
// project's token and oauth2 specifications.
func (a *authorizer) token(req *http.Request, params map[string]string, scope string) (string, error) {
	creds, err := a.creds(req.Context())
	if err != nil {
		return "", err
	}
	if creds.RegistryToken != "" {
		return creds.RegistryToken, nil
	}
	realm, err := url.Parse(params["realm"])
	if err != nil || realm.Host == "" {
		return "", Fatal(fmt.Errorf("the registry named no token server"))
	}
	if realm.Scheme != "https" && !(realm.Scheme == "http" && (a.insecure || isLoopback(realm.Hostname()))) {
		return "", Fatal(fmt.Errorf("refusing the token server %s://%s", realm.Scheme, realm.Host))
	}
	if scope == "" {
		scope = params["scope"]
	}
	treq, err := tokenRequest(req.Context(), realm, params["service"], scope, creds)
	if err != nil {
		return "", err
	}
	client := http.Client{Transport: a.next, CheckRedirect: checkRedirect}
	resp, err := client.Do(treq)
	if err != nil {
		return "", unwrapURL(err)
	}
	defer resp.Body.Close()
	return readToken(resp)
}

func tokenRequest(ctx context.Context, realm *url.URL, service, scope string, creds Credentials) (*http.Request, error) {
	if creds.IdentityToken != "" {
		form := url.Values{
			"grant_type": {"refresh_token"}, "refresh_token": {creds.IdentityToken},
			"service": {service}, "scope": {scope}, "client_id": {"kist"},
		}
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, realm.String(), strings.NewReader(form.Encode()))
		if err == nil {
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		return r, err
	}
	q := realm.Query()
	if service != "" {
		q.Set("service", service)
	}
	for s := range strings.FieldsSeq(scope) {
		q.Add("scope", s)
	}
	u := *realm
	if creds.Username != "" {
		q.Set("account", creds.Username)
	}
	u.RawQuery = q.Encode()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err == nil && creds.Username != "" {
		r.SetBasicAuth(creds.Username, creds.Password)
	}
	return r, err
}

func readToken(resp *http.Response) (string, error) {
	if resp.StatusCode != http.StatusOK {
		return "", responseError(resp)
	}
	data, err := readBounded(resp.Body, 1<<20)
	if err != nil {
		return "", err
	}
	var t struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal(data, &t); err != nil {
		return "", Fatal(errors.New("the token server did not send JSON"))
	}
	if t.Token == "" {
		t.Token = t.AccessToken
	}
	if t.Token == "" {
		return "", Fatal(errors.New("the token server sent no token"))
	}
	return t.Token, nil
}

// isLoopback reports whether host is this machine.
func isLoopback(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return host == "localhost" || err == nil && addr.IsLoopback()
}

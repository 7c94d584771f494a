// Package etcd speaks to an etcd server by its JSON gateway, which every server
// since 3.4 has at /v3: the little that an overlay network needs, without the
// weight of a client library at every start.
package etcd

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// Config says where the server is. The files are of PEM; empty ones are not used.
type Config struct {
	URL                   string
	CAFile, CertFile, Key string
}

// A Client is one server's.
type Client struct {
	base string
	http *http.Client
}

// timeout is for one call. The server is on the local network.
const timeout = 3 * time.Second

// maxReply bounds what a server can make us hold.
const maxReply = 16 << 20

// Open returns a client. It reads the files and connects to nobody.
func Open(c Config) (*Client, error) {
	u, err := url.Parse(c.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("store %q: want http://HOST:PORT or https://HOST:PORT", c.URL)
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("store: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("store: no certificate in %s", c.CAFile)
		}
	}
	if c.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(c.CertFile, c.Key)
		if err != nil {
			return nil, fmt.Errorf("store: %w", err)
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	return &Client{
		base: strings.TrimSuffix(u.String(), "/"),
		http: &http.Client{Timeout: timeout, Transport: &http.Transport{TLSClientConfig: conf, MaxIdleConns: 1, IdleConnTimeout: 30 * time.Second}},
	}, nil
}

// call posts a message of the gateway's; see etcd's api/etcdserverpb/rpc.proto.
func (c *Client) call(ctx context.Context, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxReply))
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("store %s: %s: %.200s", c.base, resp.Status, data)
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fmt.Errorf("store %s: reply: %w", c.base, err)
	}
	return nil
}

type pair struct {
	Key   []byte `json:"key,omitempty"` // base64 in JSON
	Value []byte `json:"value,omitempty"`
	Lease string `json:"lease,omitempty"`
}

// Grant makes a lease: what is put under it is gone when it is not renewed for ttl.
func (c *Client) Grant(ctx context.Context, ttl time.Duration) (lease string, err error) {
	var out struct{ ID string }
	err = c.call(ctx, "/v3/lease/grant", map[string]int64{"TTL": int64(ttl / time.Second)}, &out)
	if err == nil && out.ID == "" {
		err = fmt.Errorf("store %s: no lease", c.base)
	}
	return out.ID, err
}

// Renew renews a lease and reports whether there still was one.
func (c *Client) Renew(ctx context.Context, lease string) (bool, error) {
	var out struct {
		Result struct {
			TTL string `json:"TTL"`
		} `json:"result"`
	}
	err := c.call(ctx, "/v3/lease/keepalive", map[string]string{"ID": lease}, &out)
	return out.Result.TTL != "" && out.Result.TTL != "0", err
}

// Revoke ends a lease and all that was put under it.
func (c *Client) Revoke(ctx context.Context, lease string) error {
	return c.call(ctx, "/v3/lease/revoke", map[string]string{"ID": lease}, &struct{}{})
}

// Put sets a key.
func (c *Client) Put(ctx context.Context, key, value, lease string) error {
	return c.call(ctx, "/v3/kv/put", pair{[]byte(key), []byte(value), lease}, &struct{}{})
}

// Create sets a key that is not there yet and reports whether it was not.
func (c *Client) Create(ctx context.Context, key, value, lease string) (bool, error) {
	in := map[string]any{
		"compare": []any{map[string]any{"key": []byte(key), "target": "CREATE", "result": "EQUAL", "create_revision": "0"}},
		"success": []any{map[string]any{"request_put": pair{[]byte(key), []byte(value), lease}}},
	}
	var out struct{ Succeeded bool }
	err := c.call(ctx, "/v3/kv/txn", in, &out)
	return out.Succeeded, err
}

// List returns the keys that begin with prefix, without it.
func (c *Client) List(ctx context.Context, prefix string) (map[string]string, error) {
	end := []byte(prefix)
	end[len(end)-1]++
	var out struct{ Kvs []pair }
	if err := c.call(ctx, "/v3/kv/range", map[string][]byte{"key": []byte(prefix), "range_end": end}, &out); err != nil {
		return nil, err
	}
	list := map[string]string{}
	for _, kv := range out.Kvs {
		list[strings.TrimPrefix(string(kv.Key), prefix)] = string(kv.Value)
	}
	return list, nil
}

// Delete removes a key, which may be gone.
func (c *Client) Delete(ctx context.Context, key string) error {
	return c.call(ctx, "/v3/kv/deleterange", map[string][]byte{"key": []byte(key)}, &struct{}{})
}

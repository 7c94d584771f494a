package registry

import (
	"context"
	"crypto/tls"

	"github.com/google/go-containerregistry/pkg/authn"
)

// A Config is how registries are reached.
type Config struct {
	// Insecure allows unverified TLS and plain HTTP everywhere (--tls-verify=false).
	Insecure bool
	// Credentials looks up the credentials for host and the repository path; nil
	// for none.
	Credentials func(ctx context.Context, host, path string) (authn.AuthConfig, error)
}

// A server is one place to ask.
type server struct {
	host, path          string
	mirror              bool
	insecure            bool
	digestOnly, tagOnly bool
	credentials         func(context.Context) (authn.AuthConfig, error)
}

// servers are the mirrors and then the registry of host/path.
func (c *Config) servers(host, path string) ([]server, error) {
	s := server{host: host, path: path, insecure: c.Insecure || isLoopback(host)}
	if c.Credentials != nil {
		s.credentials = func(ctx context.Context) (authn.AuthConfig, error) { return c.Credentials(ctx, host, path) }
	}
	if host == "docker.io" {
		s.host = "registry-1.docker.io"
	}
	return []server{s}, nil
}

func (c *Config) tls(s server) (*tls.Config, error) {
	return &tls.Config{InsecureSkipVerify: s.insecure}, nil
}

package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/pelletier/go-toml/v2"
)

// A Config is how registries are reached. The zero value knows no mirrors, no
// credentials and the system's certificates.
type Config struct {
	// Insecure allows unverified TLS and plain HTTP everywhere (--tls-verify=false).
	Insecure bool
	// Credentials looks up the credentials for host and the repository path; nil
	// for none.
	Credentials func(ctx context.Context, host, path string) (Credentials, error)
	// Files are registries.conf files; a later one adds to and overrides earlier ones.
	Files []string
	// CertDirs have a directory HOST[:PORT] each with *.crt (CA), and *.cert with
	// *.key (client).
	CertDirs []string
	// FlatCertDir has such files for whatever registry is asked (--cert-dir).
	FlatCertDir string

	once sync.Once
	conf conf
	err  error
}

// Default returns the machine's settings: registries.conf and its drop-ins, and
// docker's and containers' certificate directories. home is "" for none.
func Default(home string, getenv func(string) string) *Config {
	c := &Config{CertDirs: []string{"/etc/docker/certs.d", "/etc/containers/certs.d"}}
	dirs := []string{"/etc/containers"}
	if home != "" {
		dirs = append(dirs, filepath.Join(home, ".config/containers"))
		c.CertDirs = append(c.CertDirs, filepath.Join(home, ".config/containers/certs.d"), filepath.Join(home, ".docker/certs.d"))
	}
	if f := getenv("CONTAINERS_REGISTRIES_CONF"); f != "" {
		c.Files = []string{f}
		return c
	}
	for _, d := range dirs {
		c.Files = append(c.Files, filepath.Join(d, "registries.conf"))
		more, _ := filepath.Glob(filepath.Join(d, "registries.conf.d/*.conf"))
		slices.Sort(more)
		c.Files = append(c.Files, more...)
	}
	return c
}

// conf is registries.conf, version 2. See containers-registries.conf(5).
type conf struct {
	Unqualified []string          `toml:"unqualified-search-registries"`
	Registry    []confRegistry    `toml:"registry"`
	Aliases     map[string]string `toml:"aliases"`
}

type confRegistry struct {
	Prefix             string       `toml:"prefix"`
	Location           string       `toml:"location"`
	Insecure           bool         `toml:"insecure"`
	Blocked            bool         `toml:"blocked"`
	MirrorByDigestOnly bool         `toml:"mirror-by-digest-only"`
	Mirror             []confMirror `toml:"mirror"`
}

type confMirror struct {
	Location       string `toml:"location"`
	Insecure       bool   `toml:"insecure"`
	PullFromMirror string `toml:"pull-from-mirror"`
}

// load reads the files once. Files that are not there are not an error.
func (c *Config) load() (*conf, error) {
	c.once.Do(func() {
		for _, f := range c.Files {
			if err := c.conf.add(f); err != nil {
				c.err = fmt.Errorf("read %s: %w", f, err)
				return
			}
		}
	})
	return &c.conf, c.err
}

func (c *conf) add(file string) error {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil
	}
	if err != nil {
		return err
	}
	var more conf
	if err := toml.Unmarshal(data, &more); err != nil {
		return err
	}
	if more.Unqualified != nil {
		c.Unqualified = more.Unqualified
	}
	for _, r := range more.Registry {
		if r.Prefix == "" {
			r.Prefix = r.Location
		}
		if r.Prefix == "" {
			return errors.New("a [[registry]] has neither prefix nor location")
		}
		c.Registry = slices.DeleteFunc(c.Registry, func(old confRegistry) bool { return old.Prefix == r.Prefix })
		c.Registry = append(c.Registry, r)
	}
	if c.Aliases == nil {
		c.Aliases = map[string]string{}
	}
	for k, v := range more.Aliases {
		c.Aliases[k] = v
	}
	return nil
}

// find returns the entry with the longest prefix of name, HOST/PATH.
func (c *conf) find(name string) (confRegistry, bool) {
	var best confRegistry
	found := false
	for _, r := range c.Registry {
		if hasPrefix(name, r.Prefix) && (!found || len(r.Prefix) > len(best.Prefix)) {
			best, found = r, true
		}
	}
	return best, found
}

func hasPrefix(name, prefix string) bool {
	if domain, wild := strings.CutPrefix(prefix, "*."); wild {
		host, _, _ := strings.Cut(name, "/")
		host, _, _ = strings.Cut(host, ":")
		return strings.HasSuffix(host, "."+domain)
	}
	rest, ok := strings.CutPrefix(name, prefix)
	return ok && (rest == "" || rest[0] == '/')
}

// A server is one place to ask.
type server struct {
	host, path          string
	mirror              bool
	insecure            bool
	digestOnly, tagOnly bool
	credentials         func(context.Context) (Credentials, error)
}

// ErrBlocked says that registries.conf blocks a registry.
var ErrBlocked = errors.New("blocked by registries.conf")

// servers are the mirrors and then the registry of host/path.
func (c *Config) servers(host, path string) ([]server, error) {
	conf, err := c.load()
	if err != nil {
		return nil, err
	}
	name := host + "/" + path
	r, found := conf.find(name)
	if r.Blocked {
		return nil, fmt.Errorf("%s: %w", name, ErrBlocked)
	}
	var list []server
	for _, m := range r.Mirror {
		s := c.server(rewrite(name, r.Prefix, m.Location), m.Insecure)
		s.mirror = true
		s.digestOnly = r.MirrorByDigestOnly || m.PullFromMirror == "digest-only"
		s.tagOnly = m.PullFromMirror == "tag-only"
		list = append(list, s)
	}
	if found && r.Location != "" {
		name = rewrite(name, r.Prefix, r.Location)
	}
	return append(list, c.server(name, r.Insecure)), nil
}

// rewrite puts location in the place of prefix. A wildcard prefix has none.
func rewrite(name, prefix, location string) string {
	if strings.HasPrefix(prefix, "*.") {
		return name
	}
	return location + strings.TrimPrefix(name, prefix)
}

func (c *Config) server(name string, insecure bool) server {
	host, path, _ := strings.Cut(name, "/")
	s := server{host: host, path: path, insecure: insecure || c.Insecure || isLoopback(host)}
	if c.Credentials != nil {
		s.credentials = func(ctx context.Context) (Credentials, error) { return c.Credentials(ctx, host, path) }
	}
	if host == "docker.io" {
		s.host = "registry-1.docker.io"
	}
	return s
}

// Expand returns what a name without a host may mean, in the order to try:
// its alias, else itself in each unqualified-search registry. Without either it
// returns nothing.
func (c *Config) Expand(short string) ([]string, error) {
	conf, err := c.load()
	if err != nil {
		return nil, err
	}
	if full := conf.Aliases[short]; full != "" {
		return []string{full}, nil
	}
	var names []string
	for _, host := range conf.Unqualified {
		if host == "docker.io" && !strings.Contains(short, "/") {
			names = append(names, host+"/library/"+short)
			continue
		}
		names = append(names, host+"/"+short)
	}
	return names, nil
}

// tls returns how a server's certificate is checked and which one it is shown.
func (c *Config) tls(s server) (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: s.insecure && !c.hasCA(s.host)}
	for _, dir := range c.CertDirs {
		if err := addCerts(t, filepath.Join(dir, s.host)); err != nil {
			return nil, err
		}
	}
	return t, addCerts(t, c.FlatCertDir)
}

// hasCA reports whether a CA was installed for host: then it is checked even
// on loopback, where other certificates are not.
func (c *Config) hasCA(host string) bool {
	has := func(dir string) bool {
		m, _ := filepath.Glob(filepath.Join(dir, "*.crt"))
		return len(m) > 0
	}
	return !c.Insecure && (c.FlatCertDir != "" && has(c.FlatCertDir) ||
		slices.ContainsFunc(c.CertDirs, func(dir string) bool { return has(filepath.Join(dir, host)) }))
}

func addCerts(t *tls.Config, dir string) error {
	if dir == "" {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil // no certificates of its own
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch filepath.Ext(path) {
		case ".crt":
			if err := addCA(t, path); err != nil {
				return err
			}
		case ".cert":
			key := strings.TrimSuffix(path, ".cert") + ".key"
			pair, err := tls.LoadX509KeyPair(path, key)
			if err != nil {
				return fmt.Errorf("client certificate %s: %w", path, err)
			}
			t.Certificates = append(t.Certificates, pair)
		}
	}
	return nil
}

func addCA(t *tls.Config, path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if t.RootCAs == nil {
		if t.RootCAs, err = x509.SystemCertPool(); err != nil {
			t.RootCAs = x509.NewCertPool()
		}
	}
	if !t.RootCAs.AppendCertsFromPEM(data) {
		return fmt.Errorf("%s: no certificate in PEM form", path)
	}
	return nil
}

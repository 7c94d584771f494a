package image

import (
	"context"
	"errors"
	"net/http"
	"os"
	"strings"

	"github.com/kist-containers/kist/image/registry"
	"github.com/kist-containers/kist/internal/ui"
)

// RegistryFlags are podman's flags on how a registry is reached, shared by the
// commands that reach one.
type RegistryFlags struct {
	Authfile  string `help:"File with credentials, instead of docker's and containers' own." placeholder:"FILE"`
	CertDir   string `help:"Directory with *.crt, *.cert and *.key for the registry." placeholder:"DIR"`
	Creds     string `help:"Credentials: USER[:PASSWORD]." placeholder:"USER:PASSWORD"`
	TLSVerify bool   `name:"tls-verify" default:"true" negatable:"" help:"Require HTTPS with a valid certificate."`
}

// Config returns what the flags and the machine's files say.
func (f *RegistryFlags) Config() *registry.Config {
	c := registry.Default(home(), os.Getenv)
	c.Insecure = !f.TLSVerify
	if f.CertDir != "" {
		c.FlatCertDir = f.CertDir
	}
	c.Credentials = f.keychain().Lookup
	if user, password, _ := strings.Cut(f.Creds, ":"); user != "" {
		c.Credentials = func(context.Context, string, string) (registry.Credentials, error) {
			return registry.Credentials{Username: user, Password: password}, nil
		}
	}
	return c
}

func (f *RegistryFlags) keychain() *registry.Keychain {
	return registry.DefaultKeychain(f.Authfile, home(), os.Getenv)
}

func home() string {
	h, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return h
}

// defaultConfig is how registries are reached without any flag.
func defaultConfig() *registry.Config {
	f := RegistryFlags{TLSVerify: true}
	return f.Config()
}

// loginHint tells who was refused for want of credentials what to do.
func loginHint(err error) error {
	var refused *registry.Error
	if !errors.As(err, &refused) || refused.Status != http.StatusUnauthorized {
		return err
	}
	if refused.Host == "registry-1.docker.io" {
		return ui.Hint(err, "kist login")
	}
	return ui.Hint(err, "kist login %s", refused.Host)
}

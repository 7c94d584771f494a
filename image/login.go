package image

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"golang.org/x/term"

	"github.com/kist-containers/kist/image/registry"
	"github.com/kist-containers/kist/internal/ui"
)

// LoginCmd is `kist login`.
type LoginCmd struct {
	Authfile       string `xor:"authfile" help:"File to keep the credentials in." placeholder:"FILE"`
	CompatAuthFile string `xor:"authfile" help:"Same as --authfile: what kist writes is docker's format." placeholder:"FILE"`
	CertDir        string `help:"Directory with *.crt, *.cert and *.key for the registry." placeholder:"DIR"`
	GetLogin       bool   `help:"Print the user that is logged in."`
	Password       string `short:"p" help:"Password; better typed, or given by --password-stdin." placeholder:"PASSWORD"`
	PasswordStdin  bool   `help:"Read the password from standard input."`
	TLSVerify      bool   `name:"tls-verify" default:"true" negatable:"" help:"Require HTTPS with a valid certificate."`
	Username       string `short:"u" help:"User." placeholder:"USER"`
	Verbose        bool   `short:"v" help:"Say where the credentials are kept."`
	Server         string `arg:"" optional:"" help:"Registry; docker.io without it."`
}

// Validate refuses two passwords.
func (c *LoginCmd) Validate() error {
	if c.Password != "" && c.PasswordStdin {
		return errors.New("--password and --password-stdin exclude each other")
	}
	if c.PasswordStdin && c.Username == "" {
		return errors.New("--password-stdin needs --username")
	}
	return nil
}

// Run checks the credentials with the registry and keeps them.
func (c *LoginCmd) Run(ctx context.Context, out *ui.Output) error {
	host, err := serverHost(c.Server)
	if err != nil {
		return err
	}
	flags := RegistryFlags{Authfile: cmp.Or(c.Authfile, c.CompatAuthFile), CertDir: c.CertDir, TLSVerify: c.TLSVerify}
	keys := flags.keychain()
	old, err := keys.Lookup(ctx, host, "")
	if err != nil {
		return fmt.Errorf("login %s: %w", host, err)
	}
	if c.GetLogin {
		if old.Username == "" {
			return fmt.Errorf("login %s: not logged in", host)
		}
		out.Print(old.Username)
		return nil
	}
	a, err := c.ask(out, old)
	if err != nil {
		return fmt.Errorf("login %s: %w", host, err)
	}
	cfg := flags.Config()
	cfg.Credentials = func(context.Context, string, string) (registry.Credentials, error) { return a, nil }
	if err := registry.Ping(ctx, cfg, host); err != nil {
		return fmt.Errorf("login: %w", err)
	}
	where, err := keys.Store(host, a)
	if err != nil {
		return fmt.Errorf("login %s: keep the credentials: %w", host, err)
	}
	if !strings.HasPrefix(where, "docker-credential-") {
		out.Warn("the password is kept unencrypted in %s; a credential helper would keep it safer", where)
	}
	out.Print("Login Succeeded")
	return nil
}

// ask completes the credentials from the terminal.
func (c *LoginCmd) ask(out *ui.Output, old registry.Credentials) (registry.Credentials, error) {
	a := registry.Credentials{Username: c.Username, Password: c.Password}
	in := bufio.NewReader(out.In)
	if c.PasswordStdin {
		data, err := io.ReadAll(io.LimitReader(in, 64<<10))
		a.Password = strings.TrimRight(string(data), "\r\n")
		return a, err
	}
	if (a.Username == "" || a.Password == "") && !ui.IsTerminal(out.In) {
		return a, ui.Hint(errors.New("no terminal to ask for user and password"), "kist login -u USER --password-stdin")
	}
	if a.Username == "" {
		fmt.Fprintf(out.Err, "Username (%s): ", ui.Escape(old.Username))
		line, err := in.ReadString('\n')
		if err != nil {
			return a, err
		}
		if a.Username = strings.TrimSpace(line); a.Username == "" {
			a.Username = old.Username
		}
	}
	if a.Password == "" {
		fmt.Fprint(out.Err, "Password: ")
		secret, err := term.ReadPassword(int(out.In.Fd()))
		fmt.Fprintln(out.Err)
		if err != nil {
			return a, err
		}
		a.Password = string(secret)
	}
	return a, nil
}

// serverHost reads a registry as people type it, also with https:// before it.
func serverHost(s string) (string, error) {
	if u, err := url.Parse(s); err == nil && (u.Scheme == "https" || u.Scheme == "http") {
		s = u.Host
	}
	s, _, _ = strings.Cut(s, "/")
	switch s {
	case "", "index.docker.io", "registry-1.docker.io":
		return DefaultHost, nil
	}
	if !validHost(s) {
		return "", fmt.Errorf("registry %.300q: not a host name", s)
	}
	return s, nil
}

// LogoutCmd is `kist logout`.
type LogoutCmd struct {
	All            bool   `short:"a" help:"From all registries."`
	Authfile       string `xor:"authfile" help:"File with the credentials." placeholder:"FILE"`
	CompatAuthFile string `xor:"authfile" help:"Same as --authfile." placeholder:"FILE"`
	Server         string `arg:"" optional:"" help:"Registry; docker.io without it."`
}

// Run forgets the credentials.
func (c *LogoutCmd) Run(out *ui.Output) error {
	flags := RegistryFlags{Authfile: cmp.Or(c.Authfile, c.CompatAuthFile)}
	keys := flags.keychain()
	host, err := serverHost(c.Server)
	if err != nil {
		return err
	}
	hosts := []string{host}
	if c.All {
		if hosts, err = keys.Hosts(); err != nil {
			return err
		}
	}
	for _, h := range hosts {
		found, err := keys.Erase(h)
		switch {
		case err != nil:
			return fmt.Errorf("logout %s: %w", h, err)
		case !found:
			out.Printf("Not logged in to %s\n", ui.Escape(h))
		default:
			out.Printf("Removing login credentials for %s\n", ui.Escape(h))
		}
	}
	return nil
}

package network

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kist-containers/kist/network/nameserver"
)

// writeFiles writes hosts, hostname and resolv.conf of a sandbox. They are
// shown to the container, which may change them for itself.
func (m *Manager) writeFiles(cfg SandboxConfig, s *Sandbox) error {
	hosts, err := hostsFile(cfg, s)
	if err != nil {
		return err
	}
	files := map[string]string{"hosts": hosts}
	if cfg.Hostname != "" {
		files["hostname"] = cfg.Hostname + "\n"
	}
	if files["resolv.conf"], err = resolvFile(cfg, s); err != nil {
		return err
	}
	for name, text := range files {
		path := filepath.Join(cfg.Dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
		// WriteFile's mode is cut by the umask; any user of the container reads it.
		if err := os.Chmod(path, 0o644); err != nil {
			return err
		}
	}
	return nil
}

const localHosts = `127.0.0.1	localhost
::1	localhost ip6-localhost ip6-loopback
fe00::	ip6-localnet
ff00::	ip6-mcastprefix
ff02::1	ip6-allnodes
ff02::2	ip6-allrouters
`

func hostsFile(cfg SandboxConfig, s *Sandbox) (string, error) {
	text := localHosts
	if cfg.Mode == "host" {
		if data, err := os.ReadFile("/etc/hosts"); err == nil {
			text = string(data)
		}
	}
	gateway := ""
	if e := s.gate(); e != nil {
		gateway = cmp.Or(e.Gateway, e.Gateway6)
	}
	for _, h := range cfg.ExtraHosts {
		line, err := extraHost(h, gateway)
		if err != nil {
			return "", err
		}
		text += line
	}
	return text + s.ownHosts(cfg.resolver().names()), nil
}

// names are the container's own as /etc/hosts has them.
func (r *Resolver) names() string {
	return strings.TrimSpace(r.FullName + " " + r.Hostname)
}

// ownHosts are the lines of the sandbox's own addresses.
func (s *Sandbox) ownHosts(names string) (text string) {
	for _, e := range s.Endpoints {
		for _, address := range []string{e.Address, e.Address6} {
			if ip, _, ok := strings.Cut(address, "/"); ok && names != "" {
				text += ip + "\t" + names + "\n"
			}
		}
	}
	return text
}

// tellContainer brings hosts and resolv.conf up to date after the endpoints changed,
// in place because the container has them mounted. What it wrote itself stays.
func (s *Sandbox) tellContainer() error {
	if s.Dir == "" {
		return nil // of before an update of kist
	}
	return errors.Join(s.renewHosts(), s.renewResolver())
}

func (s *Sandbox) renewHosts() error {
	file := filepath.Join(s.Dir, "hosts")
	data, err := os.ReadFile(file)
	if err != nil || s.Resolver == nil {
		return err
	}
	names, text := s.Resolver.names(), ""
	for line := range strings.Lines(string(data)) {
		if names == "" || !strings.HasSuffix(strings.TrimSuffix(line, "\n"), "\t"+names) {
			text += line
		}
	}
	return os.WriteFile(file, []byte(text+s.ownHosts(names)), 0o644)
}

// renewResolver leads the container to the name server that it has now.
func (s *Sandbox) renewResolver() error {
	file := filepath.Join(s.Dir, "resolv.conf")
	r, err := readResolver(file)
	if err != nil || !s.named() || slices.Contains(r.servers, nameserver.Address) {
		return err
	}
	r.ask()
	return os.WriteFile(file, []byte(r.text()), 0o644)
}

// ask makes the sandbox's name server the only one.
func (r *resolver) ask() {
	r.servers = []string{nameserver.Address}
	if !slices.ContainsFunc(r.options, func(o string) bool { return strings.HasPrefix(o, "ndots:") }) {
		r.options = append(r.options, "ndots:0")
	}
}

// extraHost reads --add-host: NAME:IP or NAME=IP, the IP perhaps host-gateway.
func extraHost(h, gateway string) (string, error) {
	name, ip, ok := strings.Cut(h, "=")
	if !ok {
		name, ip, ok = strings.Cut(h, ":")
	}
	ip = strings.Trim(ip, "[]")
	if ip == "host-gateway" {
		if gateway == "" {
			return "", fmt.Errorf("--add-host %s: this network has no gateway of the host", h)
		}
		ip = gateway
	}
	if _, err := netip.ParseAddr(ip); err != nil || !ok || name == "" || strings.ContainsAny(name, " \t\n") {
		return "", fmt.Errorf("--add-host %s: want NAME:IP", h)
	}
	return ip + "\t" + name + "\n", nil
}

// stubResolver is the file with the real servers where systemd-resolved puts
// itself between.
const stubResolver = "/run/systemd/resolve/resolv.conf"

// resolver is a resolv.conf; see resolv.conf(5).
type resolver struct{ servers, search, options []string }

func readResolver(path string) (r resolver, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return r, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		w := strings.Fields(lines.Text())
		if len(w) < 2 {
			continue
		}
		switch w[0] {
		case "nameserver":
			r.servers = append(r.servers, w[1])
		case "search", "domain":
			r.search = w[1:]
		case "options":
			r.options = append(r.options, w[1:]...)
		}
	}
	return r, nil
}

func resolvFile(cfg SandboxConfig, s *Sandbox) (string, error) {
	r, err := readResolver("/etc/resolv.conf")
	if err != nil {
		return "", err
	}
	if len(r.servers) == 1 && r.servers[0] == "127.0.0.53" {
		if real, err := readResolver(stubResolver); err == nil && len(real.servers) > 0 {
			r = real
		}
	}
	if len(s.Endpoints) > 0 && !s.named() {
		r.reachable(slices.ContainsFunc(s.Endpoints, func(e Endpoint) bool { return e.Address6 != "" }))
	}
	for _, x := range []struct {
		given []string
		dst   *[]string
	}{{cfg.DNS, &r.servers}, {cfg.DNSSearch, &r.search}, {cfg.DNSOptions, &r.options}} {
		if len(x.given) > 0 {
			*x.dst = x.given
		}
	}
	if s.named() {
		// The name server asks those of --dns.
		r.ask()
	}
	for _, server := range cfg.DNS {
		if _, err := netip.ParseAddr(server); err != nil {
			return "", fmt.Errorf("--dns %s: not an IP address", server)
		}
	}
	return r.text(), nil
}

// reachable keeps the servers that a container can reach: not those on the
// host's loopback, nor IPv6 ones on a network that has none.
func (r *resolver) reachable(v6 bool) {
	var kept []string
	for _, s := range r.servers {
		if a, err := netip.ParseAddr(s); err == nil && (a.Is4() || v6) && !a.IsLoopback() {
			kept = append(kept, s)
		}
	}
	if len(kept) == 0 {
		kept = []string{"8.8.8.8", "8.8.4.4"} // docker's last resort
	}
	r.servers = kept
}

func (r resolver) text() string {
	var b strings.Builder
	for _, s := range r.servers {
		b.WriteString("nameserver " + s + "\n")
	}
	if len(r.search) > 0 && !(len(r.search) == 1 && r.search[0] == ".") {
		b.WriteString("search " + strings.Join(r.search, " ") + "\n")
	}
	if len(r.options) > 0 {
		b.WriteString("options " + strings.Join(r.options, " ") + "\n")
	}
	return b.String()
}

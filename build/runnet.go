package build

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// A Network is what a RUN step gets to talk through.
type Network struct {
	// Namespace is the path of a network namespace.
	Namespace string
	// Resolv is the content of /etc/resolv.conf, nil for the host's.
	Resolv []byte
	// Close gives the network back.
	Close func() error
}

// connect gives the container its network and the files that go with it.
func (c *runContainer) connect(ctx context.Context) error {
	resolv, err := os.ReadFile("/etc/resolv.conf")
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	ns := specs.LinuxNamespace{Type: specs.NetworkNamespace}
	switch {
	case c.s.network == "host":
		ns.Type = ""
	case c.s.network == "none" || c.job.b.o.Network == nil:
		resolv = nil
	default:
		n, err := c.job.network(ctx)
		if err != nil {
			return fmt.Errorf("network: %w", err)
		}
		c.undone = append(c.undone, func() error { c.job.giveBack(n); return nil })
		ns.Path = n.Namespace
		if n.Resolv != nil {
			resolv = n.Resolv
		}
	}
	if ns.Type != "" {
		c.spec.Linux.Namespaces = append(c.spec.Linux.Namespaces, ns)
	}
	hosts, err := c.hosts()
	if err != nil {
		return err
	}
	files := map[string]string{"hosts": hosts, "hostname": c.spec.Hostname + "\n", "resolv.conf": string(resolv)}
	for _, name := range sortedKeys(files) {
		p := filepath.Join(c.w.dir, "etc", name)
		if err := writePublic(p, []byte(files[name])); err != nil {
			return err
		}
		c.spec.Mounts = append(c.spec.Mounts, specs.Mount{Destination: "/etc/" + name, Type: "bind", Source: p, Options: []string{"bind", "rprivate", "nosuid", "nodev", "noexec"}})
	}
	return nil
}

// writePublic writes a file that every user of a container may read.
func writePublic(path string, data []byte) error {
	if err := os.WriteFile(path, data, 0o644); err != nil {
		return err
	}
	return os.Chmod(path, 0o644)
}

// hosts is /etc/hosts with the names of --add-host.
func (c *runContainer) hosts() (string, error) {
	var b strings.Builder
	b.WriteString("127.0.0.1\tlocalhost " + c.spec.Hostname + "\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	for _, h := range c.job.req.Hosts {
		name, addr, err := parseHost(h)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "%s\t%s\n", addr, name)
	}
	return b.String(), nil
}

// parseHost reads NAME:IP or NAME=IP.
func parseHost(s string) (name string, addr netip.Addr, err error) {
	i := strings.IndexAny(s, "=:")
	if i <= 0 {
		return "", addr, fmt.Errorf("--add-host %s: want NAME:IP or NAME=IP", s)
	}
	name = s[:i]
	if strings.ContainsAny(name, " \t\n#") {
		return "", addr, fmt.Errorf("--add-host %s: not a host name", s)
	}
	addr, err = netip.ParseAddr(strings.Trim(s[i+1:], "[]"))
	if err != nil {
		return "", addr, fmt.Errorf("--add-host %s: %q is not an address", s, s[i+1:])
	}
	return name, addr, nil
}

// network takes a network that an earlier step of this build gave back, or
// makes one. The processes of that step are gone with their pid namespace.
func (j *job) network(ctx context.Context) (*Network, error) {
	j.mu.Lock()
	if n := len(j.networks); n > 0 {
		net := j.networks[n-1]
		j.networks = j.networks[:n-1]
		j.mu.Unlock()
		return net, nil
	}
	j.mu.Unlock()
	return j.b.o.Network(ctx)
}

func (j *job) giveBack(n *Network) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.networks = append(j.networks, n)
}

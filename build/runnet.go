package build

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/kist-containers/kist/network"
)

// A stepNetwork is a network namespace that RUN steps use one after the other.
type stepNetwork struct {
	j      *job
	id     string
	ns     string
	resolv []byte
	// gateway is the host's address there.
	gateway string
}

// netPrefix begins the names of files that say which sandboxes a build made.
const netPrefix = "net-"

// connect gives the container its network and the files that go with it.
func (c *runContainer) connect(ctx context.Context) error {
	resolv, err := os.ReadFile("/etc/resolv.conf")
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	ns := specs.LinuxNamespace{Type: specs.NetworkNamespace}
	gateway := ""
	switch {
	case c.s.network == "host":
		ns.Type = ""
		gateway = "127.0.0.1"
	case c.s.network == "none" || c.job.b.o.Networks == nil:
		resolv = nil
	default:
		n, err := c.job.connection(ctx)
		if err != nil {
			return fmt.Errorf("network: %w", err)
		}
		c.undone = append(c.undone, func() error { c.job.giveBack(n); return nil })
		ns.Path, gateway = n.ns, n.gateway
		if n.resolv != nil {
			resolv = n.resolv
		}
	}
	if ns.Type != "" {
		c.spec.Linux.Namespaces = append(c.spec.Linux.Namespaces, ns)
	}
	hosts, err := c.hosts(gateway)
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
func (c *runContainer) hosts(gateway string) (string, error) {
	var b strings.Builder
	b.WriteString("127.0.0.1\tlocalhost " + c.spec.Hostname + "\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	for _, h := range c.job.req.Hosts {
		name, addr, err := parseHost(h)
		if err != nil {
			return "", err
		}
		if addr == hostGateway {
			if addr = gateway; addr == "" {
				continue // a step without a network has no way to the host
			}
		}
		fmt.Fprintf(&b, "%s\t%s\n", addr, name)
	}
	return b.String(), nil
}

// hostGateway stands for the host's address in the step's network.
const hostGateway = "host-gateway"

// parseHost reads NAME:IP or NAME=IP.
func parseHost(s string) (name, addr string, err error) {
	i := strings.IndexAny(s, "=:")
	if i <= 0 {
		return "", addr, fmt.Errorf("--add-host %s: want NAME:IP or NAME=IP", s)
	}
	name = s[:i]
	if strings.ContainsAny(name, " \t\n#") {
		return "", addr, fmt.Errorf("--add-host %s: not a host name", s)
	}
	if s[i+1:] == hostGateway {
		return name, hostGateway, nil
	}
	ip, err := netip.ParseAddr(strings.Trim(s[i+1:], "[]"))
	if err != nil {
		return "", addr, fmt.Errorf("--add-host %s: %q is not an address", s, s[i+1:])
	}
	return name, ip.String(), nil
}

// defaultNetwork is the network of steps that name none. A user who is not root
// has no bridge to offer, so such steps share the host's network, as in rootless
// BuildKit, which says so too.
func (j *job) defaultNetwork() string {
	mode := cmpOr(j.req.Network, "default")
	if mode != "default" || !j.b.o.Rootless {
		return mode
	}
	j.warnShared.Do(func() {
		j.show.warn("RUN steps share this host's network, because there is no other without root; --network none keeps them off it")
	})
	return "host"
}

// connection takes a network that an earlier step of this build gave back, or
// makes one. The processes of that step are gone with their pid namespace.
func (j *job) connection(ctx context.Context) (*stepNetwork, error) {
	j.mu.Lock()
	if n := len(j.networks); n > 0 {
		net := j.networks[n-1]
		j.networks = j.networks[:n-1]
		j.mu.Unlock()
		return net, nil
	}
	j.mu.Unlock()
	n := &stepNetwork{j: j, id: digestOf(j.runDir, rand.Text())}
	// Recorded before it is made, so that the next build can undo what a killed
	// one left.
	if err := os.Mkdir(n.dir(), 0o700); err != nil {
		return nil, err
	}
	sandbox, err := j.b.o.Networks.Setup(ctx, network.SandboxConfig{ID: n.id, Name: "build-" + n.id[:12], Mode: "bridge", Dir: n.dir()})
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(n.dir()))
	}
	n.ns = sandbox.Key
	if len(sandbox.Endpoints) > 0 {
		n.gateway = sandbox.Endpoints[0].Gateway
	}
	n.resolv, err = os.ReadFile(filepath.Join(n.dir(), "resolv.conf"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, errors.Join(err, n.close(ctx))
	}
	return n, nil
}

func (n *stepNetwork) dir() string { return filepath.Join(n.j.runDir, netPrefix+n.id) }

func (n *stepNetwork) close(ctx context.Context) error {
	return errors.Join(n.j.b.o.Networks.Teardown(ctx, n.id), os.RemoveAll(n.dir()))
}

func (j *job) giveBack(n *stepNetwork) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.networks = append(j.networks, n)
}

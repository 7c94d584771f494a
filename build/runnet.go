package build

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/kist-containers/kist/internal/sys"
	"github.com/kist-containers/kist/network"
)

// A stepNetwork is a network namespace that RUN steps use one after the other:
// making one while the kernel takes another down costs 20 ms.
type stepNetwork struct {
	// mode is none or default.
	mode   string
	ns     string
	resolv []byte
	// gateway is the host's address there.
	gateway string
	close   func(ctx context.Context) error
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
	if c.s.network == "host" {
		ns.Type = ""
		gateway = "127.0.0.1"
	} else {
		n, err := c.job.connection(ctx, c.s.network)
		if err != nil {
			return fmt.Errorf("network: %w", err)
		}
		c.undone = append(c.undone, func() error { c.job.giveBack(n); return nil })
		ns.Path, gateway = n.ns, n.gateway
		if n.mode == "none" || n.resolv != nil {
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
	files := map[string]string{"hosts": hosts, "hostname": cmpOr(c.spec.Hostname, hostname()) + "\n", "resolv.conf": c.job.req.resolv(string(resolv))}
	if c.job.req.NoHosts {
		delete(files, "hosts")
	}
	if c.job.req.NoHostname {
		delete(files, "hostname")
	}
	for _, name := range sortedKeys(files) {
		p := filepath.Join(c.w.dir, "etc", name)
		if err := writePublic(p, []byte(files[name])); err != nil {
			return err
		}
		c.spec.Mounts = append(c.spec.Mounts, specs.Mount{Destination: "/etc/" + name, Type: "bind", Source: p, Options: []string{"bind", "rprivate", "nosuid", "nodev", "noexec"}})
	}
	return nil
}

// hostname is the host's own, which a step has that shares its UTS namespace.
func hostname() string {
	name, _ := os.Hostname()
	return name
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
	b.WriteString("127.0.0.1\tlocalhost " + cmpOr(c.spec.Hostname, hostname()) + "\n::1\tlocalhost ip6-localhost ip6-loopback\n")
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
func (j *job) connection(ctx context.Context, mode string) (*stepNetwork, error) {
	if j.b.o.Networks == nil {
		mode = "none"
	}
	j.mu.Lock()
	for i, n := range slices.Backward(j.networks) {
		if n.mode == mode {
			j.networks = slices.Delete(j.networks, i, i+1)
			j.mu.Unlock()
			return n, nil
		}
	}
	j.mu.Unlock()
	if mode == "none" {
		return isolated()
	}
	return j.bridged(ctx)
}

// isolated is a network without a way out.
func isolated() (*stepNetwork, error) {
	f, err := sys.NewNetwork()
	if err != nil {
		return nil, err
	}
	return &stepNetwork{
		mode: "none", ns: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd()),
		close: func(context.Context) error { return f.Close() },
	}, nil
}

// bridged is a network on the default bridge.
func (j *job) bridged(ctx context.Context) (*stepNetwork, error) {
	id := digestOf(j.runDir, rand.Text())
	dir := filepath.Join(j.runDir, netPrefix+id)
	// Recorded before it is made, so that the next build can undo what a killed
	// one left.
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	sandbox, err := j.b.o.Networks.Setup(ctx, network.SandboxConfig{ID: id, Name: "build-" + id[:12], Mode: "bridge", Dir: dir})
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	n := &stepNetwork{mode: "default", ns: sandbox.Key, close: func(ctx context.Context) error {
		return errors.Join(j.b.o.Networks.Teardown(ctx, id), os.RemoveAll(dir))
	}}
	if len(sandbox.Endpoints) > 0 {
		n.gateway = sandbox.Endpoints[0].Gateway
	}
	n.resolv, err = os.ReadFile(filepath.Join(dir, "resolv.conf"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, errors.Join(err, n.close(ctx))
	}
	return n, nil
}

func (j *job) giveBack(n *stepNetwork) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.networks = append(j.networks, n)
}

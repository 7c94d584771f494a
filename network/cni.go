package network

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
)

// A cni network is made by plugins of the Container Network Interface: they make an
// endpoint's link, addresses, routes and published ports, as its configuration
// tells. See github.com/containernetworking/cni/blob/main/SPEC.md.
type cniDriver struct{}

var _ driver = cniDriver{}

const (
	optConfig = "config"
	optPath   = "path"
	// pluginTime bounds one plugin; one that asks a server may wait for it.
	pluginTime = 90 * time.Second
)

func (cniDriver) check(n *Network) error {
	for key := range n.Options {
		if !slices.Contains([]string{optConfig, optPath, optPrefix}, key) {
			return fmt.Errorf("option %s: a cni network has none such", key)
		}
	}
	if n.Subnet != "" || n.Gateway != "" || n.IPRange != "" || len(n.Reserved) > 0 || n.Internal || n.IPAM != "" {
		return errors.New("a cni network has all of its configuration: --subnet, --gateway, --ip-range, --aux-address, --ipam-driver and --internal are not for it")
	}
	file, err := filepath.Abs(n.Options[optConfig])
	if err != nil || n.Options[optConfig] == "" {
		return errors.New("a cni network needs --opt config=FILE")
	}
	n.Options[optConfig] = file
	n.PluginPath = cmp.Or(n.Options[optPath], pluginPath())
	if n.CNI, err = readCNI(file, n.Name); err == nil {
		err = n.checkPlugins()
	}
	if err != nil {
		return fmt.Errorf("option %s=%s: %w", optConfig, file, err)
	}
	return nil
}

// checkPlugins asks every plugin whether it is there and knows the version.
func (n *Network) checkPlugins() error {
	list, err := libcni.NetworkConfFromBytes(n.CNI)
	if err != nil {
		return err
	}
	dirs := filepath.SplitList(n.PluginPath)
	for _, p := range list.Plugins {
		if _, err := invoke.FindInPath(p.Network.Type, dirs); err != nil {
			return fmt.Errorf("plugin %s: not in %s (say where by CNI_PATH)", p.Network.Type, n.PluginPath)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), pluginTime)
	defer cancel()
	_, err = libcni.NewCNIConfig(dirs, new(pluginExec)).ValidateNetworkList(ctx, list)
	return err
}

// pluginPath is where plugins are: the folders of CNI_PATH, or of the distributions.
// A network records it, as the monitor that says DEL has no environment.
func pluginPath() string {
	return cmp.Or(os.Getenv("CNI_PATH"), "/opt/cni/bin:/usr/lib/cni:/usr/libexec/cni")
}

// pluginExec runs plugins. The monitor has no PATH, but plugins want iptables.
type pluginExec struct{ version.PluginDecoder }

func (*pluginExec) ExecPlugin(ctx context.Context, path string, stdin []byte, env []string) ([]byte, error) {
	if os.Getenv("PATH") == "" {
		env = append(env, "PATH=/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin")
	}
	ctx, cancel := context.WithTimeout(ctx, pluginTime)
	defer cancel()
	return new(invoke.RawExec).ExecPlugin(ctx, path, stdin, env)
}

func (*pluginExec) FindInPath(plugin string, paths []string) (string, error) {
	return invoke.FindInPath(plugin, paths)
}

// ensure finds nothing to make: that is the plugins'.
func (cniDriver) ensure(_ context.Context, _ *Manager, n *Network) error {
	n.Link = "" // no bridge of kist's
	return nil
}

func (cniDriver) remove(context.Context, *Manager, *Network) error { return nil }

// join is ADD of all plugins, one after another.
func (cniDriver) join(ctx context.Context, p plug) error {
	p.e.HostLink = ""
	list, err := libcni.NetworkConfFromBytes(p.n.CNI)
	if err != nil {
		return err
	}
	if len(p.publishes()) > 0 && !capable(list, "portMappings") {
		return fmt.Errorf("network %s: -p: no plugin of its configuration publishes ports (such as portmap, with the capability portMappings)", p.n.Name)
	}
	if len(p.e.Wish.LinkLocal) > 0 {
		return fmt.Errorf("network %s: --link-local-ip: its plugins give the addresses", p.n.Name)
	}
	result, err := p.cni().AddNetworkList(ctx, list, p.runtimeConf())
	if err == nil {
		err = p.take(result)
	}
	if err == nil {
		err = inNamespace(p.ns, p.e.applySysctls)
	}
	if err != nil {
		return fmt.Errorf("network %s: %w", p.n.Name, err)
	}
	return nil
}

func capable(list *libcni.NetworkConfigList, capability string) bool {
	return slices.ContainsFunc(list.Plugins, func(c *libcni.PluginConfig) bool { return c.Network.Capabilities[capability] })
}

// cni keeps results beside the network's other files, so that DEL has them even
// after a command was killed.
func (p plug) cni() *libcni.CNIConfig {
	return libcni.NewCNIConfigWithCacheDir(filepath.SplitList(p.n.PluginPath), filepath.Join(p.m.roots.Run, "network", p.n.Name, "cni"), new(pluginExec))
}

// publishes are the ports that lead to this endpoint.
func (p plug) publishes() []PublishedPort {
	if gate := p.s.gate(); gate == nil || gate.Link != p.e.Link {
		return nil
	}
	return p.s.Ports
}

// runtimeConf is what is told to the plugins of this one endpoint.
func (p plug) runtimeConf() *libcni.RuntimeConf {
	rt := &libcni.RuntimeConf{
		ContainerID: p.s.ID, NetNS: p.s.Key, IfName: p.e.Link,
		Args: [][2]string{{"IgnoreUnknown", "1"}}, CapabilityArgs: map[string]any{},
	}
	if wishes := p.e.wished(); len(wishes) > 0 {
		rt.Args = append(rt.Args, [2]string{"IP", strings.Join(wishes, ",")})
		rt.CapabilityArgs["ips"] = wishes
	}
	if p.e.MAC != "" {
		rt.Args = append(rt.Args, [2]string{"MAC", p.e.MAC})
		rt.CapabilityArgs["mac"] = p.e.MAC
	}
	var ports []map[string]any
	for _, b := range p.publishes() {
		ports = append(ports, map[string]any{"hostPort": b.HostPort, "containerPort": b.ContainerPort, "protocol": b.Proto, "hostIP": b.HostIP})
	}
	if len(ports) > 0 {
		rt.CapabilityArgs["portMappings"] = ports
	}
	return rt
}

// del is DEL of all plugins, the last first.
func (p plug) del(ctx context.Context) error {
	list, err := libcni.NetworkConfFromBytes(p.n.CNI)
	if err != nil {
		return err
	}
	c, rt := p.cni(), p.runtimeConf()
	if _, asAdded, err := c.GetNetworkListCachedConfig(list, rt); err == nil && asAdded != nil {
		asAdded.NetNS = rt.NetNS
		rt = asAdded
	}
	err = c.DelNetworkList(ctx, list, rt)
	var said *types.Error
	if errors.As(err, &said) && said.Code == types.ErrUnknownContainer {
		return nil // the plugin has forgotten it already
	}
	if err != nil {
		return fmt.Errorf("network %s: %w", p.n.Name, err)
	}
	return nil
}

// checkCNI is CHECK of all plugins: whether what they made is still there.
func (p plug) checkCNI(ctx context.Context) error {
	list, err := libcni.NetworkConfFromBytes(p.n.CNI)
	if err != nil {
		return err
	}
	err = p.cni().CheckNetworkList(ctx, list, p.runtimeConf())
	if errors.Is(err, libcni.ErrorCheckNotSupp) {
		return nil
	}
	return err
}

package container

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/kist-containers/kist/internal/ui"
	"github.com/kist-containers/kist/network"
)

// served reports whether the monitor has to answer for the container's networks:
// it has a sandbox of its own, which may join others while it runs.
func (c *Config) served() bool {
	m := c.Network.Mode
	return m != "none" && m != "host" && !joins(m)
}

// network makes the container's sandbox and the files that tell of it.
func (e *Engine) network(ctx context.Context, m *specMaker) error {
	c := m.c
	m.files = map[string]string{}
	if other, ok := strings.CutPrefix(c.Network.Mode, "container:"); ok {
		return e.shareNetwork(m, other)
	}
	mode := c.Network.Mode
	path, joined := strings.CutPrefix(mode, "ns:")
	if joined {
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("--network ns:%s: %w", path, errors.Unwrap(err))
		}
		mode = "host" // nothing is made, and the files are those of the host
	}
	cfg := network.SandboxConfig{
		ID: c.ID, Name: c.Name, Hostname: c.Hostname, Domainname: c.Domainname, Mode: mode,
		DNS: c.Network.DNS, DNSSearch: c.Network.DNSSearch, DNSOptions: c.Network.DNSOptions,
		ExtraHosts: c.Network.ExtraHosts, Dir: e.runDir(c.ID),
	}
	cfg.Endpoints = c.wishes()
	var err error
	if cfg.Ports, err = c.ports(); err != nil {
		return err
	}
	sandbox, err := e.Networks.Setup(ctx, cfg)
	if err != nil {
		return err
	}
	if network.Predefined(c.Network.Mode) {
		e.Networks.JoinedPredefined(c.Network.Mode, c.ID)
	}
	m.netns = sandbox.Key
	if joined {
		m.netns = path
	}
	for _, name := range []string{"hosts", "hostname", "resolv.conf"} {
		file := filepath.Join(cfg.Dir, name)
		if _, err := os.Stat(file); err == nil {
			m.files["/etc/"+name] = file
		}
	}
	m.leaveAlone()
	return m.hostsBase()
}

// hostsOfImage is --hosts-file's word for the image's own file.
const hostsOfImage = "image"

// hostsBase puts the lines of --hosts-file before kist's own.
func (m *specMaker) hostsBase() error {
	var base []byte
	var err error
	switch name := m.c.Network.HostsFile; name {
	case "":
		return nil
	case hostsOfImage:
		base, err = imageFile(m.root, "/etc/hosts")
	default:
		base, err = readRegular(name)
	}
	file := m.files["/etc/hosts"]
	if err != nil || file == "" {
		return err
	}
	own, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if len(base) > 0 && !bytes.HasSuffix(base, []byte("\n")) {
		base = append(base, '\n')
	}
	return os.WriteFile(file, append(base, own...), 0o644)
}

// readRegular reads a file of the host that is to be one: not a device that never
// ends.
func readRegular(path string) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular() || info.Size() > mostPasswd:
		return nil, fmt.Errorf("%s: want a file of at most %d bytes", path, int64(mostPasswd))
	}
	return os.ReadFile(path)
}

// leaveAlone applies --no-hosts and --no-hostname.
func (m *specMaker) leaveAlone() {
	if m.c.Network.NoHosts {
		delete(m.files, "/etc/hosts")
	}
	if m.c.Network.NoHostname {
		delete(m.files, "/etc/hostname")
	}
}

// EditNetworks changes the networks that a container joins at its starts and
// returns its ID.
func (e *Engine) EditNetworks(ctx context.Context, name string, change func([]network.EndpointConfig) ([]network.EndpointConfig, error)) (string, error) {
	c, err := e.Lookup(name)
	if err != nil {
		return "", err
	}
	l, err := e.lock(ctx, c.ID)
	if err != nil {
		return "", err
	}
	defer l.Unlock()
	if c, err = e.Lookup(c.ID); err != nil {
		return "", err
	}
	if !c.served() {
		return "", fmt.Errorf("a container of --network %s joins no other network", c.Network.Mode)
	}
	list, err := change(c.wishes())
	if err != nil {
		return "", err
	}
	c.Network.Networks = nil
	for _, n := range list {
		c.Network.Networks = append(c.Network.Networks, Endpoint(n))
	}
	return c.ID, e.write(c)
}

// wishes are the networks as package network takes them.
func (c *Config) wishes() (list []network.EndpointConfig) {
	for _, n := range c.Network.Networks {
		list = append(list, network.EndpointConfig(n))
	}
	return list
}

// maxPublishAll bounds what an image can make of -P: each port takes the host time
// and rules.
const maxPublishAll = 1024

// given are the ports of -p.
func (c *Config) given() (all []network.PortBinding, err error) {
	for _, p := range c.Network.Ports {
		bindings, err := network.ParsePort(p)
		if err != nil {
			return nil, fmt.Errorf("-p %s: %w", p, err)
		}
		all = append(all, bindings...)
	}
	return all, nil
}

// ports are the published ones, those of -P with the exposed among them.
func (c *Config) ports() ([]network.PortBinding, error) {
	all, err := c.given()
	if err != nil || !c.Network.PublishAll {
		return all, err
	}
	exposed := 0
	for _, p := range c.Exposed {
		bindings, err := network.ParsePort(p)
		if err != nil {
			return nil, fmt.Errorf("exposed port %s: %w", p, err)
		}
		all = append(all, bindings...)
		if exposed += len(bindings); exposed > maxPublishAll {
			return nil, ui.Hint(fmt.Errorf("-P: more than %d ports are exposed", maxPublishAll), "publish those that you need: -p PORT")
		}
	}
	return all, nil
}

// shareNetwork joins the sandbox of another running container, whose files are
// shown too.
func (e *Engine) shareNetwork(m *specMaker, other string) error {
	o, err := e.Lookup(other)
	if err != nil {
		return fmt.Errorf("--network container:%s: %w", other, err)
	}
	st := e.Status(o.ID)
	if !st.Live() {
		return fmt.Errorf("--network container:%s: %w", other, ErrNotRunning)
	}
	m.netns = fmt.Sprintf("/proc/%d/ns/net", st.Pid)
	m.c.Hostname = o.Hostname
	for _, name := range []string{"hosts", "hostname", "resolv.conf"} {
		file := filepath.Join(e.runDir(o.ID), name)
		if _, err := os.Stat(file); err == nil {
			m.files["/etc/"+name] = file
		}
	}
	m.leaveAlone()
	return nil
}

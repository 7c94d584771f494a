package container

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/kist-containers/kist/internal/ui"
)

// mode is one namespace flag as it was given.
type mode struct {
	flag  string
	value *string
	// words are the modes other than container:NAME and ns:PATH.
	words []string
}

func (n *Namespaces) modes() []mode {
	return []mode{
		{"--ipc", &n.IPC, []string{"", "private", "host", "none", "shareable"}},
		{"--pid", &n.PID, []string{"", "private", "host"}},
		{"--uts", &n.UTS, []string{"", "private", "host"}},
		{"--cgroupns", &n.Cgroup, []string{"", "private", "host"}},
	}
}

// check refuses modes that do not exist.
func (n *Namespaces) check() error {
	for _, m := range n.modes() {
		if !slices.Contains(m.words, *m.value) && !joins(*m.value) {
			words := strings.Join(m.words[1:], ", ")
			return fmt.Errorf("%s %s: no such mode (there are %s, container:NAME, ns:PATH)", m.flag, *m.value, words)
		}
	}
	return n.checkUser()
}

func joins(mode string) bool {
	kind, of, ok := strings.Cut(mode, ":")
	return ok && of != "" && (kind == "container" || kind == "ns")
}

func (n *Namespaces) checkUser() error {
	word, rest, _ := strings.Cut(n.User, ":")
	switch {
	case len(n.UIDs)+len(n.GIDs) > 0 && n.User != "":
		return fmt.Errorf("--userns %s and --uidmap or --gidmap contradict each other", n.User)
	case n.User == "", n.User == "host", n.User == "nomap", word == "auto", word == "keep-id", joins(n.User):
		return nil
	case strings.Trim(word, "0123456789") == "" && rest != "":
		_, err := parseIDMap(n.User)
		if err != nil {
			return fmt.Errorf("--userns %w", err)
		}
		return nil
	}
	return fmt.Errorf("--userns %s: want host, auto, keep-id, nomap, container:NAME, ns:PATH or CONTAINER:HOST:SIZE", n.User)
}

// settleSpaces replaces names of other containers by their IDs, which a rename
// does not change, and refuses what those do not share.
func (e *Engine) settleSpaces(c *Config) error {
	for _, m := range append(c.Spaces.modes(), mode{flag: "--userns", value: &c.Spaces.User}) {
		name, ok := strings.CutPrefix(*m.value, "container:")
		if !ok {
			continue
		}
		o, err := e.Lookup(name)
		if err != nil {
			return fmt.Errorf("%s %s: %w", m.flag, *m.value, err)
		}
		if m.flag == "--ipc" && o.Spaces.IPC != "shareable" && o.Spaces.IPC != "host" {
			return ui.Hint(fmt.Errorf("--ipc %s: its IPC namespace is private", *m.value), "kist run --ipc shareable --name %s …", o.Name)
		}
		*m.value = "container:" + o.ID
	}
	return nil
}

// namespaces follow docker's modes.
func (m *specMaker) namespaces(s *specs.Spec) error {
	c := m.c
	add := func(kind specs.LinuxNamespaceType, path string) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: kind, Path: path})
	}
	add(specs.MountNamespace, "")
	if c.Network.Mode != "host" {
		add(specs.NetworkNamespace, m.netns)
	}
	uts, cgroup := c.Spaces.UTS, c.Spaces.Cgroup
	if uts == "" && c.Network.Mode == "host" {
		uts = "host"
	}
	if cgroup == "" && !m.privateCgroups() {
		cgroup = "host"
	}
	for _, x := range []struct {
		mode, flag string
		kind       specs.LinuxNamespaceType
		file       string
	}{
		{c.Spaces.IPC, "ipc", specs.IPCNamespace, "ipc"}, {c.Spaces.PID, "pid", specs.PIDNamespace, "pid"},
		{uts, "uts", specs.UTSNamespace, "uts"}, {cgroup, "cgroupns", specs.CgroupNamespace, "cgroup"},
	} {
		path, private, err := m.space(x.mode, x.flag, x.file)
		if err != nil {
			return err
		}
		if private || path != "" {
			add(x.kind, path)
		}
		if private && x.kind == specs.UTSNamespace {
			s.Hostname, s.Domainname = c.Hostname, c.Domainname
		}
	}
	return m.userNamespace(s)
}

// privateCgroups: docker's default is host on v1 and private on v2. The private
// one hides the host's paths on both, so it is kist's unless the container is
// privileged.
func (m *specMaker) privateCgroups() bool {
	return !m.c.Security.Privileged
}

// space resolves a mode to a path to join: container:ID, or ns:PATH.
func (m *specMaker) space(mode, flag, file string) (path string, private bool, err error) {
	if path, ok := strings.CutPrefix(mode, "ns:"); ok {
		if _, err := os.Stat(path); err != nil {
			return "", false, fmt.Errorf("--%s %s: %w", flag, mode, errors.Unwrap(err))
		}
		return path, false, nil
	}
	other, joined := strings.CutPrefix(mode, "container:")
	if !joined {
		return "", mode != "host", nil
	}
	c, err := m.e.Lookup(other)
	if err != nil {
		return "", false, fmt.Errorf("--%s %s: %w", flag, mode, err)
	}
	st := m.e.Status(c.ID)
	if !st.Live() {
		return "", false, fmt.Errorf("--%s container:%s: %w", flag, c.Name, ErrNotRunning)
	}
	return fmt.Sprintf("/proc/%d/ns/%s", st.Pid, file), false, nil
}

package container

import (
	"fmt"
	"slices"
	"strings"

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

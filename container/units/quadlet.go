package units

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A kind is one of the kinds of quadlet files.
type kind struct {
	ext, section string
	// suffix is what the service's name has more than the file's.
	suffix string
	rules  []rule
	// byHand are keys that convert reads itself.
	byHand []string
	// refused maps keys to the reason why there is nothing to make of them.
	refused map[string]string
	convert func(*maker) error
}

// A rule turns a key into a flag.
type rule struct {
	key, flag string
	how       shape
}

// A shape is how a key's values become a flag's.
type shape int

const (
	one     shape = iota // the last value
	each                 // a flag for each value
	words                // a flag for each word of each value
	boolean              // --flag or --flag=false
	given                // --flag where it is yes
)

// common are keys of every kind.
var common = [...]string{"ServiceName", "GlobalArgs", "PodmanArgs", "KistArgs"}

func kinds() []*kind {
	return []*kind{imageKind(), volumeKind(), networkKind(), buildKind(), containerKind()}
}

// noKind says why a kind of podman's is none of kist's.
var noKind = map[string]string{
	".pod":      "kist has no pods; containers can share the network of one: Network=NAME.container",
	".kube":     "kist does not play Kubernetes' YAML; write a .container for each of its containers",
	".artifact": "kist has no artifacts of its own; an .image holds files too",
}

// A unit is a quadlet file on its way to a service.
type unit struct {
	*File
	name    string // web.container
	kind    *kind
	service string // of the service, without .service
	// resource is the name of what the service makes, "" where only systemd knows.
	resource string
}

func newUnit(f *File) (*unit, error) {
	u := &unit{File: f, name: filepath.Base(f.Path)}
	ext := filepath.Ext(u.name)
	i := slices.IndexFunc(kinds(), func(k *kind) bool { return k.ext == ext })
	if i < 0 {
		if why := noKind[ext]; why != "" {
			return nil, fmt.Errorf("%s: %s", f.Path, why)
		}
		return nil, fmt.Errorf("%s: no kind of quadlet file (there are .container, .volume, .network, .image and .build)", f.Path)
	}
	u.kind = kinds()[i]
	base := strings.TrimSuffix(u.name, ext)
	if u.service = base + u.kind.suffix; f.last(u.kind.section, "ServiceName") != "" {
		u.service = f.last(u.kind.section, "ServiceName")
	}
	u.resource = u.resourceName(base)
	return u, nil
}

// resourceName is what the unit makes: podman's rule.
func (u *unit) resourceName(base string) string {
	name := "systemd-" + base
	switch s := u.kind.section; s {
	case "Image":
		name = u.last(s, "Image")
		if tag := u.last(s, "ImageTag"); tag != "" {
			name = tag
		}
	case "Build":
		name = ""
		if tags := u.all(s, "ImageTag"); len(tags) > 0 {
			name = tags[0]
		}
	case "Container":
		if name = strings.ReplaceAll(u.containerName(), "%N", u.service); strings.Contains(name, "%") {
			name = ""
		}
	default:
		if own := u.last(s, s+"Name"); own != "" {
			name = own
		}
	}
	return name
}

// A maker turns one unit into a service.
type maker struct {
	*unit
	// kist is the program with its global arguments.
	kist []string
	// user says that the service is of a user's own systemd.
	user bool
	// dataRoot is where kist keeps what it needs to run.
	dataRoot string
	units    map[string]*unit
	out      *File
	args     []string
	// warnings are on lines that have no effect here.
	warnings []string
}

// key is the last value of a key of the unit's own section.
func (m *maker) key(name string) string { return m.last(m.kind.section, name) }

// make converts the unit to a service.
func (m *maker) make() (*File, error) {
	if err := m.checkKeys(); err != nil {
		return nil, err
	}
	m.begin()
	global, err := m.words(m.kind.section, "GlobalArgs")
	if err != nil {
		return nil, err
	}
	m.kist = append(slices.Clone(m.kist), global...)
	if err := m.kind.convert(m); err != nil {
		return nil, err
	}
	return m.out, nil
}

// checkKeys refuses keys that no rule knows: a slip of the pen would be lost.
func (m *maker) checkKeys() error {
	if !m.has(m.kind.section) {
		return fmt.Errorf("there is no section [%s]", m.kind.section)
	}
	for _, e := range m.section(m.kind.section).Entries {
		why, refused := m.kind.refused[e.Key]
		known := slices.Contains(common[:], e.Key) || slices.Contains(m.kind.byHand, e.Key) ||
			slices.ContainsFunc(m.kind.rules, func(r rule) bool { return r.key == e.Key })
		switch {
		case refused:
			return fmt.Errorf("%s=: %s", e.Key, why)
		case !known:
			return fmt.Errorf("[%s] has no key %s", m.kind.section, e.Key)
		}
	}
	return nil
}

// begin copies what is systemd's, and keeps the unit's own section for readers.
func (m *maker) begin() {
	m.out = &File{Path: m.service + ".service"}
	unit := m.out.section("Unit")
	if quadlet, ok, err := m.boolean("Quadlet", "DefaultDependencies"); !m.user && (err != nil || !ok || quadlet) {
		// First, for an empty line of the file's to take them back.
		unit.Entries = append(unit.Entries, Entry{"Wants", "network-online.target"}, Entry{"After", "network-online.target"})
	}
	for _, s := range m.Sections {
		name := s.Name
		if name == m.kind.section || name == "Quadlet" {
			name = "X-" + name
		}
		to := m.out.section(name)
		for _, e := range s.Entries {
			if name == "Unit" {
				e.Value = m.dependencies(e)
			}
			to.Entries = append(to.Entries, e)
		}
	}
	m.out.add("Unit", "SourcePath", m.Path)
	m.out.add("Unit", "RequiresMountsFor", m.dataRoot)
	m.out.setDefault("Service", "SyslogIdentifier", "%N")
}

// dependencies names services where a line of [Unit] names quadlet files.
func (m *maker) dependencies(e Entry) string {
	list := strings.Fields(e.Value)
	changed := false
	for i, word := range list {
		if u := m.units[word]; u != nil {
			list[i], changed = u.service+".service", true
		}
	}
	if !changed {
		return e.Value
	}
	return strings.Join(list, " ")
}

// needs makes the service start after another unit's, and returns what that makes.
func (m *maker) needs(name string) (string, error) {
	u := m.units[name]
	switch {
	case u == nil:
		return "", fmt.Errorf("%s: no such quadlet file", name)
	case u.resource == "":
		return "", fmt.Errorf("%s: what it makes has no name that is known here", name)
	}
	for _, key := range []string{"Requires", "After"} {
		if service := u.service + ".service"; !slices.Contains(m.out.all("Unit", key), service) {
			m.out.add("Unit", key, service)
		}
	}
	return u.resource, nil
}

func (m *maker) arg(words ...string) { m.args = append(m.args, words...) }

// flags applies the rules.
func (m *maker) flags() error {
	section := m.kind.section
	for _, r := range m.kind.rules {
		switch r.how {
		case one:
			if v := m.key(r.key); v != "" {
				m.arg(r.flag, v)
			}
		case each, words:
			list, err := m.all(section, r.key), error(nil)
			if r.how == words {
				list, err = m.words(section, r.key)
			}
			if err != nil {
				return err
			}
			for _, v := range list {
				m.arg(r.flag, v)
			}
		case boolean, given:
			yes, set, err := m.boolean(section, r.key)
			switch {
			case err != nil:
				return err
			case yes:
				m.arg(r.flag)
			case set && r.how == boolean:
				m.arg(r.flag + "=false")
			}
		}
	}
	return nil
}

// ownArgs adds what is for kist as it is, and last the words given.
func (m *maker) ownArgs(last ...string) error {
	for _, key := range []string{"PodmanArgs", "KistArgs"} {
		list, err := m.words(m.kind.section, key)
		if err != nil {
			return err
		}
		m.arg(list...)
	}
	m.arg(last...)
	return nil
}

// command adds a line that runs kist.
func (m *maker) command(key string, args ...string) {
	m.out.add("Service", key, commandLine(append(slices.Clone(m.kist), args...)))
}

// oneshot makes the service one that is done when its command has ended.
func (m *maker) oneshot(remain bool) {
	m.out.setDefault("Service", "Type", "oneshot")
	if remain {
		m.out.setDefault("Service", "RemainAfterExit", "yes")
	}
	m.command("ExecStart", m.args...)
}

// absolute is a path that the file gives relative to itself. One that begins with
// a specifier is systemd's to know.
func (m *maker) absolute(path string) string {
	if filepath.IsAbs(path) || strings.HasPrefix(path, "%") && !strings.HasPrefix(path, "%%") {
		return path
	}
	return filepath.Join(filepath.Dir(m.Path), path)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

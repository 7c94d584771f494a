// Package volume keeps named directories that outlive containers, and reads what
// the user writes of mounts. It knows nothing of containers.
package volume

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	units "github.com/docker/go-units"
)

// Kinds of mounts.
const (
	TypeBind   = "bind"
	TypeVolume = "volume"
	TypeTmpfs  = "tmpfs"
)

// A Mount is one wish of -v, --mount or --tmpfs.
type Mount struct {
	// Type is bind, volume or tmpfs.
	Type string `json:"type"`
	// Source is a host path, a volume's name ("" for an anonymous one), or "".
	Source string `json:"source,omitempty"`
	// Target is absolute, in the container.
	Target   string `json:"target"`
	ReadOnly bool   `json:"readOnly,omitempty"`
	// Propagation is one of private, slave, shared and their r- forms; "" is rprivate.
	Propagation string `json:"propagation,omitempty"`
	// NonRecursive binds the directory without what is mounted below it.
	NonRecursive bool `json:"nonRecursive,omitempty"`
	// CreateSource makes a missing host directory, as -v does.
	CreateSource bool `json:"createSource,omitempty"`
	// NoCopy leaves a new volume empty.
	NoCopy bool `json:"noCopy,omitempty"`
	// Anonymous says that Source is a name made up for this container: the volume
	// goes with it.
	Anonymous bool `json:"anonymous,omitempty"`
	// Driver and DriverOpts make a missing volume.
	Driver     string            `json:"driver,omitempty"`
	DriverOpts map[string]string `json:"driverOpts,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
	// Subpath is a directory in the volume.
	Subpath string `json:"subpath,omitempty"`
	// Size bounds a tmpfs in bytes, 0 for no bound; Mode is its mode, 0 for 1777.
	Size int64  `json:"size,omitempty"`
	Mode uint32 `json:"mode,omitempty"`
	// Options are further mount options of a tmpfs.
	Options []string `json:"options,omitempty"`
}

var propagations = []string{"private", "rprivate", "slave", "rslave", "shared", "rshared"}

// target checks a path of the container.
func target(path string) (string, error) {
	switch {
	case path == "":
		return "", errors.New("no path in the container is given")
	case !filepath.IsAbs(path):
		return "", fmt.Errorf("%q: the path in the container must be absolute", path)
	case strings.ContainsRune(path, 0):
		return "", fmt.Errorf("%q: not a path", path)
	}
	clean := filepath.Clean(path)
	if clean == "/" {
		return "", errors.New("a mount cannot replace the container's root (/)")
	}
	return clean, nil
}

// ParseVolume reads -v: [SOURCE:]TARGET[:OPTIONS]. A source with a slash or a
// dot in front is a host path, relative ones to cwd; any other is a volume's name.
func ParseVolume(s, cwd string) (Mount, error) {
	m, err := parseVolume(s, cwd)
	if err != nil {
		return Mount{}, fmt.Errorf("-v %s: %w", s, err)
	}
	return m, nil
}

func parseVolume(s, cwd string) (Mount, error) {
	parts := strings.Split(s, ":")
	m := Mount{Type: TypeVolume}
	options := ""
	var source, dest string
	switch len(parts) {
	case 1:
		dest = parts[0]
	case 2:
		source, dest = parts[0], parts[1]
	case 3:
		source, dest, options = parts[0], parts[1], parts[2]
	default:
		return m, errors.New("want [SOURCE:]TARGET[:OPTIONS]")
	}
	var err error
	if m.Target, err = target(dest); err != nil {
		return m, err
	}
	switch {
	case source == "" || !isPath(source):
		if source != "" && !ValidName(source) {
			return m, fmt.Errorf("%q is neither a path nor a volume's name ([a-zA-Z0-9][a-zA-Z0-9_.-]*)", source)
		}
		m.Source, m.Anonymous = source, source == ""
	default:
		m.Type, m.Source, m.CreateSource = TypeBind, absolute(source, cwd), true
	}
	return m, m.volumeOptions(options)
}

func isPath(s string) bool {
	return strings.HasPrefix(s, "/") || strings.HasPrefix(s, "./") || strings.HasPrefix(s, "../") || s == "." || s == ".." || strings.HasPrefix(s, "~")
}

func absolute(path, cwd string) string {
	if !filepath.IsAbs(path) {
		path = filepath.Join(cwd, path)
	}
	return filepath.Clean(path)
}

func (m *Mount) volumeOptions(options string) error {
	if options == "" {
		return nil
	}
	seen := map[string]bool{}
	for _, o := range strings.Split(options, ",") {
		if seen[o] {
			return fmt.Errorf("option %q is given twice", o)
		}
		seen[o] = true
		switch {
		case o == "ro":
			m.ReadOnly = true
		case o == "rw", o == "z", o == "Z", o == "consistent", o == "cached", o == "delegated":
		case o == "nocopy":
			m.NoCopy = true
		case o == "bind" && m.Type == TypeBind:
			m.NonRecursive = true
		case o == "rbind" && m.Type == TypeBind:
		case slices.Contains(propagations, o) && m.Type == TypeBind:
			m.Propagation = o
		default:
			return fmt.Errorf("option %q: unknown", o)
		}
	}
	if seen["ro"] && seen["rw"] {
		return errors.New("ro and rw contradict each other")
	}
	return nil
}

// ParseMount reads --mount: type=…,source=…,target=…,…
func ParseMount(s, cwd string) (Mount, error) {
	m := Mount{Type: TypeVolume}
	for _, field := range splitCSV(s) {
		key, value, hasValue := strings.Cut(field, "=")
		if err := m.mountOption(strings.ToLower(strings.TrimSpace(key)), value, hasValue); err != nil {
			return Mount{}, fmt.Errorf("--mount %s: %w", s, err)
		}
	}
	if err := m.checkMount(cwd); err != nil {
		return Mount{}, fmt.Errorf("--mount %s: %w", s, err)
	}
	return m, nil
}

// splitCSV splits at commas outside double quotes.
func splitCSV(s string) []string {
	var fields []string
	var b strings.Builder
	quoted := false
	for _, r := range s {
		switch {
		case r == '"':
			quoted = !quoted
		case r == ',' && !quoted:
			fields = append(fields, b.String())
			b.Reset()
		default:
			b.WriteRune(r)
		}
	}
	return append(fields, b.String())
}

func (m *Mount) mountOption(key, value string, hasValue bool) (err error) {
	flag := func(dst *bool, inverted bool) {
		v := true
		if hasValue {
			v, err = strconv.ParseBool(value)
		}
		*dst = v != inverted
	}
	switch key {
	case "type":
		m.Type = strings.ToLower(value)
	case "source", "src":
		m.Source = value
	case "target", "dst", "destination":
		m.Target = value
	case "readonly", "ro":
		flag(&m.ReadOnly, false)
	case "rw":
		flag(&m.ReadOnly, true)
	case "bind-propagation":
		if !slices.Contains(propagations, value) {
			return fmt.Errorf("bind-propagation=%s: want one of %s", value, strings.Join(propagations, ", "))
		}
		m.Propagation = value
	case "bind-nonrecursive":
		flag(&m.NonRecursive, false)
	case "bind-recursive":
		if !slices.Contains([]string{"enabled", "disabled", "writable", "readonly"}, value) {
			return fmt.Errorf("bind-recursive=%s: want enabled, disabled, writable or readonly", value)
		}
		m.NonRecursive = value == "disabled"
	case "bind-create-src":
		flag(&m.CreateSource, false)
	case "volume-nocopy":
		flag(&m.NoCopy, false)
	case "volume-subpath":
		m.Subpath = value
	case "volume-driver":
		m.Driver = value
	case "volume-opt", "volume-label":
		dst := &m.DriverOpts
		if key == "volume-label" {
			dst = &m.Labels
		}
		k, v, _ := strings.Cut(value, "=")
		if *dst == nil {
			*dst = map[string]string{}
		}
		(*dst)[k] = v
	case "tmpfs-size":
		m.Size, err = units.RAMInBytes(value)
	case "tmpfs-mode":
		m.Mode, err = octal(value)
	case "consistency":
	default:
		return fmt.Errorf("key %q: unknown", key)
	}
	if err != nil {
		return fmt.Errorf("%s=%s: not valid", key, value)
	}
	return nil
}

func octal(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 8, 12)
	return uint32(n), err
}

func (m *Mount) checkMount(cwd string) (err error) {
	if m.Target, err = target(m.Target); err != nil {
		return err
	}
	switch m.Type {
	case TypeBind:
		if m.Source == "" {
			return errors.New("a bind mount needs source=PATH")
		}
		m.Source = absolute(m.Source, cwd)
	case TypeVolume:
		if m.Source != "" && !ValidName(m.Source) {
			return fmt.Errorf("%q is not a volume's name (for a directory of the host say type=bind)", m.Source)
		}
		m.Anonymous = m.Source == ""
	case TypeTmpfs:
		if m.Source != "" {
			return errors.New("a tmpfs has no source")
		}
	default:
		return fmt.Errorf("type %q: want bind, volume or tmpfs", m.Type)
	}
	return nil
}

// ParseTmpfs reads --tmpfs: TARGET[:OPTIONS].
func ParseTmpfs(s string) (Mount, error) {
	path, options, _ := strings.Cut(s, ":")
	m := Mount{Type: TypeTmpfs}
	var err error
	if m.Target, err = target(path); err != nil {
		return m, fmt.Errorf("--tmpfs %s: %w", s, err)
	}
	for _, o := range strings.Split(options, ",") {
		key, value, _ := strings.Cut(o, "=")
		switch key {
		case "":
		case "size":
			m.Options = append(m.Options, o)
		case "mode":
			if m.Mode, err = octal(value); err != nil {
				return m, fmt.Errorf("--tmpfs %s: mode %q is not octal", s, value)
			}
		case "ro":
			m.ReadOnly = true
		case "rw":
		case "exec", "noexec", "suid", "nosuid", "dev", "nodev", "uid", "gid", "nr_inodes", "nr_blocks", "noatime", "relatime", "strictatime", "huge":
			m.Options = append(m.Options, o)
		default:
			return m, fmt.Errorf("--tmpfs %s: option %q: unknown", s, key)
		}
	}
	return m, nil
}

// Sort puts mounts into the order of their paths, so that one below another
// comes after it, and refuses two on one path.
func Sort(mounts []Mount) error {
	slices.SortStableFunc(mounts, func(a, b Mount) int {
		return strings.Compare(a.Target+"/", b.Target+"/")
	})
	for i := 1; i < len(mounts); i++ {
		if mounts[i].Target == mounts[i-1].Target {
			return fmt.Errorf("mount %s: two mounts on one path", mounts[i].Target)
		}
	}
	return nil
}

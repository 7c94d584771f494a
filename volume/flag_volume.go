package volume

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/kist-containers/kist/internal/ui"
)

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
	var source, dest, options string
	switch parts := strings.Split(s, ":"); len(parts) {
	case 1:
		dest = parts[0]
	case 2:
		source, dest = parts[0], parts[1]
	case 3:
		source, dest, options = parts[0], parts[1], parts[2]
	default:
		return Mount{}, errors.New("want [SOURCE:]TARGET[:OPTIONS]")
	}
	m := Mount{Type: TypeVolume}
	var err error
	if m.Target, err = target(dest); err != nil {
		return m, err
	}
	if err := m.volumeSource(source, cwd); err != nil {
		return m, err
	}
	return m, m.volumeOptions(options)
}

func (m *Mount) volumeSource(source, cwd string) (err error) {
	switch {
	case source == "":
		m.Anonymous = true
	case isPath(source):
		m.Type, m.CreateSource = TypeBind, true
		m.Source, err = hostPath(source, cwd)
	case ValidName(source):
		m.Source = source
	case strings.Contains(source, "/"):
		err = fmt.Errorf("%q is neither an absolute path nor a volume's name", source)
		return ui.Hint(err, "-v ./%s:%s for a directory of the host", source, m.Target)
	default:
		return fmt.Errorf("%q is neither a path nor a volume's name (want two or more of [a-zA-Z0-9_.-], the first a letter or digit)", source)
	}
	return err
}

func isPath(s string) bool {
	return strings.HasPrefix(s, "/") || strings.HasPrefix(s, "./") || strings.HasPrefix(s, "../") ||
		s == "." || s == ".." || strings.HasPrefix(s, "~")
}

// contradictions are options that cannot stand together.
var contradictions = [][2]string{{"ro", "rw"}, {"z", "Z"}, {"copy", "nocopy"}, {"O", "ro"}, {"O", "U"}, {"bind", "rbind"},
	{"exec", "noexec"}, {"suid", "nosuid"}, {"dev", "nodev"}}

func (m *Mount) volumeOptions(options string) error {
	if options == "" {
		return nil
	}
	var seen []string
	for o := range strings.SplitSeq(options, ",") {
		if slices.Contains(seen, o) {
			return fmt.Errorf("option %q is given twice", o)
		}
		seen = append(seen, o)
		if err := m.volumeOption(o); err != nil {
			return err
		}
	}
	for _, c := range contradictions {
		if slices.Contains(seen, c[0]) && slices.Contains(seen, c[1]) {
			return fmt.Errorf("%s and %s contradict each other", c[0], c[1])
		}
	}
	return nil
}

func (m *Mount) volumeOption(o string) (err error) {
	key, value, _ := strings.Cut(o, "=")
	switch {
	case o == "ro":
		m.ReadOnly = true
	case o == "rw", o == "z", o == "Z", o == "consistent", o == "cached", o == "delegated", o == "copy", o == "rbind" && m.Type == TypeBind:
	case o == "nocopy":
		m.NoCopy = true
	case o == "nocreate" && m.Type == TypeVolume:
		m.NoCreate = true
	case o == "bind" && m.Type == TypeBind:
		m.NonRecursive = true
	case o == "O" && !m.Anonymous:
		m.Overlay = true
	case o == "U":
		m.Chown = true
	case key == "idmap":
		err = m.idmap(value)
	case slices.Contains(attributes, o):
		m.Options = append(m.Options, o)
	case slices.Contains(propagations, o) && m.Type == TypeBind:
		if m.Propagation != "" {
			return fmt.Errorf("%s and %s contradict each other", m.Propagation, o)
		}
		m.Propagation = o
	case slices.Contains(propagations, o):
		return fmt.Errorf("option %q: only for a directory of the host", o)
	default:
		return fmt.Errorf("option %q: unknown", o)
	}
	return err
}

package volume

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	units "github.com/docker/go-units"
)

// ParseMount reads --mount: type=…,source=…,target=…,…
func ParseMount(s, cwd string) (Mount, error) {
	m, err := parseMount(s, cwd)
	if err != nil {
		return Mount{}, fmt.Errorf("--mount %s: %w", s, err)
	}
	return m, nil
}

func parseMount(s, cwd string) (Mount, error) {
	fields, err := splitCSV(s)
	if err != nil {
		return Mount{}, err
	}
	m := Mount{Type: TypeVolume}
	// The type decides what the other keys mean, wherever it stands.
	for _, f := range fields {
		if f.key == "type" {
			m.Type = strings.ToLower(f.value)
		}
	}
	if !slices.Contains([]string{TypeBind, TypeVolume, TypeTmpfs, TypeImage, TypeDevpts}, m.Type) {
		return m, fmt.Errorf("type %q: want bind, volume, tmpfs, image or devpts", m.Type)
	}
	for _, f := range fields {
		if err := m.mountField(f); err != nil {
			return m, err
		}
	}
	return m, m.checkMount(cwd)
}

// A field is one key=value of --mount.
type field struct {
	key, value string
	hasValue   bool
}

// splitCSV splits at commas outside double quotes; two quotes inside a pair of
// quotes stand for one.
func splitCSV(s string) ([]field, error) {
	var fields []field
	var b strings.Builder
	quoted := false
	add := func() {
		key, value, has := strings.Cut(b.String(), "=")
		fields = append(fields, field{strings.ToLower(strings.TrimSpace(key)), value, has})
		b.Reset()
	}
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"' && quoted && i+1 < len(s) && s[i+1] == '"':
			b.WriteByte('"')
			i++
		case s[i] == '"':
			quoted = !quoted
		case s[i] == ',' && !quoted:
			add()
		default:
			b.WriteByte(s[i])
		}
	}
	if quoted {
		return nil, errors.New("a double quote is not closed")
	}
	add()
	return fields, nil
}

// bool is the field as a switch: without a value it is on.
func (f field) bool(dst *bool) error {
	if !f.hasValue {
		*dst = true
		return nil
	}
	v, err := strconv.ParseBool(f.value)
	if err != nil {
		return fmt.Errorf("%s=%s: want true or false", f.key, f.value)
	}
	*dst = v
	return nil
}

func (m *Mount) mountField(f field) error {
	for _, kind := range []string{TypeBind, TypeVolume, TypeTmpfs, TypeImage} {
		if strings.HasPrefix(f.key, kind+"-") && m.Type != kind {
			return fmt.Errorf("%s is for type=%s, not for type=%s", f.key, kind, m.Type)
		}
	}
	switch f.key {
	case "type", "consistency", "relabel", "notmpcopyup":
	case "source", "src":
		m.Source = f.value
	case "target", "dst", "destination":
		m.Target = f.value
	case "readonly", "ro":
		return f.bool(&m.ReadOnly)
	case "rw", "readwrite":
		var rw bool
		err := f.bool(&rw)
		m.ReadOnly = !rw
		return err
	case "u", "chown":
		return f.bool(&m.Chown)
	case "idmap":
		return m.idmap(f.value)
	case "subpath", "volume-subpath", "image-subpath":
		if m.Type != TypeVolume && m.Type != TypeImage {
			return fmt.Errorf("subpath is for volumes and images, not for type=%s", m.Type)
		}
		var err error
		m.Subpath, err = subpath(f.value)
		return err
	default:
		return m.kindField(f)
	}
	return nil
}

// kindField is a key that one kind of mount has.
func (m *Mount) kindField(f field) error {
	kind := map[string]func(field) error{
		TypeBind: m.bindField, TypeVolume: m.volumeField, TypeTmpfs: m.tmpfsField, TypeDevpts: m.devptsField,
		TypeImage: func(f field) error { return unknownKey(f, m.Type) },
	}
	return kind[m.Type](f)
}

func unknownKey(f field, kind string) error {
	if f.key == "" {
		return errors.New("an empty field: want key=value, by commas")
	}
	return fmt.Errorf("key %q: unknown for type=%s", f.key, kind)
}

func (m *Mount) bindField(f field) error {
	switch f.key {
	case "bind-propagation":
		if !slices.Contains(propagations, f.value) {
			return fmt.Errorf("bind-propagation=%s: want one of %s", f.value, strings.Join(propagations, ", "))
		}
		m.Propagation = f.value
	case "bind-nonrecursive":
		return f.bool(&m.NonRecursive)
	case "bind-recursive":
		switch f.value {
		case "enabled", "readonly":
		case "disabled":
			m.NonRecursive = true
		case "writable":
			m.WritableBelow = true
		default:
			return fmt.Errorf("bind-recursive=%s: want enabled, disabled, writable or readonly", f.value)
		}
	case "bind-create-src":
		return f.bool(&m.CreateSource)
	default:
		return unknownKey(f, m.Type)
	}
	return nil
}

func (m *Mount) volumeField(f field) error {
	switch f.key {
	case "volume-nocopy", "nocopy":
		return f.bool(&m.NoCopy)
	case "volume-driver":
		m.Driver = f.value
	case "volume-opt":
		return addPair(&m.DriverOpts, f)
	case "volume-label":
		return addPair(&m.Labels, f)
	default:
		return unknownKey(f, m.Type)
	}
	return nil
}

func addPair(dst *map[string]string, f field) error {
	k, v, _ := strings.Cut(f.value, "=")
	if k == "" {
		return fmt.Errorf("%s=%s: want KEY=VALUE", f.key, f.value)
	}
	if *dst == nil {
		*dst = map[string]string{}
	}
	(*dst)[k] = v
	return nil
}

func (m *Mount) tmpfsField(f field) (err error) {
	switch f.key {
	case "tmpfs-size":
		m.Size, err = size(f.value)
	case "tmpfs-mode":
		m.Mode, err = octal(f.value)
	case "tmpcopyup":
		m.Options = append(m.Options, f.key)
	default:
		return unknownKey(f, m.Type)
	}
	if err != nil {
		return fmt.Errorf("%s=%s: %w", f.key, f.value, err)
	}
	return nil
}

func (m *Mount) devptsField(f field) error {
	switch f.key {
	case "uid", "gid", "max":
		if _, err := strconv.ParseUint(f.value, 10, 32); err != nil {
			return fmt.Errorf("%s=%s: want a number", f.key, f.value)
		}
	case "mode":
		if _, err := octal(f.value); err != nil {
			return fmt.Errorf("%s=%s: %w", f.key, f.value, err)
		}
	default:
		return unknownKey(f, m.Type)
	}
	m.Options = append(m.Options, f.key+"="+f.value)
	return nil
}

func octal(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 8, 12)
	if err != nil {
		return 0, errors.New("want an octal mode such as 1777")
	}
	return uint32(n), nil
}

func size(s string) (int64, error) {
	n, err := units.RAMInBytes(s)
	if err != nil || n < 0 {
		return 0, errors.New("want a size such as 64m")
	}
	return n, nil
}

// checkMount completes what the keys said together.
func (m *Mount) checkMount(cwd string) (err error) {
	if m.Target, err = target(m.Target); err != nil {
		return err
	}
	switch m.Type {
	case TypeBind:
		if m.Source == "" {
			return errors.New("a bind mount needs source=PATH")
		}
		m.Source, err = hostPath(m.Source, cwd)
		return err
	case TypeVolume:
		if m.Source != "" && !ValidName(m.Source) {
			return fmt.Errorf("%q is not a volume's name (for a directory of the host say type=bind)", m.Source)
		}
		m.Anonymous = m.Source == ""
	case TypeImage:
		if m.Source == "" {
			return errors.New("an image mount needs source=IMAGE")
		}
	default:
		if m.Source != "" {
			return fmt.Errorf("a %s has no source", m.Type)
		}
	}
	return nil
}

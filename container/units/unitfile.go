// Package units joins containers to systemd: unit files made for a container
// (generate systemd), unit files that describe one (quadlet) with the generator
// that systemd calls for them, and the update of what runs in such units.
package units

import (
	"fmt"
	"slices"
	"strings"
)

// A File is a unit file in order of its lines; see systemd.syntax(7).
type File struct {
	Path     string
	Sections []*Section
}

// A Section is what follows a line "[Name]".
type Section struct {
	Name    string
	Entries []Entry
}

// An Entry is a line "Key=Value", with the lines that continue it.
type Entry struct{ Key, Value string }

// mostUnit bounds a unit file, in bytes.
const mostUnit = 1 << 20

// ParseUnit reads a unit file. Errors name the line.
func ParseUnit(path string, data []byte) (*File, error) {
	f := &File{Path: path}
	if len(data) > mostUnit {
		return nil, fmt.Errorf("%s: longer than %d bytes", path, mostUnit)
	}
	var section *Section
	lines := strings.Split(string(data), "\n")
	for i := 0; i < len(lines); i++ {
		at := i + 1
		line := strings.TrimSpace(lines[i])
		if line == "" || isComment(line) {
			continue
		}
		for strings.HasSuffix(line, `\`) {
			line = strings.TrimSuffix(line, `\`) + " "
			for i++; i < len(lines) && isComment(strings.TrimSpace(lines[i])); i++ {
			}
			if i >= len(lines) {
				break
			}
			line += strings.TrimSpace(lines[i])
		}
		key, value, isEntry := strings.Cut(line, "=")
		switch {
		case strings.ContainsRune(line, 0):
			return nil, fmt.Errorf("%s:%d: a NUL byte", path, at)
		case line[0] == '[' && strings.HasSuffix(line, "]") && len(line) > 2:
			section = f.section(line[1 : len(line)-1])
		case line[0] == '[':
			return nil, fmt.Errorf("%s:%d: %q is not [SECTION]", path, at, line)
		case !isEntry || strings.TrimSpace(key) == "":
			return nil, fmt.Errorf("%s:%d: %q is not KEY=VALUE", path, at, line)
		case section == nil:
			return nil, fmt.Errorf("%s:%d: %q stands before the first [SECTION]", path, at, line)
		default:
			section.Entries = append(section.Entries, Entry{strings.TrimSpace(key), strings.TrimSpace(value)})
		}
	}
	return f, nil
}

func isComment(line string) bool { return line != "" && (line[0] == '#' || line[0] == ';') }

// section returns the section of the name, made at the end where it is not there.
func (f *File) section(name string) *Section {
	for _, s := range f.Sections {
		if s.Name == name {
			return s
		}
	}
	s := &Section{Name: name}
	f.Sections = append(f.Sections, s)
	return s
}

func (f *File) has(section string) bool {
	return slices.ContainsFunc(f.Sections, func(s *Section) bool { return s.Name == section })
}

// all are the values of a key; an empty one takes back those before it.
func (f *File) all(section, key string) []string {
	var values []string
	for _, s := range f.Sections {
		if s.Name != section {
			continue
		}
		for _, e := range s.Entries {
			switch {
			case e.Key != key:
			case e.Value == "":
				values = nil
			default:
				values = append(values, e.Value)
			}
		}
	}
	return values
}

// last is the last value of a key, "" for none.
func (f *File) last(section, key string) string {
	values := f.all(section, key)
	if len(values) == 0 {
		return ""
	}
	return values[len(values)-1]
}

// words are the values of a key, split as systemd splits command lines.
func (f *File) words(section, key string) (list []string, err error) {
	for _, v := range f.all(section, key) {
		w, err := SplitWords(v)
		if err != nil {
			return nil, fmt.Errorf("%s=%s: %w", key, v, err)
		}
		list = append(list, w...)
	}
	return list, nil
}

// boolean reads a key as systemd does; given is false where there is none.
func (f *File) boolean(section, key string) (value, given bool, err error) {
	switch v := f.last(section, key); strings.ToLower(v) {
	case "":
		return false, false, nil
	case "1", "yes", "y", "true", "t", "on":
		return true, true, nil
	case "0", "no", "n", "false", "f", "off":
		return false, true, nil
	default:
		return false, true, fmt.Errorf("%s=%s: neither yes nor no", key, v)
	}
}

// add appends a line to a section.
func (f *File) add(section, key, value string) {
	s := f.section(section)
	s.Entries = append(s.Entries, Entry{key, value})
}

// setDefault is add for a key that is not there.
func (f *File) setDefault(section, key, value string) {
	if f.last(section, key) == "" {
		f.add(section, key, value)
	}
}

// Text is the file as systemd reads it.
func (f *File) Text() string {
	var b strings.Builder
	for i, s := range f.Sections {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "[%s]\n", s.Name)
		for _, e := range s.Entries {
			fmt.Fprintf(&b, "%s=%s\n", e.Key, e.Value)
		}
	}
	return b.String()
}

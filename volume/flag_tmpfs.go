package volume

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// ParseTmpfs reads --tmpfs: TARGET[:OPTIONS].
func ParseTmpfs(s string) (Mount, error) {
	path, options, _ := strings.Cut(s, ":")
	m := Mount{Type: TypeTmpfs}
	var err error
	if m.Target, err = target(path); err != nil {
		return Mount{}, fmt.Errorf("--tmpfs %s: %w", s, err)
	}
	for o := range strings.SplitSeq(options, ",") {
		if err := m.tmpfsOption(o); err != nil {
			return Mount{}, fmt.Errorf("--tmpfs %s: %w", s, err)
		}
	}
	return m, nil
}

func (m *Mount) tmpfsOption(o string) (err error) {
	key, value, _ := strings.Cut(o, "=")
	switch key {
	case "", "rw", "notmpcopyup", "defaults", "async":
	case "ro":
		m.ReadOnly = true
	case "mode":
		m.Mode, err = octal(value)
	case "size":
		// The kernel reads the unit, and "50%" of the memory.
		if !strings.HasSuffix(value, "%") {
			_, err = size(value)
		}
		m.Options = append(m.Options, o)
	case "uid", "gid", "nr_inodes", "nr_blocks":
		_, err = strconv.ParseUint(strings.TrimRight(value, "kmg"), 10, 63)
		if err != nil {
			err = fmt.Errorf("%q is not a number", value)
		}
		m.Options = append(m.Options, o)
	case "U":
		m.Chown = true
	case "tmpcopyup", "huge", "sync":
		m.Options = append(m.Options, o)
	default:
		if !slices.Contains(attributes, o) {
			return fmt.Errorf("option %q: unknown", o)
		}
		m.Options = append(m.Options, o)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", o, err)
	}
	return nil
}

package volume

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// An IDRange translates owners on disk (ContainerID) to those that this host sees
// through the mount (HostID).
type IDRange struct {
	specs.LinuxIDMapping
	// InContainer says that HostID is a number of the container's user namespace.
	InContainer bool `json:"inContainer,omitempty"`
}

// idmap reads podman's idmap[=uids=[@]DISK-HOST-N[#…];gids=[@]DISK-HOST-N[#…]]:
// DISK is the first number on disk, HOST what this host sees through the mount,
// or with @ the container. Without a value the container's user namespace
// translates.
func (m *Mount) idmap(s string) error {
	if m.Type != TypeBind && m.Type != TypeVolume {
		return fmt.Errorf("idmap is for bind and volume mounts, not for type=%s", m.Type)
	}
	m.IDMap = true
	if s == "" {
		return nil
	}
	for part := range strings.SplitSeq(s, ";") {
		key, ranges, _ := strings.Cut(part, "=")
		list, err := idRanges(ranges)
		if err != nil {
			return fmt.Errorf("idmap=%s: %w", s, err)
		}
		switch key {
		case "uids":
			m.UIDs = list
		case "gids":
			m.GIDs = list
		default:
			return fmt.Errorf("idmap=%s: %q: want uids or gids", s, key)
		}
	}
	if len(m.UIDs) == 0 || len(m.GIDs) == 0 {
		return fmt.Errorf("idmap=%s: want both uids= and gids=", s)
	}
	return nil
}

func idRanges(s string) ([]IDRange, error) {
	var list []IDRange
	for r := range strings.SplitSeq(s, "#") {
		var n [3]uint64
		triple, relative := strings.CutPrefix(r, "@")
		parts := strings.Split(triple, "-")
		if len(parts) != 3 {
			return nil, fmt.Errorf("%q: want DISK-HOST-LENGTH", r)
		}
		for i, p := range parts {
			var err error
			if n[i], err = strconv.ParseUint(p, 10, 32); err != nil {
				return nil, fmt.Errorf("%q: not a number", p)
			}
		}
		if n[2] == 0 || n[0]+n[2] > 1<<32 || n[1]+n[2] > 1<<32 {
			return nil, errors.New("a range is empty or ends beyond 4294967295")
		}
		list = append(list, IDRange{specs.LinuxIDMapping{ContainerID: uint32(n[0]), HostID: uint32(n[1]), Size: uint32(n[2])}, relative})
	}
	return list, nil
}

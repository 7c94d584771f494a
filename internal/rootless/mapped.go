package rootless

import (
	"bytes"
	"fmt"
	"os"
	"strings"
)

// MapsGID reports whether this process's user namespace has the group gid.
func MapsGID(gid uint32) bool {
	data, err := os.ReadFile("/proc/self/gid_map")
	return err == nil && maps(string(data), gid)
}

// maps looks id up in a uid_map or gid_map.
func maps(table string, id uint32) bool {
	for line := range strings.Lines(table) {
		var inside, outside, size uint64
		if _, err := fmt.Sscan(line, &inside, &outside, &size); err == nil && uint64(id) >= inside && uint64(id) < inside+size {
			return true
		}
	}
	return false
}

// DeniesGroups reports whether the kernel refuses supplementary groups here: a
// user namespace that maps one id has no others to give. See user_namespaces(7).
func DeniesGroups() bool {
	b, err := os.ReadFile("/proc/self/setgroups")
	return err == nil && string(bytes.TrimSpace(b)) == "deny"
}

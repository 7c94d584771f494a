package container

import (
	"fmt"
	"slices"
	"strings"

	moby "github.com/moby/sys/capability"
	"golang.org/x/sys/unix"
)

// defaultCaps are docker's fourteen.
var defaultCaps = [...]string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
	"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

// capability is the kernel's name of docker's CHOWN, cap_chown or CAP_CHOWN.
func capability(name string) (string, error) {
	up := strings.ToUpper(name)
	if up == "ALL" {
		return up, nil
	}
	up = "CAP_" + strings.TrimPrefix(up, "CAP_")
	if slices.Contains(allCapabilities(), up) {
		return up, nil
	}
	return "", fmt.Errorf("capability %s: no such capability", name)
}

func allCapabilities() []string {
	var names []string
	for _, c := range moby.ListKnown() {
		names = append(names, "CAP_"+strings.ToUpper(c.String()))
	}
	return names
}

// ownCapabilities are those that kist may give: its own bounding set.
func ownCapabilities() []string {
	var names []string
	for _, c := range moby.ListKnown() {
		if v, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0); err == nil && v == 1 {
			names = append(names, "CAP_"+strings.ToUpper(c.String()))
		}
	}
	return names
}

// capabilities applies --cap-add and --cap-drop to the default set: with ALL
// dropped the added ones remain, with ALL added the dropped ones go.
func (m *specMaker) capabilities() ([]string, error) {
	sec := &m.c.Security
	base := slices.Clone(defaultCaps[:])
	if sec.Privileged {
		return ownCapabilities(), nil
	}
	add, err := capabilityNames(sec.CapAdd)
	if err != nil {
		return nil, err
	}
	drop, err := capabilityNames(sec.CapDrop)
	if err != nil {
		return nil, err
	}
	switch {
	case slices.Contains(add, "ALL"):
		base = ownCapabilities()
	case slices.Contains(drop, "ALL"):
		return slices.DeleteFunc(add, func(c string) bool { return c == "ALL" }), nil
	}
	base = slices.DeleteFunc(base, func(c string) bool { return slices.Contains(drop, c) })
	for _, c := range add {
		if c != "ALL" && !slices.Contains(base, c) {
			base = append(base, c)
		}
	}
	return base, nil
}

func capabilityNames(list []string) ([]string, error) {
	var names []string
	for _, name := range list {
		n, err := capability(name)
		if err != nil {
			return nil, err
		}
		names = append(names, n)
	}
	return names, nil
}

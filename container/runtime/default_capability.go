package runtime

import (
	"fmt"
	"slices"
	"strings"

	"github.com/moby/sys/capability"
	"golang.org/x/sys/unix"
)

// defaultCapabilities are docker's fourteen.
func defaultCapabilities() []string {
	return []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
		"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
	}
}

// Capability is the kernel's name of docker's CHOWN, cap_chown or CAP_CHOWN.
func Capability(name string) (string, error) {
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
	for _, c := range capability.ListKnown() {
		names = append(names, capabilityName(c))
	}
	return names
}

// OwnCapabilities are those that kist may give: its own bounding set.
func OwnCapabilities() []string {
	var names []string
	for _, c := range capability.ListKnown() {
		if v, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0); err == nil && v == 1 {
			names = append(names, capabilityName(c))
		}
	}
	return names
}

// Capabilities applies --cap-add and --cap-drop to docker's default set: with
// ALL dropped the added ones remain, with ALL added the dropped ones go.
func Capabilities(add, drop []string) ([]string, error) {
	add, err := capabilityNames(add)
	if err != nil {
		return nil, err
	}
	if drop, err = capabilityNames(drop); err != nil {
		return nil, err
	}
	base := defaultCapabilities()
	switch {
	case slices.Contains(add, "ALL"):
		base = OwnCapabilities()
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
		n, err := Capability(name)
		if err != nil {
			return nil, err
		}
		names = append(names, n)
	}
	return names, nil
}

package runtime

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/moby/sys/capability"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

type capSets struct{ effective, permitted, inheritable, bounding, ambient uint64 }

func capabilitySets(c *specs.LinuxCapabilities) (capSets, error) {
	var s capSets
	if c == nil {
		return s, nil
	}
	for _, x := range []struct {
		names []string
		set   *uint64
	}{
		{c.Effective, &s.effective}, {c.Permitted, &s.permitted}, {c.Inheritable, &s.inheritable},
		{c.Bounding, &s.bounding}, {c.Ambient, &s.ambient},
	} {
		for _, name := range x.names {
			n, ok := capabilityNumber(name)
			if !ok {
				return s, fmt.Errorf("capability %q: unknown", name)
			}
			*x.set |= 1 << n
		}
	}
	return s, nil
}

// capabilityNumber reads CAP_CHOWN and the like.
func capabilityNumber(name string) (int, bool) {
	for _, c := range capability.ListKnown() {
		if capabilityName(c) == name {
			return int(c), true
		}
	}
	return 0, false
}

func capabilityName(c capability.Cap) string { return "CAP_" + strings.ToUpper(c.String()) }

// dropBounding takes all capabilities but keep out of what execve may give. It
// ends at the first number that the kernel does not know.
func dropBounding(keep uint64) error {
	for n := uintptr(0); n < 64; n++ {
		if keep&(1<<n) != 0 {
			continue
		}
		err := unix.Prctl(unix.PR_CAPBSET_DROP, n, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			return nil
		}
		if err != nil {
			return os.NewSyscallError("drop from bounding set", err)
		}
	}
	return nil
}

func (s capSets) apply() error {
	if err := s.set(); err != nil {
		return err
	}
	for n := uintptr(0); n < 64; n++ {
		if s.ambient&(1<<n) == 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, n, 0, 0); err != nil {
			return os.NewSyscallError("raise ambient capability", err)
		}
	}
	return nil
}

func (s capSets) words() ([2]unix.CapUserData, unix.CapUserHeader) {
	return [2]unix.CapUserData{
		{Effective: uint32(s.effective), Permitted: uint32(s.permitted), Inheritable: uint32(s.inheritable)},
		{Effective: uint32(s.effective >> 32), Permitted: uint32(s.permitted >> 32), Inheritable: uint32(s.inheritable >> 32)},
	}, unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
}

func (s capSets) set() error {
	data, header := s.words()
	err := unix.Capset(&header, &data[0])
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("capset: %w (a capability was asked for that kist does not own itself)", err)
	}
	return os.NewSyscallError("capset", err)
}

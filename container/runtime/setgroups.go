package runtime

import (
	"errors"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// setgroups is the raw call for this thread. Where a user namespace of a single
// id denies it, an empty wish is met as well as it can be: no group is gained.
func setgroups(groups []uint32) error {
	var p unsafe.Pointer
	if len(groups) > 0 {
		p = unsafe.Pointer(&groups[0])
	}
	_, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(p), 0)
	if errors.Is(e, unix.EPERM) && len(groups) == 0 {
		return nil
	}
	if e != 0 {
		return os.NewSyscallError("setgroups", e)
	}
	return nil
}

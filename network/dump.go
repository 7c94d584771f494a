package network

import (
	"errors"

	"github.com/vishvananda/netlink"
)

// dumpTries bounds how often a list is asked for that changes all the time.
const dumpTries = 100

// whole asks for a list of the kernel's again while it changed during the answer:
// entries may be missing then; see NLM_F_DUMP_INTR in netlink(7).
func whole[T any](dump func() ([]T, error)) ([]T, error) {
	for try := 1; ; try++ {
		list, err := dump()
		if !errors.Is(err, netlink.ErrDumpInterrupted) || try == dumpTries {
			return list, err
		}
	}
}

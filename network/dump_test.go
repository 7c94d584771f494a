package network

import (
	"errors"
	"testing"

	"github.com/vishvananda/netlink"
)

func TestInterruptedDumpsAreAskedForAgain(t *testing.T) {
	asked := 0
	list, err := whole(func() ([]int, error) {
		if asked++; asked < 3 {
			return []int{1}, netlink.ErrDumpInterrupted
		}
		return []int{1, 2}, nil
	})
	if err != nil || len(list) != 2 || asked != 3 {
		t.Errorf("whole = %v, %v after %d dumps, want both entries after 3", list, err, asked)
	}
	asked = 0
	if _, err := whole(func() ([]int, error) { asked++; return nil, netlink.ErrDumpInterrupted }); !errors.Is(err, netlink.ErrDumpInterrupted) || asked != dumpTries {
		t.Errorf("whole of what always changes = %v after %d dumps", err, asked)
	}
	failed := errors.New("failed")
	if _, err := whole(func() ([]int, error) { return nil, failed }); err != failed {
		t.Errorf("whole = %v, want %v", err, failed)
	}
}

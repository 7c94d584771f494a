package sys

import (
	"os"

	"golang.org/x/sys/unix"
)

// LoopbackUp brings up lo in this thread's network namespace.
// Like: ip link set lo up
func LoopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(s)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return os.NewSyscallError("bring up lo", unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, req))
}

// NewNetwork returns a network namespace with nothing but lo, which is up. It
// goes when the file is closed and no process is in it. See network_namespaces(7).
func NewNetwork() (ns *os.File, err error) {
	err = OnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return os.NewSyscallError("unshare network", err)
		}
		if err := LoopbackUp(); err != nil {
			return err
		}
		ns, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	return ns, err
}

package sys

import (
	"os"
	"runtime"

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
func NewNetwork() (*os.File, error) {
	type answer struct {
		f   *os.File
		err error
	}
	got := make(chan answer)
	go func() {
		runtime.LockOSThread() // and dies with this goroutine
		var a answer
		if a.err = os.NewSyscallError("unshare network", unix.Unshare(unix.CLONE_NEWNET)); a.err == nil {
			a.err = LoopbackUp()
		}
		if a.err == nil {
			a.f, a.err = os.Open("/proc/thread-self/ns/net")
		}
		got <- a
	}()
	a := <-got
	return a.f, a.err
}

package sys

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// sigaction is the kernel's struct; see rt_sigaction(2).
type sigaction struct{ handler, flags, restorer, mask uintptr }

const (
	sigIgnore  = 1
	lastSignal = 64
	maskSize   = lastSignal / 8
)

// ResetSignals makes the program that this thread is about to execute begin as
// one of a fresh login: no signal ignored, as a parent may have left it and
// execve(2) keeps it, none blocked.
func ResetSignals() {
	for n := uintptr(1); n <= lastSignal; n++ {
		var was, a sigaction
		_, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, n, 0, uintptr(unsafe.Pointer(&was)), maskSize, 0, 0)
		if e == 0 && was.handler == sigIgnore {
			unix.RawSyscall6(unix.SYS_RT_SIGACTION, n, uintptr(unsafe.Pointer(&a)), 0, maskSize, 0, 0)
		}
	}
	unix.PthreadSigmask(unix.SIG_SETMASK, new(unix.Sigset_t), nil)
}

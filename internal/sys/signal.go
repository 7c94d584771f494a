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

// ignoredSignals lists the signals that this process ignores. Its parent may have, and
// execve(2) keeps it so.
func ignoredSignals() []uintptr {
	var list []uintptr
	for n := uintptr(1); n <= lastSignal; n++ {
		var a sigaction
		_, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, n, 0, uintptr(unsafe.Pointer(&a)), maskSize, 0, 0)
		if e == 0 && a.handler == sigIgnore {
			list = append(list, n)
		}
	}
	return list
}

// ResetSignals makes the program that this thread is about to execute begin as
// one of a fresh login: no signal ignored, none blocked.
func ResetSignals() {
	var a sigaction
	for _, n := range ignoredSignals() {
		unix.RawSyscall6(unix.SYS_RT_SIGACTION, n, uintptr(unsafe.Pointer(&a)), 0, maskSize, 0, 0)
	}
	unix.PthreadSigmask(unix.SIG_SETMASK, new(unix.Sigset_t), nil)
}

// ResetSignals is the function of that name for the child.
func (s *Script) ResetSignals() {
	action := Data(s, new(sigaction))
	for _, n := range ignoredSignals() {
		s.Call("rt_sigaction", unix.SYS_RT_SIGACTION, n, action, 0, maskSize)
	}
	s.Call("rt_sigprocmask", unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, Data(s, new(unix.Sigset_t)), 0, maskSize)
}

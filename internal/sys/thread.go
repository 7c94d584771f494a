package sys

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// OnThread runs f on a thread that ends with it, and with it whatever f did to the
// thread's namespaces, working directory or ids. It is never the process's first
// thread, which stays to the end, and which /proc/PID shows.
func OnThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			done <- f()
			return // and the thread, still locked, ends
		}
		// While this goroutine holds the first thread no other can get it.
		done <- OnThread(f)
		runtime.UnlockOSThread()
	}()
	return <-done
}

// AsOwner runs f OnThread, where new files belong to uid and gid. All capabilities
// stay, which the kernel takes with the first of both ids: see capabilities(7).
func AsOwner(uid, gid int, f func() error) error {
	return OnThread(func() error {
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		if err := unix.Capget(&header, &data[0]); err != nil {
			return os.NewSyscallError("capget", err)
		}
		// Neither reports an error.
		unix.Setfsgid(gid)
		unix.Setfsuid(uid)
		if err := unix.Capset(&header, &data[0]); err != nil {
			return os.NewSyscallError("capset", err)
		}
		return f()
	})
}

// InNetwork runs f OnThread, in the network namespace ns.
func InNetwork(ns *os.File, f func() error) error {
	return OnThread(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return os.NewSyscallError("enter network namespace", err)
		}
		return f()
	})
}

// InMounts runs f OnThread, in the mount namespace ns.
func InMounts(ns *os.File, f func() error) error {
	return OnThread(func() error {
		if err := EnterMounts(ns); err != nil {
			return err
		}
		return f()
	})
}

// EnterMounts moves this thread to the mount namespace ns.
func EnterMounts(ns *os.File) error {
	// A thread that shares its working directory with others cannot.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	return os.NewSyscallError("enter mount namespace", unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS))
}

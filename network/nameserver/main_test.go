package nameserver

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestMain runs the tests in a network namespace of their own, which plays the
// host: there port 53 is free.
func TestMain(m *testing.M) {
	const played = "KIST_TEST_HOST"
	if os.Geteuid() != 0 || os.Getenv(played) != "" {
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), played+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread()
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func needRoot(tb testing.TB) {
	tb.Helper()
	if os.Getenv("KIST_TEST_HOST") == "" {
		tb.Skip("needs root, to make network namespaces")
	}
	if err := up("lo"); err != nil {
		tb.Fatal(err)
	}
}

func up(link string) error {
	l, err := netlink.LinkByName(link)
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(l)
}

// newSandbox makes a network namespace with nothing but lo.
func newSandbox(tb testing.TB) string {
	tb.Helper()
	needRoot(tb)
	path := filepath.Join(tb.TempDir(), "sandbox")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		tb.Fatal(err)
	}
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		result <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return err
			}
			if err := up("lo"); err != nil {
				return err
			}
			return unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
		}()
	}()
	if err := <-result; err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { unix.Unmount(path, unix.MNT_DETACH) })
	return path
}

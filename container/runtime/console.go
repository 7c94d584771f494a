package runtime

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// terminal opens a pseudo-terminal of the container's own devpts, makes it the
// controlling one of this session and of the standard streams, and shows it as
// /dev/console. The slave is opened through the master (TIOCGPTPEER, Linux
// 4.13), never by a name that the image could have put there.
func (p *initProcess) terminal() error {
	if !terminal(p.Spec) {
		return nil
	}
	master, err := os.OpenFile("/dev/pts/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return fmt.Errorf("open terminal: %w", err)
	}
	slave, err := openPeer(master)
	if err != nil {
		return err
	}
	defer slave.Close()
	if size := p.Spec.Process.ConsoleSize; size != nil {
		w := &unix.Winsize{Row: uint16(size.Height), Col: uint16(size.Width)}
		if err := unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, w); err != nil {
			return os.NewSyscallError("TIOCSWINSZ", err)
		}
	}
	if err := slave.Chown(int(p.Spec.Process.User.UID), -1); err != nil {
		return err
	}
	if err := showConsole(slave); err != nil {
		return err
	}
	p.console = master
	return takeTerminal(slave)
}

func openPeer(master *os.File) (*os.File, error) {
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		return nil, os.NewSyscallError("TIOCSPTLCK", err)
	}
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, master.Fd(), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return nil, os.NewSyscallError("TIOCGPTPEER", errno)
	}
	return os.NewFile(fd, "/dev/console"), nil
}

func showConsole(slave *os.File) error {
	fd, err := unix.Openat2(unix.AT_FDCWD, "/dev/console", &unix.OpenHow{
		Flags: unix.O_CREAT | unix.O_NOFOLLOW | unix.O_CLOEXEC | unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY,
		Mode:  0o666, Resolve: unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return fmt.Errorf("make /dev/console: %w", err)
	}
	target := os.NewFile(uintptr(fd), "/dev/console")
	defer target.Close()
	if err := bindOn(slave, target); err != nil {
		return fmt.Errorf("show /dev/console: %w", err)
	}
	return nil
}

func takeTerminal(slave *os.File) error {
	for fd := range 3 {
		if err := unix.Dup3(int(slave.Fd()), fd, 0); err != nil {
			return os.NewSyscallError("dup3", err)
		}
	}
	return os.NewSyscallError("TIOCSCTTY", unix.IoctlSetInt(0, unix.TIOCSCTTY, 0))
}

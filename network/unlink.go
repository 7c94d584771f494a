package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// removeLink removes a link of the host that may be gone already, with the
// namespace of its other end. Like: ip link del NAME
//
// The kernel answers ten milliseconds and more after nobody sees the link any
// longer: it waits for all processors to have forgotten it (netdev_run_todo). With
// NLM_F_ECHO it says before, since Linux 6.2, that the link is gone.
func removeLink(name string) error {
	if name == "" {
		return nil
	}
	err := deleteLink(name)
	if err != nil && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("remove link %s: %w", name, err)
	}
	return nil
}

func deleteLink(name string) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), "rtnetlink")
	req := nl.NewNetlinkRequest(unix.RTM_DELLINK, unix.NLM_F_ACK|unix.NLM_F_ECHO)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	read := make(chan struct{})
	defer close(read)
	go func() {
		defer f.Close()
		if _, err := f.Write(req.Serialize()); err != nil {
			f.SetReadDeadline(time.Now()) // there will be no answer
		}
		<-read
	}()
	return firstAnswer(f)
}

// firstAnswer reads an acknowledgement, or a message that stands for one.
func firstAnswer(f *os.File) error {
	buf := make([]byte, 8<<10)
	n, err := f.Read(buf)
	if err != nil {
		return err
	}
	if n < unix.SizeofNlMsghdr+4 {
		return unix.EBADMSG
	}
	if binary.NativeEndian.Uint16(buf[4:]) != unix.NLMSG_ERROR {
		return nil
	}
	if errno := -int32(binary.NativeEndian.Uint32(buf[unix.SizeofNlMsghdr:])); errno != 0 {
		return unix.Errno(errno)
	}
	return nil
}

package sys

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

const selfExe = "/proc/self/exe"

// ProtectedSelf opens this program's file so that whoever executes the
// descriptor, as /proc/self/fd/N, cannot be used to write to the file: a
// container that opens its /proc/PID/exe holds a file of a read-only mount
// (CVE-2019-5736). Where the file has been replaced, or its mount cannot be
// copied, it is a sealed copy in memory.
func ProtectedSelf() (*os.File, error) {
	if IsProtected() {
		return os.OpenFile(selfExe, unix.O_PATH|unix.O_CLOEXEC, 0)
	}
	f, err := readOnlySelf(selfExe)
	if err == nil {
		return f, nil
	}
	// A process that has changed its mount namespace has its own file in the old.
	if path, err := os.Readlink(selfExe); err == nil {
		if f, err := readOnlySelf(path); err == nil {
			return f, nil
		}
	}
	return sealedSelf()
}

// IsProtected reports whether this process was started from a ProtectedSelf: its
// file is then the root of a read-only mount that is in no namespace, or sealed.
func IsProtected() bool {
	f, err := os.Open(selfExe)
	if err != nil {
		return false
	}
	defer f.Close()
	if found, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0); err == nil && found&seals == seals {
		return true
	}
	var st unix.Statfs_t
	err = unix.Fstatfs(int(f.Fd()), &st)
	path, _ := os.Readlink(selfExe)
	return err == nil && st.Flags&unix.ST_RDONLY != 0 && path == "/"
}

// readOnlySelf makes a detached read-only mount of the file at path, if that is
// this program.
func readOnlySelf(path string) (*os.File, error) {
	f, err := Clone(nil, path, false, 0)
	if err != nil {
		return nil, err
	}
	if err := SetAttr(f, false, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
		f.Close()
		return nil, err
	}
	self, err := os.Stat(selfExe)
	if err == nil {
		var found os.FileInfo
		if found, err = f.Stat(); err == nil && !os.SameFile(self, found) {
			err = errors.New("another file")
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

// sealedSelf copies the program. See memfd_create(2).
func sealedSelf() (*os.File, error) {
	fd, err := unix.MemfdCreate("kist", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	memory := os.NewFile(uintptr(fd), "kist")
	defer memory.Close()
	if err := copySelf(memory); err != nil {
		return nil, err
	}
	// Opened anew: what is open for writing cannot be executed (ETXTBSY).
	return os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
}

const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE

func copySelf(to *os.File) error {
	self, err := os.Open(selfExe)
	if err != nil {
		return err
	}
	defer self.Close()
	if _, err := io.Copy(to, self); err != nil {
		return err
	}
	if err := to.Chmod(0o500); err != nil {
		return err
	}
	_, err = unix.FcntlInt(to.Fd(), unix.F_ADD_SEALS, seals)
	return os.NewSyscallError("seal copy of kist", err)
}

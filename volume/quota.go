package volume

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/ui"
)

// See quotactl(2) and linux/fs.h; x/sys has no names for them.
const (
	fsGetXattr      = 0x801c581f // FS_IOC_FSGETXATTR
	fsSetXattr      = 0x401c5820 // FS_IOC_FSSETXATTR
	projectInherit  = 0x200      // FS_XFLAG_PROJINHERIT
	setQuota        = 0x800008   // Q_SETQUOTA
	projectQuota    = 2          // PRJQUOTA
	blockLimitValid = 1          // QIF_BLIMITS
)

// fsAttr is struct fsxattr.
type fsAttr struct {
	Flags, ExtentSize, Extents, Project, CowExtentSize uint32
	_                                                  [8]byte
}

// diskQuota is struct if_dqblk. Limits are in blocks of 1024 bytes.
type diskQuota struct {
	HardBlocks, SoftBlocks, Space, HardInodes, SoftInodes, Inodes, BlockTime, InodeTime uint64
	Valid                                                                               uint32
	_                                                                                   uint32
}

// Limit bounds what dirs, all of one file system, and all that is made in them
// may hold together, by a project quota (ext4 and XFS mounted with prjquota), and
// returns the project's number. They must be empty: what is there is not counted.
func Limit(bytes int64, dirs ...string) (uint32, error) {
	var number [4]byte
	rand.Read(number[:])
	// Low numbers are the administrator's, who writes them by hand.
	project := binary.NativeEndian.Uint32(number[:])&0x3fffffff | 0x40000000
	for i, dir := range dirs {
		f, err := os.Open(dir)
		if err != nil {
			return 0, err
		}
		if i == 0 {
			err = setLimit(f, project, bytes)
		}
		if err == nil {
			err = joinProject(f, project)
		}
		f.Close()
		if err != nil {
			return 0, err
		}
	}
	return project, nil
}

// setLimit is quotactl_fd(2), Linux 5.14.
func setLimit(f *os.File, project uint32, bytes int64) error {
	q := diskQuota{HardBlocks: uint64(bytes+1023) / 1024, SoftBlocks: uint64(bytes+1023) / 1024, Valid: blockLimitValid}
	_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, f.Fd(), setQuota<<8|projectQuota, uintptr(project), uintptr(unsafe.Pointer(&q)), 0, 0)
	if errno != 0 {
		return quotaError(errno)
	}
	return nil
}

// joinProject makes f, and what is made in it, the project's.
func joinProject(f *os.File, project uint32) error {
	var a fsAttr
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), fsGetXattr, uintptr(unsafe.Pointer(&a))); errno != 0 {
		return quotaError(errno)
	}
	a.Project, a.Flags = project, a.Flags|projectInherit
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), fsSetXattr, uintptr(unsafe.Pointer(&a))); errno != 0 {
		return quotaError(errno)
	}
	return nil
}

func quotaError(errno unix.Errno) error {
	err := fmt.Errorf("a size limit needs project quotas, which the file system of kist's root does not have: %w", errno)
	if errors.Is(errno, unix.EPERM) {
		err = fmt.Errorf("a size limit: project quotas are for the host's root only: %w", errno)
	}
	return ui.Hint(err, "mount it with -o prjquota (ext4: tune2fs -O quota,project); a tmpfs takes a size anywhere")
}

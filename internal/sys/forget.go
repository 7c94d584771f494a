package sys

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// ForgetFiles unmaps the pages of this program's file that were only read or
// executed: a process that is going to wait needs a tenth of what its start
// touched, and gets from the page cache what it touches again. See MADV_DONTNEED
// in madvise(2) and proc_pid_smaps(5).
func ForgetFiles() error {
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return err
	}
	defer f.Close()
	var from, to uintptr
	clean := false
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		w := strings.Fields(lines.Text())
		if !strings.HasSuffix(w[0], ":") {
			if _, err := fmt.Sscanf(w[0], "%x-%x", &from, &to); err != nil {
				return err
			}
			// Whatever is written would be lost; what has no file has no path.
			clean = !strings.Contains(w[1], "w") && strings.Contains(lines.Text(), "/")
			continue
		}
		// What was written before it became read-only is anonymous: the addresses that a
		// dynamic linker has filled in.
		if w[0] != "Anonymous:" || !clean || w[1] != "0" {
			continue
		}
		if _, _, e := unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED); e != 0 {
			return os.NewSyscallError("madvise", e)
		}
	}
	return lines.Err()
}

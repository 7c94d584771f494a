package sys

import (
	"bufio"
	"bytes"
	"errors"
	"os"
	"strconv"
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
	var from, to uint64
	clean := false
	// No line is kept: its copy would be a page of this process's own.
	for lines := bufio.NewScanner(f); ; {
		if !lines.Scan() {
			return lines.Err()
		}
		line := lines.Bytes()
		name, rest, _ := bytes.Cut(line, []byte(" "))
		if !bytes.HasSuffix(name, []byte(":")) {
			first, last, _ := strings.Cut(string(name), "-")
			var err, err2 error
			from, err = strconv.ParseUint(first, 16, 64)
			to, err2 = strconv.ParseUint(last, 16, 64)
			if err := errors.Join(err, err2); err != nil {
				return err
			}
			// Whatever is written would be lost; what has no file has no path.
			clean = rest[1] != 'w' && bytes.IndexByte(rest, '/') >= 0
			continue
		}
		// What was written before it became read-only is anonymous: the addresses that a
		// dynamic linker has filled in.
		if !clean || string(name) != "Anonymous:" || string(bytes.TrimSpace(rest)) != "0 kB" {
			continue
		}
		if _, _, e := unix.Syscall(unix.SYS_MADVISE, uintptr(from), uintptr(to-from), unix.MADV_DONTNEED); e != 0 {
			return os.NewSyscallError("madvise", e)
		}
	}
}

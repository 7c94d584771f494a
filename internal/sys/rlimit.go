package sys

import (
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// OpenFiles returns the RLIMIT_NOFILE that this process was started with. Package
// os has raised it, and syscall.Exec alone knows what it was: it puts it back
// before an execve, also before one that fails.
var OpenFiles = sync.OnceValue(func() unix.Rlimit {
	var now, first unix.Rlimit
	unix.Prlimit(0, unix.RLIMIT_NOFILE, nil, &now)
	syscall.Exec("", nil, nil)
	unix.Prlimit(0, unix.RLIMIT_NOFILE, &now, &first)
	return first
})

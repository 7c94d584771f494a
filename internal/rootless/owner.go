package rootless

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/ui"
)

// OwnerError words why an owner cannot be set: in a user namespace an id without
// a mapping is EINVAL, and EPERM means that the file is another user's.
func OwnerError(path string, uid, gid int, err error) error {
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EPERM) {
		return &os.PathError{Op: "chown", Path: path, Err: err}
	}
	caller := outsideUID()
	if path != "" {
		path = " " + path
	}
	text := fmt.Errorf("give%s to uid %d, gid %d: not possible for uid %d: %w", path, uid, gid, caller, err)
	return ui.Hint(text, "an id needs a range of yours in /etc/subuid and /etc/subgid (usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER), and a file must be owned by one of them")
}

// outsideUID is the caller's uid outside this user namespace.
func outsideUID() int {
	var inside, outside, size int
	data, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return os.Geteuid()
	}
	for line := range strings.Lines(string(data)) {
		if _, err := fmt.Sscan(line, &inside, &outside, &size); err == nil && inside == 0 && os.Geteuid() == 0 {
			return outside
		}
	}
	return os.Geteuid()
}

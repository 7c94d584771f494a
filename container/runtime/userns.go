package runtime

import (
	"errors"
	"fmt"
	"os"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/sys"
)

// UserNamespace makes a user namespace of the given mapping and opens it, for
// mount_setattr(2) with MOUNT_ATTR_IDMAP. The process that held it for a moment is
// gone when this returns.
func UserNamespace(uids, gids []specs.LinuxIDMapping) (*os.File, error) {
	var s sys.Script
	s.Pause()
	holder, err := s.Begin(unix.CLONE_NEWUSER|unix.CLONE_VM, nil)
	if err != nil {
		return nil, fmt.Errorf("user namespace: %w", err)
	}
	defer holder.Kill()
	dir := fmt.Sprintf("/proc/%d/", holder.Pid)
	// The kernel lets root of the parent namespace write them, and takes one write.
	err = errors.Join(
		os.WriteFile(dir+"uid_map", mapText(uids), 0),
		os.WriteFile(dir+"gid_map", mapText(gids), 0))
	if err != nil {
		return nil, err
	}
	return os.Open(dir + "ns/user")
}

// mapText is the format of user_namespaces(7).
func mapText(mappings []specs.LinuxIDMapping) []byte {
	var b strings.Builder
	for _, m := range mappings {
		fmt.Fprintf(&b, "%d %d %d\n", m.ContainerID, m.HostID, m.Size)
	}
	return []byte(b.String())
}

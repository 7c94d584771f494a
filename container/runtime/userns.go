package runtime

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/reexec"
)

// userNamespace makes a user namespace of the given mapping and opens it. The
// process that held it for a moment is gone when this returns.
func userNamespace(uids, gids []specs.LinuxIDMapping) (*os.File, error) {
	ours, theirs, err := reexec.Pair()
	if err != nil {
		return nil, err
	}
	defer ours.Close()
	cmd := reexec.Command(context.Background(), Role, strconv.Itoa(firstExtraFd))
	cmd.ExtraFiles = []*os.File{theirs.File()}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, UidMappings: idMap(uids), GidMappings: idMap(gids)}
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		return nil, err
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	return os.Open(fmt.Sprintf("/proc/%d/ns/user", cmd.Process.Pid))
}

package runtime

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"syscall"

	"github.com/opencontainers/cgroups"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/reexec"
	"github.com/kist-containers/kist/internal/sys"
)

// A Spare is an init started before it is known of which container: its start
// takes as long as the preparation of a container, and so overlaps with it.
type Spare struct {
	pid  int
	conn *reexec.Conn
}

// Prestart clones an init into a pid namespace of its own. It shares the calling
// thread's other namespaces until it is told of its container, and ends with the
// caller. On a host with cgroup v2 alone it returns nil: there init is cloned
// into its cgroup, as moving a process takes longer than starting one.
func Prestart() (*Spare, error) {
	if unifiedCgroups() {
		return nil, nil
	}
	ours, theirs, err := reexec.Pair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	binary, err := sys.ProtectedSelf()
	if err != nil {
		ours.Close()
		return nil, fmt.Errorf("protect kist's binary: %w", err)
	}
	// It stays open until the execve or the end of this process: letting go of its
	// mount takes the kernel a millisecond, which the container need not wait for.
	c := &initCommand{binary: binary, extra: []*os.File{theirs.File()}, argv: []string{Role, strconv.Itoa(firstExtraFd)}}
	pid, err := c.start(&syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID})
	if err != nil {
		ours.Close()
		return nil, fmt.Errorf("start spare init: %w", err)
	}
	warmUp()
	return &Spare{pid, ours}, nil
}

// warmUp does what this process will do only once, and may as well do while it
// waits: encoding/json takes most of a millisecond to know the type of a
// specification, and the mounted cgroups are looked up.
func warmUp() {
	knowSpec()
	cgroups.FindCgroupMountpoint("", "memory")
}

func knowSpec() { json.Unmarshal([]byte("{}"), new(setup)) }

// Abort ends a spare that is of no use. A nil one needs nothing.
func (s *Spare) Abort() {
	if s != nil {
		(&Process{pid: s.pid, conn: s.conn}).kill()
	}
}

// fits reports whether the spare can become this container's init: what it
// cannot change about itself is its pid namespace, its user and the descriptors
// above the standard ones.
func (s *Spare) fits(spec *specs.Spec, o CreateOptions) bool {
	return s != nil && isNew(spec, specs.PIDNamespace) && namespace(spec, specs.UserNamespace) == nil &&
		len(o.ExtraFiles) == 0 && !o.Detached
}

// process is the spare as a container's own.
func (s *Spare) process(spec *specs.Spec) *Process {
	return &Process{pid: s.pid, conn: s.conn, hooks: laterHooks(spec.Hooks).poststart()}
}

// adopted completes the message to a spare; the files go with it, first the
// calling thread's mount namespace, in which the root file system is.
func (o *CreateOptions) adopted(spec *specs.Spec, m *setup) ([]*os.File, error) {
	if o.Spare == nil {
		return nil, nil
	}
	mounts, err := os.Open("/proc/thread-self/ns/mnt")
	if err != nil {
		return nil, err
	}
	m.Adopt, m.Unshare = true, newFlags(spec)&^unix.CLONE_NEWPID
	files := []*os.File{mounts}
	for fd, f := range o.streams(spec) {
		if m.Streams[fd] = f != nil; f != nil {
			files = append(files, f)
		}
	}
	return files, nil
}

// adopt takes what a spare lacks, from the first of files, and returns the rest.
func (m *setup) adopt(files []*os.File) ([]*os.File, error) {
	if !m.Adopt {
		return files, nil
	}
	// A thread that shares its working directory cannot change namespaces.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return nil, os.NewSyscallError("unshare", err)
	}
	if err := unix.Setns(int(files[0].Fd()), unix.CLONE_NEWNS); err != nil {
		return nil, os.NewSyscallError("setns", err)
	}
	if err := unix.Unshare(int(m.Unshare)); err != nil {
		return nil, os.NewSyscallError("unshare", err)
	}
	used := 1
	for fd, given := range m.Streams {
		if given {
			if err := unix.Dup3(int(files[used].Fd()), fd, 0); err != nil {
				return nil, os.NewSyscallError("dup3", err)
			}
			used++
		}
	}
	closeAll(files[:used])
	return files[used:], nil
}

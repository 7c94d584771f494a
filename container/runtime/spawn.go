package runtime

import (
	"fmt"
	"os"
	goruntime "runtime"
	"slices"
	"strconv"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/reexec"
	"github.com/kist-containers/kist/internal/rootless"
	"github.com/kist-containers/kist/internal/sys"
)

// startInit clones kist-init into all new namespaces at once. It waits for its
// setup, which lets the cgroup be made while it starts. With a listener, which
// this closes, it waits there for the word to start.
func startInit(rec *record, spec *specs.Spec, o CreateOptions, g *group, listener *os.File) (*Process, error) {
	ours, theirs, err := reexec.Pair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	extra := append(o.ExtraFiles[:len(o.ExtraFiles):len(o.ExtraFiles)], theirs.File())
	if listener != nil {
		defer listener.Close()
		extra = append(extra, listener)
	}
	binary, err := sys.ProtectedSelf()
	if err != nil {
		ours.Close()
		return nil, fmt.Errorf("protect kist's binary: %w", err)
	}
	defer binary.Close()
	cgroup, err := g.directory(rec)
	if err != nil {
		ours.Close()
		return nil, err
	}
	defer cgroup.Close()
	start := startNew
	if joinPath(spec, specs.UserNamespace) != "" {
		start = startInUserNamespace
	}
	pid, err := start(spec, &initCommand{
		binary: binary, cgroup: cgroup, streams: o.streams(spec), extra: extra,
		argv: []string{Role, strconv.Itoa(firstExtraFd + len(o.ExtraFiles))},
	})
	if err != nil {
		ours.Close()
		return nil, fmt.Errorf("make namespaces: %w", err)
	}
	return &Process{pid: pid, conn: ours, hooks: laterHooks(spec.Hooks).poststart()}, nil
}

// firstExtraFd follows the standard streams.
const firstExtraFd = 3

// initCommand is what is executed as kist-init.
type initCommand struct {
	binary  *os.File
	cgroup  *os.File // nil: it joins by itself
	argv    []string
	streams [3]*os.File // nil: /dev/null
	extra   []*os.File
}

// roleEnv makes Go start fast: one thread of work, and nothing to collect in a
// process that lives for milliseconds. The program gets its own environment.
var roleEnv = [...]string{"GOMAXPROCS=1", "GOGC=off"}

// streams are the standard ones; with a terminal init opens its own.
func (o *CreateOptions) streams(spec *specs.Spec) [3]*os.File {
	if terminal(spec) {
		return [3]*os.File{}
	}
	return [3]*os.File{o.Stdin, o.Stdout, o.Stderr}
}

// startNew clones init into its new namespaces.
func startNew(spec *specs.Spec, c *initCommand) (pid int, err error) {
	attr := &syscall.SysProcAttr{Cloneflags: newFlags(spec)}
	if c.cgroup != nil {
		attr.UseCgroupFD, attr.CgroupFD = true, int(c.cgroup.Fd())
	}
	if mapped(spec) {
		attr.UidMappings = idMap(spec.Linux.UIDMappings)
		attr.GidMappings = idMap(spec.Linux.GIDMappings)
		// Where this namespace has no leave to set groups, one below has none either.
		attr.GidMappingsEnableSetgroups = !rootless.DeniesGroups()
		if hasRoot(spec) {
			// Root of the new namespace before the execve, which would take all
			// capabilities from another.
			attr.Credential = &syscall.Credential{}
		} else {
			attr.AmbientCaps = everyCapability()
		}
	}
	err = inNamespaces(joinsBefore(spec), func() error {
		pid, err = c.start(attr)
		return err
	})
	return pid, err
}

// hasRoot reports whether the new user namespace has an id 0 of both kinds.
func hasRoot(spec *specs.Spec) bool {
	zero := func(m specs.LinuxIDMapping) bool { return m.ContainerID == 0 }
	return slices.ContainsFunc(spec.Linux.UIDMappings, zero) && slices.ContainsFunc(spec.Linux.GIDMappings, zero)
}

// everyCapability are the numbers that the kernel knows.
func everyCapability() []uintptr {
	var all []uintptr
	for c := range uintptr(64) {
		// EINVAL: beyond the last one.
		if _, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c, 0, 0, 0); err != nil {
			break
		}
		all = append(all, c)
	}
	return all
}

// start runs the command; the caller reaps the pid.
func (c *initCommand) start(attr *syscall.SysProcAttr) (int, error) {
	return sys.SpawnFile(c.binary, c.argv, append(c.streams[:], c.extra...), syscall.ProcAttr{Env: roleEnv[:], Sys: attr})
}

// An entrance is a namespace that this thread enters for a moment.
type entrance struct {
	path string
	flag uintptr
	// own is the file of the thread's own namespace.
	own string
}

// joinsBefore lists the namespaces that the caller's thread has to be in when it
// clones init: the pid namespace is entered by children alone, and a namespace of
// the host's cannot be entered any more from a user namespace below.
func joinsBefore(spec *specs.Spec) []entrance {
	var list []entrance
	for _, n := range nsFlags {
		path := joinPath(spec, n.kind)
		switch {
		case path == "" || n.kind == specs.UserNamespace:
		case n.kind == specs.PIDNamespace:
			list = append(list, entrance{path, n.flag, "pid_for_children"})
		case namespace(spec, specs.UserNamespace) != nil:
			list = append(list, entrance{path, n.flag, n.file})
		}
	}
	return list
}

// inNamespaces calls start with this thread in other namespaces. It does so on
// the caller's thread, which may have a mount namespace that no other thread has.
func inNamespaces(list []entrance, start func() error) error {
	if len(list) == 0 {
		return start()
	}
	goruntime.LockOSThread()
	defer goruntime.UnlockOSThread()
	n := list[0]
	before, err := os.Open("/proc/thread-self/ns/" + n.own)
	if err != nil {
		return err
	}
	defer before.Close()
	target, err := os.Open(n.path)
	if err != nil {
		return err
	}
	defer target.Close()
	if err := unix.Setns(int(target.Fd()), int(n.flag)); err != nil {
		return os.NewSyscallError("setns "+n.path, err)
	}
	err = inNamespaces(list[1:], start)
	if back := unix.Setns(int(before.Fd()), int(n.flag)); back != nil {
		// A thread that would fork into a container is of no use to anyone.
		panic(os.NewSyscallError("setns back", back))
	}
	return err
}

// startInUserNamespace starts init in an existing user namespace, which only a
// process of one thread may join; the other new namespaces then belong to it.
func startInUserNamespace(spec *specs.Spec, c *initCommand) (int, error) {
	var s sys.Script
	list := append(joinsBefore(spec), entrance{joinPath(spec, specs.UserNamespace), unix.CLONE_NEWUSER, "user"})
	for _, n := range list {
		f, err := os.Open(n.path)
		if err != nil {
			return 0, err
		}
		defer f.Close()
		fd, err := s.Fd(f)
		if err != nil {
			return 0, err
		}
		s.Call("join "+n.own+" namespace", unix.SYS_SETNS, fd, 0)
	}
	s.Call("become root of the user namespace", unix.SYS_SETRESGID, 0, 0, 0)
	s.Call("become root of the user namespace", unix.SYS_SETRESUID, 0, 0, 0)
	s.Call("unshare", unix.SYS_UNSHARE, newFlags(spec))
	if namespace(spec, specs.PIDNamespace) != nil {
		s.Fork()
	}
	binary, err := s.Fd(c.binary)
	if err != nil {
		return 0, err
	}
	if err := c.files(&s); err != nil {
		return 0, err
	}
	s.Exec([]string{fmt.Sprintf("/proc/self/fd/%d", binary)}, c.argv, roleEnv[:])
	return s.Start()
}

// files lays out the descriptors 0, 1, 2, …
func (c *initCommand) files(s *sys.Script) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	all := append(c.streams[:], c.extra...)
	for i, f := range all {
		if f == nil {
			all[i] = null
		}
	}
	return s.Stdio(all...)
}

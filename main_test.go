package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kist-containers/kist/internal/reexec"
	"github.com/kist-containers/kist/internal/ui"
)

// TestMain lets the test binary play every role of kist, and kist itself.
func TestMain(m *testing.M) {
	reexec.Dispatch(roles())
	testscript.Main(inOwnNamespaces{m}, map[string]func(){
		"kist": func() { os.Exit(run(os.Args[1:], ui.Std())) },
	})
}

// inOwnNamespaces runs the tests in a network namespace of their own, so that no
// bridge and no firewall rule of a test is the machine's, and in a mount
// namespace, for the cgroups that the peers want.
type inOwnNamespaces struct{ m *testing.M }

const ownNamespaces = "KIST_TEST_OWN_NAMESPACES"

func (t inOwnNamespaces) Run() int {
	if os.Geteuid() != 0 || os.Getenv(ownNamespaces) != "" {
		defer hybridCgroups()()
		return t.m.Run()
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), ownNamespaces+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGTERM}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return exit.ExitCode()
	case err != nil:
		return t.m.Run() // no namespaces here: the scripts say what they need
	}
	return 0
}

// hybridCgroups mounts the one controller that a hybrid machine has left to
// cgroup v2: crun and podman refuse such a machine. The mount is this
// namespace's; an error shows in what the peers say.
func hybridCgroups() (undo func()) {
	const top, dir = "/sys/fs/cgroup", "/sys/fs/cgroup/hugetlb"
	if left, _ := os.ReadFile(top + "/unified/cgroup.controllers"); string(left) != "hugetlb\n" || os.Getenv(ownNamespaces) == "" {
		return func() {}
	}
	syscall.Mount("", top, "", syscall.MS_PRIVATE|syscall.MS_REC, "")
	made := os.Mkdir(dir, 0o755) == nil
	syscall.Mount("cgroup", dir, "cgroup", 0, "hugetlb")
	return func() {
		if syscall.Unmount(dir, 0) == nil && made {
			os.RemoveAll(dir) // with what crun made there for want of the mount
		}
	}
}

// TestScripts types commands as a user would: testdata/script/*.txtar, each
// with roots of its own. $BUSYBOX is a root file system as a tar archive.
func TestScripts(t *testing.T) {
	archive := filepath.Join(t.TempDir(), "busybox.tar")
	errBusybox := writeBusybox(archive)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Condition:           condition(errBusybox),
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"as-user": asUser, "status": status},
		Setup: func(env *testscript.Env) error {
			return setup(env, archive)
		},
	})
}

// status runs a command and wants it to end with an exit status: status 125 kist ps --foo.
func status(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N PROGRAM [ARG]...")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%q: %v", args[1:], err)
	}
	if fmt.Sprint(got) != args[0] {
		ts.Fatalf("%q: exit status %d, want %s", args[1:], got, args[0])
	}
}

// userID is somebody without an entry in passwd(5), subuid(5) and subgid(5).
const userID = "23456"

// asUser runs a command as an unprivileged user, in a home of its own.
func asUser(ts *testscript.TestScript, neg bool, args []string) {
	home := ts.Getenv("USERHOME")
	err := ts.Exec("setpriv", append([]string{
		"--reuid=" + userID, "--regid=" + userID, "--clear-groups", "--inh-caps=-all",
		"env", "-i", "--chdir=" + home, "PATH=" + home + "/bin:/usr/bin:/bin", "HOME=" + home, "XDG_RUNTIME_DIR=" + home,
	}, args...)...)
	if (err != nil) != neg {
		ts.Fatalf("%q: %v", args, err)
	}
}

// userNamespaces reports whether anybody may make them.
func userNamespaces() bool {
	cmd := exec.Command("setpriv", "--reuid="+userID, "--regid="+userID, "--clear-groups", "unshare", "-U", "true")
	return cmd.Run() == nil
}

// condition answers what a script may ask for: [root], [busybox], [userns],
// [prog:NAME], and [v1] or [v2] for the cgroups that there are.
func condition(errBusybox error) func(string) (bool, error) {
	return func(cond string) (bool, error) {
		name, found := strings.CutPrefix(cond, "prog:")
		switch {
		case cond == "root":
			return os.Geteuid() == 0, nil
		case cond == "v1", cond == "v2":
			_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
			return (err == nil) == (cond == "v2"), nil
		case cond == "busybox":
			return errBusybox == nil, nil
		case cond == "userns":
			return userNamespaces(), nil
		case found:
			_, err := exec.LookPath(name)
			return err == nil, nil
		}
		return false, fmt.Errorf("unknown condition %q", cond)
	}
}

func setup(env *testscript.Env, archive string) error {
	// Short, because the path of a socket has only 107 bytes.
	run, err := os.MkdirTemp("", "kist")
	if err != nil {
		return err
	}
	env.Setenv("KIST_ROOT", filepath.Join(env.WorkDir, "root"))
	env.Setenv("KIST_RUNROOT", run)
	env.Setenv("KIST_CGROUP_PARENT", "/kist-test-"+filepath.Base(run))
	env.Setenv("BUSYBOX", archive)
	env.Setenv("HOME", env.WorkDir)
	if err := setupUser(env, run); err != nil {
		return err
	}
	env.Defer(func() {
		clean(env)
		os.RemoveAll(run)
	})
	return nil
}

// setupUser gives as-user a home that it can reach, and names the binary.
func setupUser(env *testscript.Env, run string) error {
	kist, err := exec.LookPath("kist")
	if err != nil {
		return err
	}
	env.Setenv("KIST", kist)
	if os.Geteuid() != 0 {
		return nil
	}
	home := run + "-user"
	if err := os.Mkdir(home, 0o700); err != nil {
		return err
	}
	env.Defer(func() { os.RemoveAll(home) })
	env.Setenv("USERHOME", home)
	id, err := strconv.Atoi(userID)
	return errors.Join(err, os.Chown(home, id, id))
}

// clean removes whatever a script left, through kist itself.
func clean(env *testscript.Env) {
	for _, args := range [][]string{{"rm", "--force", "--all"}, {"network", "prune", "--force"}, {"system", "check", "--repair"}} {
		cmd := exec.Command("kist", args...)
		cmd.Env = env.Vars
		cmd.Run()
	}
	removeCgroups(env.Getenv("KIST_CGROUP_PARENT"))
}

// removeCgroups removes the parent of a script's cgroups from each hierarchy, as
// far as nothing lives below: kist keeps parents, which may be the user's.
func removeCgroups(parent string) {
	for _, hierarchies := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		tops, _ := filepath.Glob(hierarchies + parent)
		for _, top := range tops {
			var dirs []string
			filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					dirs = append(dirs, path)
				}
				return nil
			})
			for _, dir := range slices.Backward(dirs) {
				os.Remove(dir)
			}
		}
	}
}

// applets are the programs of busybox that scripts use.
var applets = strings.Fields(`sh ash cat ls echo true false sleep id env ps ip mount umount mkdir rm touch stat grep
	sed awk head tail wc kill nc ping wget httpd hostname dd tr seq yes sort cut date test tty stty chmod chown ln
	readlink find sync top printf od md5sum sha256sum nslookup whoami uname df du cp mv mknod adduser trap timeout
	nproc nsenter unshare chroot tar gzip usleep expr basename dirname pwd unlink mkfifo taskset renice free`)

// writeBusybox makes a small root file system out of the machine's static busybox.
func writeBusybox(path string) (err error) {
	data, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := tar.NewWriter(f)
	for _, d := range []string{"bin/", "etc/", "tmp/", "root/", "home/", "var/"} {
		mode := int64(0o755)
		if d == "tmp/" {
			mode = 0o1777
		}
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: d, Mode: mode})
	}
	addFile(w, "bin/busybox", 0o755, string(data))
	addFile(w, "etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/home:/bin/sh\n")
	addFile(w, "etc/group", 0o644, "root:x:0:\nann:x:1000:\naudio:x:63:ann\n")
	for _, a := range applets {
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + a, Linkname: "busybox", Mode: 0o777})
	}
	return w.Close()
}

func addFile(w *tar.Writer, name string, mode int64, text string) {
	w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(text))})
	io.WriteString(w, text)
}

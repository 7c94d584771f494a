package runtime

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/reexec"
	"github.com/kist-containers/kist/internal/sys"
)

func TestMain(m *testing.M) {
	if os.Args[0] == "/proc/self/exe" {
		time.Sleep(time.Minute) // a container's program that is this binary
	}
	reexec.Dispatch(Roles())
	// A builder wants a binary that no container can write to.
	if !sys.IsProtected() {
		if binary, err := sys.ProtectedSelf(); err == nil {
			err = unix.Exec(fmt.Sprintf("/proc/self/fd/%d", binary.Fd()), os.Args, os.Environ())
			fmt.Fprintln(os.Stderr, "tests without builders:", err)
		}
	}
	if dir := os.Getenv(createEnv); dir != "" {
		createAndWait(dir)
	}
	status := m.Run()
	// The parent of all cgroups here; kist keeps parents, which may be the user's.
	left, _ := filepath.Glob("/sys/fs/cgroup/*/kist-test")
	for _, dir := range append(left, "/sys/fs/cgroup/kist-test") {
		os.Remove(dir)
	}
	os.Exit(status)
}

// createEnv names the bundle that createAndWait makes a container of.
const createEnv = "KIST_TEST_CREATE"

func createAndWait(dir string) {
	r := &Runtime{Root: filepath.Join(dir, "state")}
	p, err := r.Create(context.Background(), filepath.Base(dir), CreateOptions{Bundle: dir})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(p.Pid())
	time.Sleep(time.Minute)
}

// A bundle is a busybox root file system with a spec like docker's default.
type bundle struct {
	t    testing.TB
	r    *Runtime
	id   string
	dir  string
	spec *specs.Spec
	// byInit keeps a builder out.
	byInit bool
}

func newBundle(t testing.TB, args ...string) *bundle {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip("needs /bin/busybox")
	}
	dir := t.TempDir()
	for _, d := range []string{"bin", "etc", "tmp", "proc", "sys", "dev"} {
		must(t, os.MkdirAll(filepath.Join(dir, "rootfs", d), 0o755))
	}
	must(t, os.WriteFile(filepath.Join(dir, "rootfs/bin/busybox"), busybox, 0o755))
	for _, a := range strings.Fields("mkdir sh true false cat ls sleep id echo mount readlink kill ps env pwd hostname mknod dd stat cut sort tr tty test head seq grep uname touch date usleep wc ip") {
		must(t, os.Symlink("busybox", filepath.Join(dir, "rootfs/bin", a)))
	}
	id := fmt.Sprintf("t%d-%s", os.Getpid(), filepath.Base(dir))
	return &bundle{t: t, r: &Runtime{Root: filepath.Join(dir, "state")}, id: id, dir: dir, spec: defaultSpec(id, args)}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var testCaps = strings.Fields("CAP_CHOWN CAP_DAC_OVERRIDE CAP_FSETID CAP_FOWNER CAP_MKNOD CAP_NET_RAW CAP_SETGID CAP_SETUID CAP_SETFCAP CAP_SETPCAP CAP_NET_BIND_SERVICE CAP_SYS_CHROOT CAP_KILL CAP_AUDIT_WRITE")

func defaultSpec(id string, args []string) *specs.Spec {
	plain := []string{"nosuid", "noexec", "nodev"}
	return &specs.Spec{
		Version: specs.Version,
		Root:    &specs.Root{Path: "rootfs"},
		Process: &specs.Process{Args: args, Cwd: "/", Env: []string{"PATH=/bin"},
			Capabilities: &specs.LinuxCapabilities{Bounding: testCaps, Effective: testCaps, Permitted: testCaps}},
		Hostname: "box",
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: plain},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: append(plain, "ro")},
			{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: append(plain, "ro")},
			{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: plain},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: append(plain, "mode=1777", "size=65536k")},
		},
		Linux: &specs.Linux{
			CgroupsPath: "/kist-test/" + id,
			Namespaces: []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.UTSNamespace},
				{Type: specs.IPCNamespace}, {Type: specs.NetworkNamespace}, {Type: specs.CgroupNamespace}},
			MaskedPaths:   []string{"/proc/kcore", "/proc/keys", "/sys/firmware", "/proc/nothere"},
			ReadonlyPaths: []string{"/proc/sys", "/proc/bus"},
		},
	}
}

// run runs the bundle to its end and returns what it printed and its status.
func (b *bundle) run() (string, unix.WaitStatus, error) {
	b.t.Helper()
	r, w, err := os.Pipe()
	must(b.t, err)
	defer r.Close()
	o := CreateOptions{Bundle: b.dir, Spec: b.spec, Stdout: w, Stderr: w, byInit: b.byInit}
	p, err := b.r.Create(context.Background(), b.id, o)
	w.Close()
	if err != nil {
		return "", 0, err
	}
	defer b.delete()
	if err := p.Start(); err != nil {
		return "", 0, err
	}
	out, _ := io.ReadAll(r)
	status, err := p.Wait()
	return string(out), status, err
}

func (b *bundle) delete() { must(b.t, b.r.Delete(context.Background(), b.id, true)) }

func (b *bundle) wantOutput(want string) {
	b.t.Helper()
	b.eachWay(func(how string) {
		out, status, err := b.run()
		if err != nil || status.ExitStatus() != 0 || out != want {
			b.t.Errorf("%s: %q = %q, status %d, %v; want %q", how, b.spec.Process.Args, out, status.ExitStatus(), err, want)
		}
	})
}

// eachWay runs a test with a builder, where the bundle can be made by one, and
// with an init.
func (b *bundle) eachWay(test func(how string)) {
	b.t.Helper()
	test("by builder")
	b.byInit = true
	test("by init")
	b.byInit = false
}

func TestRunInItsNamespaces(t *testing.T) {
	newBundle(t, "sh", "-c", "echo $$; hostname; pwd; ls /proc/self/fd | wc -l; id -u").wantOutput("1\nbox\n/\n4\n0\n")
}

// TestBuilderIsLikeInit sees that a container made by a thread has the same
// namespaces, cgroups, descriptors and limits as one made by an init.
func TestBuilderIsLikeInit(t *testing.T) {
	const look = `echo $$; hostname; pwd; ls -l /proc/self/fd | wc -l; ls -l /dev | cut -c1-10; cut -d' ' -f4-6 /proc/self/mountinfo | sort; ip addr | grep -c lo; cat /proc/self/cgroup; id
		grep -v -e ctxt -e Vm -e Rss -e allowed -e Pid -e Tgid -e NS /proc/self/status; cat /proc/self/limits; cat /proc/keys; tr '\0' '\n' < /proc/self/environ
		for n in cgroup ipc mnt net pid uts; do test $(readlink /proc/self/ns/$n) = $(readlink /proc/1/ns/$n) || echo other $n; done`
	b := newBundle(t, "sh", "-c", look)
	b.spec.Process.User.UID, b.spec.Process.User.AdditionalGids = 7, []uint32{9}
	if !b.r.byThread(b.spec, CreateOptions{}) {
		t.Skip("needs a binary that can be protected")
	}
	var want string
	b.eachWay(func(how string) {
		out, _, err := b.run()
		must(t, err)
		if want == "" {
			want = out
		}
		if out != want {
			t.Errorf("%s:\n%s\nother than:\n%s", how, out, want)
		}
	})
	for _, kind := range []specs.LinuxNamespaceType{specs.IPCNamespace, specs.MountNamespace, specs.NetworkNamespace, specs.PIDNamespace, specs.UTSNamespace} {
		file := map[specs.LinuxNamespaceType]string{specs.MountNamespace: "mnt", specs.NetworkNamespace: "net"}[kind]
		host, err := os.Readlink("/proc/self/ns/" + cmp.Or(file, string(kind)))
		must(t, err)
		b := newBundle(t, "readlink", "/proc/self/ns/"+cmp.Or(file, string(kind)))
		b.eachWay(func(how string) {
			if out, _, err := b.run(); err != nil || out == host+"\n" || out == "" {
				t.Errorf("%s: %s namespace is %q, %v; the host's is %q", how, kind, out, err, host)
			}
		})
	}
}

// TestCreatedEndsWithItsCreator: nobody else could start it.
func TestCreatedEndsWithItsCreator(t *testing.T) {
	b := newBundle(t, "true")
	b.id = filepath.Base(b.dir)
	b.spec.Linux.CgroupsPath = "/kist-test/" + b.id + strconv.Itoa(os.Getpid())
	must(t, WriteSpec(filepath.Join(b.dir, "config.json"), b.spec))
	creator := exec.Command("/proc/self/exe")
	creator.Args[0] = os.Args[0]
	creator.Env = append(os.Environ(), createEnv+"="+b.dir)
	out, err := creator.StdoutPipe()
	must(t, err)
	must(t, creator.Start())
	defer creator.Wait()
	var pid int
	_, err = fmt.Fscan(out, &pid)
	must(t, err)
	p, err := sys.ProcessOf(pid)
	must(t, err)
	must(t, creator.Process.Kill())
	for end := time.Now().Add(20 * time.Second); p.Alive(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("its first process still waits")
		}
	}
	b.delete()
}

func TestWorkingDirectory(t *testing.T) {
	b := newBundle(t, "sh", "-c", "pwd; stat -c %a:%u .")
	b.spec.Process.User.UID, b.spec.Process.Cwd = 7, "/not/there"
	b.wantOutput("/not/there\n755:0\n")
	b.spec.Process.Cwd = "/proc/self/net"
	b.spec.Process.Args = []string{"pwd"}
	b.wantOutput("/proc/1/net\n")
}

func TestExitStatusIsThePayloads(t *testing.T) {
	_, status, err := newBundle(t, "sh", "-c", "exit 7").run()
	if err != nil || status.ExitStatus() != 7 {
		t.Errorf("status = %v, %v; want 7", status, err)
	}
}

func TestProgramNotFoundAndNotExecutable(t *testing.T) {
	for args, want := range map[string]string{"nosuch": "not found", "/nosuch/x": "not found", "/etc": "not executable", "/bin/plain": "not executable"} {
		b := newBundle(t, args)
		must(t, os.WriteFile(b.dir+"/rootfs/bin/plain", []byte("x"), 0o644))
		_, _, err := b.run()
		var start *StartError
		if !errors.As(err, &start) || start.NotFound() != (want == "not found") || start.NotExecutable() != (want == "not executable") {
			t.Errorf("exec %s = %v, want %s", args, err, want)
		}
		if _, err := b.r.State(b.id); !errors.Is(err, ErrNotFound) {
			t.Errorf("after %s the state is %v, want none", args, err)
		}
	}
}

func TestCapabilitiesAndMasks(t *testing.T) {
	newBundle(t, "sh", "-c", "grep() { :; }; while read k v; do case $k in Cap*) echo $k $v;; esac; done < /proc/self/status").
		wantOutput("CapInh: 0000000000000000\nCapPrm: 00000000a80425fb\nCapEff: 00000000a80425fb\nCapBnd: 00000000a80425fb\nCapAmb: 0000000000000000\n")
	newBundle(t, "sh", "-c", "cat /proc/keys; ls /sys/firmware; echo 1 2>/dev/null >/proc/sys/kernel/domainname || echo ro").wantOutput("ro\n")
}

func TestExecJoinsEverything(t *testing.T) {
	b := newBundle(t, "sleep", "60")
	p, err := b.r.Create(context.Background(), b.id, CreateOptions{Bundle: b.dir, Spec: b.spec})
	must(t, err)
	defer b.delete()
	must(t, p.Start())
	for _, n := range nsFlags {
		link := "readlink /proc/self/ns/" + n.file + "; readlink /proc/1/ns/" + n.file
		out := b.exec("sh", "-c", link)
		if lines := strings.Fields(out); len(lines) != 2 || lines[0] != lines[1] {
			t.Errorf("%s of exec and of PID 1 = %q", n.file, out)
		}
	}
	if out := b.exec("cat", "/proc/self/cgroup"); out != b.exec("cat", "/proc/1/cgroup") {
		t.Errorf("cgroup of exec = %q", out)
	}
	if out := b.exec("ls", "/proc/self/fd"); out != "0\n1\n2\n3\n" {
		t.Errorf("descriptors of exec = %q", out)
	}
	_, err = b.r.Exec(context.Background(), b.id, &specs.Process{Args: []string{"nosuch"}, Cwd: "/", Env: []string{"PATH=/bin:/etc"}}, ExecOptions{})
	var start *StartError
	if !errors.As(err, &start) || !start.NotFound() {
		t.Errorf("exec of a missing program = %v", err)
	}
}

func (b *bundle) exec(args ...string) string {
	b.t.Helper()
	r, w, err := os.Pipe()
	must(b.t, err)
	defer r.Close()
	proc := *b.spec.Process
	proc.Args = args
	p, err := b.r.Exec(context.Background(), b.id, &proc, ExecOptions{Stdout: w, Stderr: w, Seccomp: b.spec.Linux.Seccomp})
	w.Close()
	must(b.t, err)
	out, _ := io.ReadAll(r)
	p.Wait()
	return string(out)
}

func TestTerminal(t *testing.T) {
	b := newBundle(t, "sh", "-c", "tty; test -t 0 && test -t 1 && echo yes; stat -c %t:%T /dev/console")
	b.spec.Process.Terminal = true
	b.spec.Process.ConsoleSize = &specs.Box{Height: 30, Width: 90}
	p, err := b.r.Create(context.Background(), b.id, CreateOptions{Bundle: b.dir, Spec: b.spec})
	must(t, err)
	defer b.delete()
	console := p.Console()
	defer console.Close()
	must(t, p.Start())
	var out bytes.Buffer
	io.Copy(&out, console) // ends with EIO when the last slave is closed
	p.Wait()
	if got := out.String(); !strings.Contains(got, "/dev/console") && !strings.Contains(got, "/dev/pts/0") || !strings.Contains(got, "yes") {
		t.Errorf("terminal prints %q", got)
	}
}

func TestMemoryLimitKillsAndIsTold(t *testing.T) {
	b := newBundle(t, "sh", "-c", "a=x; while :; do a=$a$a; done")
	limit := int64(32 << 20)
	b.spec.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit, Swap: &limit}}
	p, err := b.r.Create(context.Background(), b.id, CreateOptions{Bundle: b.dir, Spec: b.spec})
	must(t, err)
	defer b.delete()
	must(t, p.Start())
	status, err := p.Wait()
	if err != nil || status.Signal() != unix.SIGKILL {
		t.Errorf("status = %v, %v; want SIGKILL", status, err)
	}
	if oom, err := b.r.OOMKilled(b.id); !oom || err != nil {
		t.Errorf("OOMKilled = %v, %v", oom, err)
	}
}

// TestSeccompProfile runs programs under a profile that answers each kind of rule.
func TestSeccompProfile(t *testing.T) {
	errno := uint(unix.EDOM)
	profile := &specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32, specs.ArchAARCH64},
		Syscalls: []specs.LinuxSyscall{
			{Names: []string{"sethostname", "nosuchcall"}, Action: specs.ActErrno, ErrnoRet: &errno},
			{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActErrno},
			{Names: []string{"kill"}, Action: specs.ActErrno, ErrnoRet: &errno, Args: []specs.LinuxSeccompArg{{Index: 1, Value: 10, Op: specs.OpEqualTo}}},
		},
	}
	b := newBundle(t, "sh", "-c", "hostname x 2>&1; mkdir /tmp/x 2>&1; kill -10 1 2>&1; kill -0 1 && echo fine")
	b.spec.Linux.Seccomp = profile
	out, _, err := b.run()
	for _, want := range []string{"hostname: sethostname: Numerical argument out of domain", "can't create directory '/tmp/x': Operation not permitted", "fine"} {
		if !strings.Contains(out, want) {
			t.Errorf("output %q, %v; want %q in it", out, err, want)
		}
	}
}

func TestConfigOfStrangers(t *testing.T) {
	for _, text := range []string{`{}`, `{"root":{"path":"x"}}`, `{"root":{"path":"x"},"linux":{},"process":{"cwd":"/"}}`} {
		spec := new(specs.Spec)
		must(t, json.Unmarshal([]byte(text), spec))
		if err := validate(spec); err == nil {
			t.Errorf("validate(%s) = nil", text)
		}
	}
}

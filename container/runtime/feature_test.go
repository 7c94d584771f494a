package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func (b *bundle) namespace(kind specs.LinuxNamespaceType, path string) *bundle {
	for i, n := range b.spec.Linux.Namespaces {
		if n.Type == kind {
			b.spec.Linux.Namespaces[i].Path = path
			return b
		}
	}
	b.spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, specs.LinuxNamespace{Type: kind, Path: path})
	return b
}

func (b *bundle) mount(m specs.Mount) *bundle {
	b.spec.Mounts = append(b.spec.Mounts, m)
	return b
}

func TestTmpcopyup(t *testing.T) {
	b := newBundle(t, "sh", "-c", "cat /etc/a/b; readlink /etc/l; stat -c %u:%a /etc/a; mount | grep -c ' /etc '")
	must(t, os.Mkdir(b.root("etc/a"), 0o750))
	must(t, os.Chown(b.root("etc/a"), 12, 0))
	must(t, os.WriteFile(b.root("etc/a/b"), []byte("text\n"), 0o600))
	must(t, os.Symlink("/nowhere", b.root("etc/l")))
	b.mount(specs.Mount{Destination: "/etc", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup", "mode=755"}})
	b.wantOutput("text\n/nowhere\n12:750\n1\n")
}

func TestMountOptions(t *testing.T) {
	host := t.TempDir()
	must(t, os.Mkdir(host+"/sub", 0o755))
	b := newBundle(t, "sh", "-c", "for d in /ro /rw /again; do touch $d/x 2>/dev/null && echo $d; done; grep -E ' /(ro|opts|again) ' /proc/self/mountinfo | cut -d' ' -f6")
	b.mount(specs.Mount{Destination: "/ro", Type: "bind", Source: host, Options: []string{"rbind", "rro", "nosuid"}})
	b.mount(specs.Mount{Destination: "/rw", Type: "bind", Source: host, Options: []string{"bind", "sync", "loud"}})
	b.mount(specs.Mount{Destination: "/opts", Type: "tmpfs", Source: "tmpfs", Options: []string{"noexec", "nodev", "noatime", "nosymfollow", "size=1m", "lazytime", "dirsync"}})
	b.mount(specs.Mount{Destination: "/again", Type: "tmpfs", Source: "tmpfs"})
	b.mount(specs.Mount{Destination: "/again", Type: "bind", Source: "none", Options: []string{"bind", "remount", "ro"}})
	b.wantOutput("/rw\nro,nosuid,relatime\nrw,nodev,noexec,noatime,nosymfollow\nro,relatime\n")
}

func TestReadonlyRootKeepsItsMounts(t *testing.T) {
	b := newBundle(t, "sh", "-c", "touch /tmp/x 2>/dev/null || echo ro; touch /dev/shm/x && echo rw")
	b.spec.Root.Readonly = true
	b.wantOutput("ro\nrw\n")
}

func TestUserNamespaceAndJoiningIt(t *testing.T) {
	b := newBundle(t, "sleep", "60").namespace(specs.UserNamespace, "")
	b.spec.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
	b.spec.Linux.GIDMappings = []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
	must(t, os.Chmod(b.dir, 0o755))
	must(t, os.Chmod(filepath.Dir(b.dir), 0o755))
	p := b.start()
	var st unix.Stat_t
	must(t, unix.Stat(fmt.Sprintf("/proc/%d", p.Pid()), &st))
	if st.Uid != 100000 {
		t.Errorf("uid on the host = %d, want 100000", st.Uid)
	}
	if out := b.exec("cat", "/proc/self/uid_map"); strings.Join(strings.Fields(out), " ") != "0 100000 65536" {
		t.Errorf("uid_map of exec = %q", out)
	}
	other := newBundle(t, "sh", "-c", "readlink /proc/self/ns/user; hostname; id -u").namespace(specs.UserNamespace, fmt.Sprintf("/proc/%d/ns/user", p.Pid()))
	must(t, os.Chmod(other.dir, 0o755))
	must(t, os.Chmod(filepath.Dir(other.dir), 0o755))
	ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/user", p.Pid()))
	must(t, err)
	other.wantOutput(ns + "\nbox\n0\n")
}

func TestJoinNamespacesByPath(t *testing.T) {
	b := newBundle(t, "sleep", "60")
	p := b.start()
	other := newBundle(t, "sh", "-c", "for n in pid net ipc; do readlink /proc/self/ns/$n; done")
	other.spec.Hostname = ""
	var want string
	for kind, file := range map[specs.LinuxNamespaceType]string{specs.PIDNamespace: "pid", specs.NetworkNamespace: "net", specs.IPCNamespace: "ipc"} {
		other.namespace(kind, fmt.Sprintf("/proc/%d/ns/%s", p.Pid(), file))
	}
	for _, file := range []string{"pid", "net", "ipc"} {
		ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", p.Pid(), file))
		must(t, err)
		want += ns + "\n"
	}
	other.wantOutput(want)
}

func TestTimeNamespace(t *testing.T) {
	if _, err := os.Stat("/proc/self/ns/time"); err != nil {
		t.Skip("needs a kernel with time namespaces")
	}
	var name unix.Utsname
	must(t, unix.Uname(&name))
	var major, minor int
	fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &major, &minor)
	if major < 6 || major == 6 && minor < 3 {
		t.Skip("needs Linux 6.3: before, execve does not enter the time namespace")
	}
	b := newBundle(t, "cat", "/proc/uptime").namespace(specs.TimeNamespace, "")
	b.spec.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 1000000}}
	out, _, err := b.run()
	var up float64
	fmt.Sscan(out, &up)
	if err != nil || up < 1000000 {
		t.Errorf("uptime = %q, %v; want more than 1000000 s", out, err)
	}
}

func TestPersonalityAndMemoryPolicy(t *testing.T) {
	b := newBundle(t, "sh", "-c", "uname -m; grep -c bind /proc/self/numa_maps >/dev/null && echo bind")
	b.spec.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32}
	out, _, err := b.run()
	if err != nil || !strings.HasPrefix(out, "i686\n") && !strings.HasPrefix(out, "armv8l\n") {
		t.Errorf("uname -m = %q, %v", out, err)
	}
	b.spec.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "0"}
	if out, _, err := b.run(); errors.Is(err, unix.ENOSYS) {
		t.Log("this kernel has no NUMA")
	} else if err != nil || !strings.Contains(out, "bind") {
		t.Errorf("with MPOL_BIND = %q, %v", out, err)
	}
}

func TestExtraFilesArrive(t *testing.T) {
	b := newBundle(t, "sh", "-c", "cat <&3; cat <&4; ls /proc/self/fd")
	var files []*os.File
	for _, text := range []string{"three\n", "four\n"} {
		name := filepath.Join(t.TempDir(), "x")
		must(t, os.WriteFile(name, []byte(text), 0o600))
		f, err := os.Open(name)
		must(t, err)
		defer f.Close()
		files = append(files, f)
	}
	out, err := os.CreateTemp(t.TempDir(), "")
	must(t, err)
	defer out.Close()
	p, err := b.r.Create(context.Background(), b.id, CreateOptions{Bundle: b.dir, Spec: b.spec, Stdout: out, Stderr: out, ExtraFiles: files})
	must(t, err)
	defer b.delete()
	must(t, p.Start())
	p.Wait()
	if got, _ := os.ReadFile(out.Name()); string(got) != "three\nfour\n0\n1\n2\n3\n4\n5\n" {
		t.Errorf("output = %q", got)
	}
}

// TestLifecycleAndHooks follows a container that one process creates and another
// may start through the specification's steps.
func TestLifecycleAndHooks(t *testing.T) {
	b := newBundle(t, "sleep", "60")
	log := filepath.Join(t.TempDir(), "log")
	hook := func(name string) []specs.Hook {
		script := fmt.Sprintf(`read -r s; echo "%s $(echo $s | grep -o '"status":"[a-z]*"')" >>%s`, name, log)
		return []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", script}, Env: []string{"PATH=/usr/bin:/bin"}}}
	}
	b.spec.Hooks = &specs.Hooks{
		Prestart: hook("prestart"), CreateRuntime: hook("createRuntime"), CreateContainer: hook("createContainer"),
		Poststart: hook("poststart"), Poststop: hook("poststop"),
		StartContainer: []specs.Hook{{Path: "/bin/touch", Args: []string{"touch", "/tmp/started"}}},
	}
	ctx := context.Background()
	p, err := b.r.Create(ctx, b.id, CreateOptions{Bundle: b.dir, Spec: b.spec, Detached: true})
	must(t, err)
	b.wantState("created")
	if err := b.r.Delete(ctx, b.id+"x", false); !errors.Is(err, ErrNotFound) {
		t.Errorf("delete of another = %v", err)
	}
	if _, err := b.r.Create(ctx, b.id, CreateOptions{Bundle: b.dir, Spec: b.spec}); !errors.Is(err, ErrExists) {
		t.Errorf("second create = %v", err)
	}
	must(t, b.r.Start(ctx, b.id))
	b.wantState("running")
	if err := b.r.Start(ctx, b.id); err == nil || !strings.Contains(err.Error(), "is running, not created") {
		t.Errorf("second start = %v", err)
	}
	if err := b.r.Delete(ctx, b.id, false); err == nil {
		t.Error("delete of a running container succeeds")
	}
	must(t, b.r.Pause(b.id))
	b.wantState("paused")
	must(t, b.r.Resume(b.id))
	must(t, b.r.Kill(b.id, unix.SIGKILL, true))
	p.Wait()
	b.wantState("stopped")
	must(t, b.r.Delete(ctx, b.id, false))
	got, _ := os.ReadFile(log)
	want := `prestart "status":"creating"
createRuntime "status":"creating"
createContainer "status":"creating"
poststart "status":"running"
poststop "status":"stopped"
`
	if string(got) != want {
		t.Errorf("hooks:\n%s\nwant\n%s", got, want)
	}
	if _, err := os.Stat(b.root("tmp/started")); err != nil {
		t.Errorf("startContainer: %v", err)
	}
}

func (b *bundle) wantState(want specs.ContainerState) {
	b.t.Helper()
	s, err := b.r.State(b.id)
	if err != nil || s.Status != want {
		b.t.Errorf("state = %v, %v; want %s", s, err, want)
	}
}

func TestFailedHookEndsTheContainer(t *testing.T) {
	b := newBundle(t, "true")
	b.spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/false"}}}
	b.wantRefused("hook /bin/false")
	b = newBundle(t, "true")
	second := 1
	b.spec.Hooks = &specs.Hooks{CreateContainer: []specs.Hook{{Path: "/bin/sleep", Args: []string{"sleep", "60"}, Timeout: &second}}}
	b.wantRefused("longer than its timeout")
}

func TestNsenterWorks(t *testing.T) {
	if _, err := exec.LookPath("nsenter"); err != nil {
		t.Skip("needs nsenter")
	}
	b := newBundle(t, "sleep", "60")
	p := b.start()
	out, err := exec.Command("nsenter", "-t", fmt.Sprint(p.Pid()), "-m", "-u", "-i", "-n", "-p", "/bin/sh", "-c", "hostname; ls /proc | grep -c '^1$'").CombinedOutput()
	if err != nil || string(out) != "box\n1\n" {
		t.Errorf("nsenter = %q, %v", out, err)
	}
}

// TestOneCPUHolds runs two busy loops under half a CPU.
func TestOneCPUHolds(t *testing.T) {
	b := newBundle(t, "sh", "-c", "while :; do :; done & while :; do :; done")
	quota, period := int64(50000), uint64(100000)
	b.spec.Linux.Resources = &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: &quota, Period: &period}}
	b.start()
	before, err := b.r.Stats(b.id)
	must(t, err)
	began := time.Now()
	time.Sleep(time.Second)
	after, err := b.r.Stats(b.id)
	must(t, err)
	used := float64(after.CpuStats.CpuUsage.TotalUsage-before.CpuStats.CpuUsage.TotalUsage) / float64(time.Since(began))
	if used > 0.65 {
		t.Errorf("the loops took %.2f CPUs, the limit is 0.5", used)
	}
}

func TestPidsLimitAndUpdate(t *testing.T) {
	b := newBundle(t, "sleep", "60")
	limit := int64(2)
	b.spec.Linux.Resources = &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &limit}}
	b.start()
	if out := b.exec("sh", "-c", "(echo forked); true"); strings.Contains(out, "forked") {
		t.Errorf("a third process runs under a limit of 2")
	}
	limit = 100
	must(t, b.r.Update(b.id, &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &limit}}))
	if out := b.exec("sh", "-c", "(echo forked); true"); out != "forked\n" {
		t.Errorf("after the update = %q", out)
	}
	if pids, err := b.r.Pids(b.id); err != nil || len(pids) != 1 {
		t.Errorf("pids = %v, %v", pids, err)
	}
}

// TestRootless runs this test again as root of a user namespace, whose cgroups
// nobody has delegated.
func TestRootless(t *testing.T) {
	if os.Getenv("KIST_TEST_ROOTLESS") == "" {
		b := newBundle(t, "true") // skips without root
		_ = b
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestRootless$", "-test.v")
		cmd.Args[0] = "rootless.test"
		dir := t.TempDir()
		must(t, os.Chmod(dir, 0o777))
		must(t, os.Chmod(filepath.Dir(dir), 0o755))
		cmd.Env = append(os.Environ(), "KIST_TEST_ROOTLESS=1", "TMPDIR="+dir)
		maps := []syscall.SysProcIDMap{{HostID: 200000, Size: 65536}}
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS, UidMappings: maps, GidMappings: maps, GidMappingsEnableSetgroups: true,
			Credential: &syscall.Credential{}}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	b := newBundle(t, "sh", "-c", "id -u; echo >/dev/null && echo null; hostname; ls /sys/class/net")
	b.r.Rootless = true
	b.wantOutput("0\nnull\nbox\nlo\n")
	limit := int64(64 << 20)
	b.spec.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}
	b.wantRefused("set limits (memory): this user's cgroups are not delegated")
	b = newBundle(t, "sleep", "60")
	b.r.Rootless = true
	b.start()
	if out := b.exec("sh", "-c", "echo $$ >/dev/null; hostname"); out != "box\n" {
		t.Errorf("exec = %q", out)
	}
	must(t, b.r.Kill(b.id, unix.SIGKILL, true))
}

// A monitor that is killed while it makes the cgroups, or removes them, leaves some.
func TestDeleteRemovesTheRestOfACgroup(t *testing.T) {
	if unifiedCgroups() {
		t.Skip("needs cgroup v1")
	}
	b := newBundle(t, "true")
	p, err := b.r.Create(context.Background(), b.id, CreateOptions{Bundle: b.dir, Spec: b.spec})
	must(t, err)
	rec, err := b.r.read(b.id)
	must(t, err)
	p.kill()
	must(t, os.Remove(rec.CgroupPaths["devices"]))
	b.delete()
	for controller, dir := range rec.CgroupPaths {
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("the cgroup of %s is left", controller)
			os.Remove(dir)
		}
	}
}

// A hook without a timeout ends with whoever waits for it.
func TestHookEndsWithItsCaller(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	err := runHooks(ctx, []specs.Hook{{Path: "/bin/sleep", Args: []string{"sleep", "60"}}}, new(specs.State))
	if err == nil || !strings.Contains(err.Error(), context.DeadlineExceeded.Error()) {
		t.Errorf("runHooks = %v, want %v", err, context.DeadlineExceeded)
	}
}

package runtime

import (
	"context"
	"debug/elf"
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// The tests of this file are the attacks of SECURITY.md. Each must fail.

// wantRefused wants Create to fail with a text, and nothing to be left.
func (b *bundle) wantRefused(text string) {
	b.t.Helper()
	b.eachWay(func(how string) {
		if _, _, err := b.run(); err == nil || !strings.Contains(err.Error(), text) {
			b.t.Errorf("%s: create = %v, want an error with %q", how, err, text)
		}
	})
	if left, _ := b.r.List(); len(left) > 0 {
		b.t.Errorf("a refused container leaves %v", left)
	}
}

// start runs the bundle's program until the test ends.
func (b *bundle) start() *Process {
	b.t.Helper()
	p, err := b.r.Create(context.Background(), b.id, CreateOptions{Bundle: b.dir, Spec: b.spec})
	must(b.t, err)
	b.t.Cleanup(b.delete)
	must(b.t, p.Start())
	return p
}

func (b *bundle) root(elem ...string) string {
	return filepath.Join(append([]string{b.dir, "rootfs"}, elem...)...)
}

// CVE-2019-19921, CVE-2023-27561
func TestLinkInPlaceOfProcSysDev(t *testing.T) {
	for _, name := range []string{"proc", "sys", "dev"} {
		b := newBundle(t, "true")
		must(t, os.Remove(b.root(name)))
		must(t, os.Symlink("/tmp", b.root(name)))
		b.wantRefused("/" + name + " of the image is not a directory")
	}
}

// CVE-2021-30465: what a link in the image points to is in the image.
func TestMountTargetLinksStayInside(t *testing.T) {
	outside := t.TempDir()
	b := newBundle(t, "sh", "-c", "ls "+outside+"/in && readlink /data")
	must(t, os.Symlink(outside, b.root("data")))
	b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: "/data/in", Type: "tmpfs", Source: "tmpfs"})
	b.wantOutput(outside + "\n")
	if left, _ := os.ReadDir(outside); len(left) != 0 {
		t.Errorf("the host's directory now has %v", left)
	}
}

// CVE-2019-16884: a volume whose path in the image is a link to /proc.
func TestLinkToProcIsNoMountTarget(t *testing.T) {
	for _, link := range []string{"/proc", "/proc/sys", "/proc/self/attr"} {
		for _, kind := range []string{"bind", "tmpfs"} {
			b := newBundle(t, "true")
			must(t, os.Symlink(link, b.root("data")))
			b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: "/data", Type: kind, Source: t.TempDir()})
			b.wantRefused("leads it into /proc")
		}
	}
}

// CVE-2019-16884: where /proc is something else, no profile counts as set.
func TestProfileIsSetOrNothingRuns(t *testing.T) {
	b := newBundle(t, "true")
	b.spec.Process.ApparmorProfile = "kist-no-such-profile"
	b.wantRefused("apparmor profile")
	b = newBundle(t, "true")
	attr := t.TempDir()
	must(t, os.MkdirAll(attr+"/1/task/1/attr/apparmor", 0o755))
	must(t, os.Symlink("1/task/1", attr+"/thread-self"))
	must(t, os.WriteFile(attr+"/1/task/1/attr/apparmor/exec", nil, 0o666))
	b.spec.Mounts[0] = specs.Mount{Destination: "/proc", Type: "bind", Source: attr}
	b.spec.Linux.MaskedPaths, b.spec.Linux.ReadonlyPaths = nil, nil
	b.spec.Process.ApparmorProfile = "kist-no-such-profile"
	b.wantRefused("/proc is not a proc file system")
	b = newBundle(t, "sleep", "60")
	b.start()
	proc := *b.spec.Process
	proc.Args, proc.ApparmorProfile = []string{"true"}, "kist-no-such-profile"
	if p, err := b.r.Exec(context.Background(), b.id, &proc, ExecOptions{}); err == nil {
		p.Wait()
		t.Error("exec ran a program without its profile")
	}
}

// A directory that others share may have a link where the node was made.
func TestNodeThatIsNowALinkIsNotOwned(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(dir+"/host", nil, 0o600))
	must(t, os.Symlink("host", dir+"/null"))
	d, err := os.Open(dir)
	must(t, err)
	defer d.Close()
	if err := own(d, "null", &defaultDevices[0], unix.S_IFCHR, 0o666); err == nil {
		t.Error("a link was taken for the device")
	}
	if info, err := os.Stat(dir + "/host"); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file behind the link: %v, %v", info.Mode(), err)
	}
}

// CVE-2025-31133, CVE-2025-52881
func TestMaskedLinkIsRefused(t *testing.T) {
	b := newBundle(t, "true")
	must(t, os.Symlink("/etc", b.root("masked")))
	b.spec.Linux.MaskedPaths = []string{"/masked"}
	b.wantRefused("mask /masked")
	b = newBundle(t, "true")
	must(t, os.Symlink("/etc", b.root("ro")))
	b.spec.Linux.ReadonlyPaths = []string{"/ro"}
	b.wantRefused("make /ro read-only")
}

// CVE-2025-31133: a volume over /dev has something else as its null.
func TestFakeNullIsNoMask(t *testing.T) {
	b := newBundle(t, "true")
	dev := t.TempDir()
	must(t, os.WriteFile(dev+"/null", []byte("fake"), 0o644))
	must(t, os.Mkdir(dev+"/shm", 0o755))
	for i := range b.spec.Mounts {
		if b.spec.Mounts[i].Destination == "/dev" {
			b.spec.Mounts[i] = specs.Mount{Destination: "/dev", Type: "bind", Source: dev, Options: []string{"rbind"}}
		}
	}
	b.wantRefused("/dev/null is not device 1:3")
}

// CVE-2016-9962, CVE-2024-21626: no descriptor of the caller gets inside.
func TestDescriptorsDoNotLeak(t *testing.T) {
	b := newBundle(t, "sh", "-c", "ls /proc/self/fd")
	host, err := unix.Open("/", unix.O_RDONLY|unix.O_DIRECTORY, 0) // no O_CLOEXEC
	must(t, err)
	defer unix.Close(host)
	b.wantOutput("0\n1\n2\n3\n")
	b = newBundle(t, "sleep", "60")
	b.start()
	if out := b.exec("ls", "/proc/self/fd"); out != "0\n1\n2\n3\n" {
		t.Errorf("descriptors of exec = %q", out)
	}
}

// CVE-2024-21626
func TestWorkingDirectoryThroughDescriptor(t *testing.T) {
	for fd := range 24 {
		b := newBundle(t, "true")
		b.spec.Process.Cwd = fmt.Sprintf("/proc/self/fd/%d", fd)
		if _, _, err := b.run(); err == nil {
			t.Errorf("cwd %s is accepted", b.spec.Process.Cwd)
		}
	}
	b := newBundle(t, "sleep", "60")
	b.start()
	must(t, os.Symlink("/proc/self/fd/8", b.root("link")))
	for _, cwd := range []string{"/proc/self/fd/7", "/proc/1/cwd/../..", "/link", "/proc/self/root/../.."} {
		proc := *b.spec.Process
		proc.Args, proc.Cwd = []string{"true"}, cwd
		if p, err := b.r.Exec(context.Background(), b.id, &proc, ExecOptions{}); err == nil {
			dir, _ := os.Readlink(fmt.Sprintf("/proc/%d/cwd", p.Pid()))
			p.Wait()
			t.Errorf("exec with cwd %s is accepted, it is in %q", cwd, dir)
		}
	}
}

// The same where the descriptor is really there, as the caller wanted it.
func TestWorkingDirectoryOutsideIsRefused(t *testing.T) {
	host, err := os.Open(t.TempDir())
	must(t, err)
	defer host.Close()
	for fd := range 24 {
		b := newBundle(t, "true")
		b.spec.Process.Cwd = fmt.Sprintf("/proc/self/fd/%d", fd)
		p, err := b.r.Create(context.Background(), b.id, CreateOptions{Bundle: b.dir, Spec: b.spec, ExtraFiles: []*os.File{host}})
		if err == nil {
			dir, _ := os.Readlink(fmt.Sprintf("/proc/%d/cwd", p.Pid()))
			t.Errorf("cwd %s is accepted, it is in %q", b.spec.Process.Cwd, dir)
			b.delete()
		}
	}
}

// CVE-2019-5736: a program that is kist's own binary cannot be written through.
func TestBinaryCannotBeOverwritten(t *testing.T) {
	if file, err := elf.Open("/proc/self/exe"); err != nil || file.Section(".interp") != nil {
		t.Skip("needs a static test binary: CGO_ENABLED=0")
	}
	b := newBundle(t, "/proc/self/exe")
	p := b.start()
	wantReadOnly(t, p.Pid())
	proc := *b.spec.Process
	joined, err := b.r.Exec(context.Background(), b.id, &proc, ExecOptions{})
	must(t, err)
	defer joined.Wait()
	defer unix.Kill(joined.Pid(), unix.SIGKILL)
	wantReadOnly(t, joined.Pid())
}

func wantReadOnly(t *testing.T, pid int) {
	t.Helper()
	exe := fmt.Sprintf("/proc/%d/exe", pid)
	var st unix.Statfs_t
	if err := unix.Statfs(exe, &st); err != nil || st.Flags&unix.ST_RDONLY == 0 {
		t.Errorf("statfs %s = flags %x, %v; want a read-only mount", exe, st.Flags, err)
	}
	if err := unix.Access(exe, unix.W_OK); err != unix.EROFS {
		t.Errorf("access %s = %v, want %v", exe, err, unix.EROFS)
	}
}

// CVE-2016-9962: who is in the container already cannot look into kist-init, not
// even with all the capabilities that it has.
func TestWaitingInitCannotBeInspected(t *testing.T) {
	b := newBundle(t, "true")
	created := make(chan error)
	go func() {
		goruntime.LockOSThread() // and never unlocked: the thread has lost a capability
		err := unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_SYS_PTRACE, 0, 0, 0)
		if err == nil {
			_, err = b.r.Create(context.Background(), b.id, CreateOptions{Bundle: b.dir, Spec: b.spec, Detached: true})
		}
		created <- err
	}()
	must(t, <-created)
	defer b.delete()
	most := slices.DeleteFunc(OwnCapabilities(), func(c string) bool { return c == "CAP_SYS_PTRACE" })
	b.spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: most, Effective: most, Permitted: most}
	for _, file := range []string{"exe", "root", "cwd", "fd/0"} {
		if out := b.exec("readlink", "/proc/1/"+file); out != "" {
			t.Errorf("/proc/1/%s of a waiting init is %q", file, out)
		}
	}
}

func TestSysctlNames(t *testing.T) {
	all := []specs.LinuxNamespaceType{specs.NetworkNamespace, specs.IPCNamespace, specs.UTSNamespace}
	for _, row := range []struct {
		name string
		have []specs.LinuxNamespaceType
		ok   bool
	}{
		{"net.ipv4.ip_forward", all, true},
		{"net/ipv4/conf/eth0.1/forwarding", all, true},
		{"kernel.shmmax", all, true},
		{"fs.mqueue.msg_max", all, true},
		{"kernel.domainname", all, true},
		{"net.ipv4.ip_forward", all[1:], false},     // the host's network
		{"kernel.shmmax", all[:1], false},           // the host's ipc
		{"kernel.core_pattern", all, false},         // the host's
		{"net/../kernel/core_pattern", all, false},  // climbs
		{"net./../kernel/core_pattern", all, false}, // climbs
		{"net..kernel", all, false},                 // empty part
		{"kernel.msgmax_", all, false},              // no prefix match
		{"fs.file-max", all, false},                 // the host's
		{"", all, false}, {".", all, false}, {"/", all, false},
	} {
		spec := &specs.Spec{Linux: &specs.Linux{Sysctl: map[string]string{row.name: "1"}}}
		for _, kind := range row.have {
			spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: kind})
		}
		if err := checkSysctls(spec); (err == nil) != row.ok {
			t.Errorf("sysctl %q with %v = %v", row.name, row.have, err)
		}
	}
	b := newBundle(t, "cat", "/proc/sys/net/ipv4/ip_forward")
	b.spec.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"}
	b.wantOutput("1\n")
}

// CVE-2022-2990: exactly the groups asked for, never the caller's.
func TestGroupsAreNotTheCallers(t *testing.T) {
	newBundle(t, "grep", "Groups", "/proc/self/status").wantOutput("Groups:\t \n")
	b := newBundle(t, "grep", "Groups", "/proc/self/status")
	b.spec.Process.User = specs.User{UID: 1000, GID: 1000, AdditionalGids: []uint32{5, 6}}
	b.wantOutput("Groups:\t5 6 \n")
	b = newBundle(t, "sleep", "60")
	b.start()
	b.spec.Process.User = specs.User{UID: 1000, GID: 1000, AdditionalGids: []uint32{7}}
	if out := b.exec("grep", "Groups", "/proc/self/status"); out != "Groups:\t7 \n" {
		t.Errorf("groups of exec = %q", out)
	}
}

// CVE-2022-24769: nothing inheritable; an ordinary user has no capability.
func TestOrdinaryUserHasNoCapabilities(t *testing.T) {
	b := newBundle(t, "grep", "-E", "Cap(Inh|Prm|Eff|Amb)|NoNewPrivs", "/proc/self/status")
	b.spec.Process.User = specs.User{UID: 1000, GID: 1000}
	b.spec.Process.NoNewPrivileges = true
	none := "0000000000000000\n"
	want := "CapInh:\t" + none + "CapPrm:\t" + none + "CapEff:\t" + none + "CapAmb:\t" + none + "NoNewPrivs:\t1\n"
	b.spec.Process.Capabilities.Effective, b.spec.Process.Capabilities.Permitted = nil, nil
	b.wantOutput(want)
	b = newBundle(t, "sleep", "60")
	b.spec.Process.NoNewPrivileges = true
	b.start()
	b.spec.Process.User = specs.User{UID: 1000, GID: 1000}
	b.spec.Process.Capabilities.Effective, b.spec.Process.Capabilities.Permitted = nil, nil
	if out := b.exec("grep", "-E", "Cap(Inh|Prm|Eff|Amb)|NoNewPrivs", "/proc/self/status"); out != want {
		t.Errorf("exec = %q, want %q", out, want)
	}
}

// CVE-2014-4611 and its kin: the session keyring is the container's own.
func TestKeyringIsNew(t *testing.T) {
	if _, err := os.Stat("/proc/keys"); err != nil {
		t.Skip("needs a kernel with keyrings")
	}
	b := newBundle(t, "cat", "/proc/keys")
	b.spec.Linux.MaskedPaths = nil
	out, _, err := b.run()
	if err != nil || !strings.Contains(out, "_kist."+b.id) {
		t.Errorf("keys = %q, %v; want the session keyring _kist.%s", out, err, b.id)
	}
}

// A node that a container makes for itself is of no use.
func TestDevicesAreClosed(t *testing.T) {
	b := newBundle(t, "sh", "-c", "mknod /tmp/kmsg c 1 11 && head -c 1 /tmp/kmsg; mknod /tmp/n c 1 3 && echo >/tmp/n && echo null works")
	b.spec.Linux.Resources = &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Access: "rwm"}}}
	out, _, err := b.run()
	if err != nil || !strings.Contains(out, "/tmp/kmsg: Operation not permitted") || !strings.Contains(out, "null works") {
		t.Errorf("output = %q, %v", out, err)
	}
}

// CVE-2020-15257's shape: with a network namespace of its own, the abstract
// sockets of the host are out of reach; and /proc/1 is the container's.
func TestTerminalIsNotTheCallers(t *testing.T) {
	b := newBundle(t, "sh", "-c", "tty; echo </dev/tty || echo none")
	out, _, err := b.run()
	if err != nil || !strings.Contains(out, "not a tty") || !strings.Contains(out, "none") {
		t.Errorf("output = %q, %v", out, err)
	}
}

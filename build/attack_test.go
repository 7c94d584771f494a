package build

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// The tests of this file are attacks of SECURITY.md on a build. Each must fail.

// CVE-2024-1753's kin: the files that say what to build come from strangers too.
func TestContextFilesLeadNowhere(t *testing.T) {
	k := newKit(t)
	for _, name := range []string{"Dockerfile", ".dockerignore", "Dockerfile.dockerignore"} {
		for kind, lay := range map[string]func(path string) error{
			"a link to the host": func(path string) error { return os.Symlink("/etc/shadow-of-the-host", path) },
			"a device":           func(path string) error { return os.Symlink("/dev/zero", path) },
			"a pipe":             func(path string) error { return unix.Mkfifo(path, 0o644) },
		} {
			k.file("f", "1")
			k.file("Dockerfile", "FROM base\nCOPY f /f\n")
			path := filepath.Join(k.dir, name)
			os.Remove(path)
			must(t, lay(path))
			// What is not there inside counts as absent, and a pipe is refused.
			_, log, err := k.try()
			if refused := name == "Dockerfile" || kind == "a pipe"; refused != (err != nil) {
				t.Errorf("%s is %s: %v\n%s", name, kind, err, log)
			}
			must(t, os.Remove(path))
		}
	}
}

// CVE-2024-9675, CVE-2024-23651: a cache's id is no path, and what one step left in
// the cache leads the next nowhere.
func TestCacheMountStaysInside(t *testing.T) {
	k := newKit(t)
	outside := filepath.Join(filepath.Dir(k.dir), "outside")
	must(t, os.MkdirAll(outside, 0o755))
	up := strings.Repeat("../", 12)
	for _, id := range []string{up + outside, outside, "..", "a/../../b"} {
		k.dockerfile("FROM base\nRUN --mount=type=cache,id=" + id + ",target=/c touch /c/new\n")
	}
	k.dockerfile("FROM base\nRUN --mount=type=cache,id=x,target=/c ln -s " + outside + " /c/l && ln -s " + up + outside[1:] + " /c/r\n")
	for _, l := range []string{"l", "r"} {
		k.file("Dockerfile", "FROM base\nRUN --mount=type=cache,id=x,target=/d --mount=type=cache,id=y,target=/d/"+l+" touch /d/"+l+"/new\n")
		k.try()
	}
	if left, _ := os.ReadDir(outside); len(left) > 0 {
		t.Errorf("outside has %v", left)
	}
}

// CVE-2024-23652: removing the mount points that a step needed removes nothing else.
func TestMountPointsAreRemovedInside(t *testing.T) {
	k := newKit(t)
	outside := filepath.Join(filepath.Dir(k.dir), "outside")
	must(t, os.MkdirAll(filepath.Join(outside, "empty"), 0o755))
	k.dockerfile("FROM base\nRUN --mount=type=tmpfs,target=/m/empty rm -rf /m 2>/dev/null; mv /m /n 2>/dev/null; ln -s " + outside + " /m 2>/dev/null; true\n")
	if _, err := os.Stat(filepath.Join(outside, "empty")); err != nil {
		t.Error(err)
	}
}

// CVE-2022-24769, CVE-2022-2989, CVE-2026-46680: a step has the rights of a default
// container and no group of the caller's.
func TestStepHasADefaultContainersRights(t *testing.T) {
	k := newKit(t)
	t.Setenv("CALLERS_SECRET", "hush")
	old, err := syscall.Getgroups()
	must(t, err)
	must(t, syscall.Setgroups([]int{0, 4242}))
	t.Cleanup(func() { syscall.Setgroups(old) })
	k.dockerfile("FROM base\nRUN cat /proc/self/status > /status && env > /env && { mount -t tmpfs t /mnt 2>/dev/null || cat /dev/kmsg 2>/dev/null || echo refused > /refused; } && mkdir -m 777 /t\nUSER 7:8\nRUN cat /proc/self/status > /t/status\n")
	root, user := k.content("status"), k.content("t/status")
	for _, want := range []string{"CapInh:\t0000000000000000", "CapAmb:\t0000000000000000", "CapBnd:\t00000000a80425fb", "Seccomp:\t2"} {
		if !strings.Contains(root, want) || !strings.Contains(user, want) {
			t.Errorf("want %q in\n%s\n%s", want, root, user)
		}
	}
	if strings.Contains(root, "4242") || !strings.Contains(user, "Groups:\t8 \n") || !strings.Contains(user, "CapEff:\t0000000000000000") {
		t.Errorf("groups or capabilities of the caller's:\n%s\n%s", root, user)
	}
	if strings.Contains(k.content("env"), "hush") {
		t.Error("the caller's environment reaches a step")
	}
	k.content("refused")
}

// CVE-2024-9407, CVE-2024-23653: what widens a step is refused.
func TestStepsAskForNoMore(t *testing.T) {
	k := newKit(t)
	k.file("a", "1")
	for _, text := range []string{
		"FROM base\nRUN --mount=type=bind,source=.,target=/m,bind-propagation=shared true\n",
		"FROM base\nRUN --security=insecure true\n",
		"FROM base\nRUN --network=host true\n",
		"FROM base\nRUN --mount=type=bind,source=../../..,from=base,target=/m test -d /m/proc/1/root/proc\n",
		"FROM base\nRUN --mount=type=secret,id=../../../../etc/passwd,required=true true\n",
		"FROM base\nRUN --mount=type=ssh,id=/etc/passwd,required=true true\n",
		"FROM base\nADD file:///etc/passwd /x\n",
		"FROM base\nADD git@-oProxyCommand=touch:x.git /x\n",
	} {
		k.file("Dockerfile", text)
		if _, log, err := k.try(); err == nil {
			t.Errorf("%q is built\n%s", text, log)
		}
	}
}

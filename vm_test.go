package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// TestLimitsOnPureCgroupV2 runs the scripts on limits once more, in a machine
// that has nothing but cgroup v2.
func TestLimitsOnPureCgroupV2(t *testing.T) {
	_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
	if testing.Short() || os.Geteuid() != 0 || err == nil {
		t.Skip("needs root on a host with other cgroups, and half a minute")
	}
	scriptsInVM(t, []string{"-m", "overlay", "-m", "brd"}, "flags_limits", "limits_v2", "run_limits")
}

// TestStorageLimitByQuota runs the script on --storage-opt in a machine whose kernel
// has project quotas.
func TestStorageLimitByQuota(t *testing.T) {
	mkfs, err := exec.LookPath("mkfs.ext4")
	if testing.Short() || os.Geteuid() != 0 || err != nil {
		t.Skip("needs root, mkfs.ext4, and half a minute")
	}
	args := []string{"-m", "overlay", "-m", "loop", "-m", "quota_v2"}
	out := scriptsInVM(t, append(args, withLibraries(t, mkfs, "/bin/mkfs.ext4")...), "flags_storage")
	if !bytes.Contains(out, []byte("Disk quota exceeded")) {
		t.Errorf("the layer has no bound:\n%s", out)
	}
}

// withLibraries are the arguments that put a program of this host into the machine.
func withLibraries(t *testing.T, program, at string) []string {
	real, err := filepath.EvalSymlinks(program)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("ldd", real).Output()
	if err != nil {
		t.Skip("needs ldd")
	}
	args := []string{"-f", real + ":" + at}
	for _, lib := range regexp.MustCompile(`/\S+`).FindAllString(string(out), -1) {
		args = append(args, "-f", lib+":"+lib)
	}
	return args
}

// scriptsInVM runs scripts in a machine of their own and returns what they print.
func scriptsInVM(t *testing.T, args []string, names ...string) []byte {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args = append(args, "-f", self+":/t/main.test")
	for _, name := range names {
		args = append(args, "-f", "testdata/script/"+name+".txtar:/t/testdata/script/"+name+".txtar")
	}
	cmd := exec.Command("testdata/vm/run", append(args, "cd /t && ./main.test -test.v -test.run 'TestScripts$'")...)
	cmd.Env = append(os.Environ(), "KIST_VM_MEMORY=1500", "KIST_VM_TIMEOUT=300")
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 77 {
		t.Skipf("%s", out)
	}
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	return out
}

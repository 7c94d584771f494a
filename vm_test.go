package main

import (
	"errors"
	"os"
	"os/exec"
	"testing"
)

// TestLimitsOnPureCgroupV2 runs the scripts on limits once more, in a machine
// that has nothing but cgroup v2.
func TestLimitsOnPureCgroupV2(t *testing.T) {
	_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
	if testing.Short() || os.Geteuid() != 0 || err == nil {
		t.Skip("needs root on a host with other cgroups, and half a minute")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"-m", "overlay", "-m", "brd", "-f", self + ":/t/main.test"}
	for _, name := range []string{"flags_limits", "limits_v2", "run_limits"} {
		args = append(args, "-f", "testdata/script/"+name+".txtar:/t/testdata/script/"+name+".txtar")
	}
	cmd := exec.Command("testdata/vm/run", append(args, "cd /t && ./main.test -test.run 'TestScripts$'")...)
	cmd.Env = append(os.Environ(), "KIST_VM_MEMORY=1500", "KIST_VM_TIMEOUT=300")
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 77 {
		t.Skipf("%s", out)
	}
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

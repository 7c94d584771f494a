package runtime

import (
	"errors"
	"os"
	"os/exec"
	"testing"
)

// TestPureCgroupV2 runs the tests that have to do with cgroups once more, in a
// machine that has nothing but cgroup v2.
func TestPureCgroupV2(t *testing.T) {
	if testing.Short() || os.Geteuid() != 0 || unifiedCgroups() {
		t.Skip("needs root on a host with other cgroups, and some seconds")
	}
	const which = "^Test(RunInIts|ExecJoins|Memory|OneCPU|Pids|Devices|UserNamespace|Lifecycle|Rootless|MaskedLink)"
	cmd := exec.Command("../../testdata/vm/run", "-f", os.Args[0]+":/runtime.test", "/runtime.test -test.v -test.run '"+which+"'")
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 77 {
		t.Skipf("%s", out)
	}
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

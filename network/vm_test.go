package network

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// What few kernels of virtual machines have is tried in a machine of its own.
func TestLinksInAMachineOfItsOwn(t *testing.T) {
	if os.Getenv("KIST_TEST_VM") != "" || testing.Short() {
		t.Skip("needs a host that is not the machine itself, and some seconds")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("../testdata/vm/run", "-m", "veth", "-m", "macvlan", "-m", "ipvlan", "-m", "8021q", "-f", self+":/bin/network.test",
		"KIST_TEST_VM=1 network.test -test.v -test.run 'Ipvlan|VLANParent'")
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 77 {
		t.Skip(strings.TrimSpace(string(out)))
	}
	if exit != nil && exit.ExitCode() == 127 {
		t.Skip("needs a static test binary: CGO_ENABLED=0")
	}
	if err != nil || strings.Count(string(out), "--- PASS") < 2 {
		t.Errorf("%v\n%s", err, out)
	}
}

package network

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// machine runs tests of this package in a virtual machine with the kernel modules
// and the host's files, and wants as many to pass.
func machine(t *testing.T, modules, files, tests string, pass int) {
	t.Helper()
	t.Parallel()
	if os.Getenv("KIST_TEST_VM") != "" || testing.Short() {
		t.Skip("needs a host that is not the machine itself, and some seconds")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"-f", self + ":/bin/network.test"}
	for m := range strings.FieldsSeq(modules) {
		args = append(args, "-m", m)
	}
	for f := range strings.FieldsSeq(files) {
		if _, err := os.Stat(f); err != nil {
			t.Skip("needs " + f)
		}
		args = append(args, "-f", f+":"+f)
	}
	cmd := exec.Command("../testdata/vm/run", append(args, "PATH=/bin:/usr/bin KIST_TEST_VM=1 network.test -test.v -test.run '"+tests+"'")...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 77 {
		t.Skip(strings.TrimSpace(string(out)))
	}
	if exit != nil && exit.ExitCode() == 127 {
		t.Skip("needs a static test binary: CGO_ENABLED=0")
	}
	if err != nil || strings.Count(string(out), "--- PASS") < pass {
		t.Errorf("%v\n%s", err, out)
	}
}

// What few kernels of virtual machines have is tried in a machine of its own.
func TestLinksInAMachineOfItsOwn(t *testing.T) {
	machine(t, "veth macvlan ipvlan 8021q", "", "Ipvlan|VLANParent|DHCP$", 6)
}

func TestEncryptionInAMachineOfItsOwn(t *testing.T) {
	machine(t, "veth bridge vxlan xfrm_user esp4 gcm ctr ghash-generic jitterentropy_rng drbg sha512_generic seqiv echainiv",
		"/usr/bin/etcd /lib/x86_64-linux-gnu/libc.so.6 /lib64/ld-linux-x86-64.so.2", "EncryptedOverlay|ThreeHosts|NumbersBegin", 3)
}

package sys

import (
	"fmt"
	"os"
	"testing"
)

func TestForgetFiles(t *testing.T) {
	before := filePages(t)
	if err := ForgetFiles(); err != nil {
		t.Fatal(err)
	}
	if after := filePages(t); after >= before {
		t.Errorf("%d pages of files were mapped before, %d after", before, after)
	}
}

// filePages is the third number of proc_pid_statm(5).
func filePages(t *testing.T) (shared int) {
	t.Helper()
	data, err := os.ReadFile("/proc/self/statm")
	if err == nil {
		var size, resident int
		_, err = fmt.Sscan(string(data), &size, &resident, &shared)
	}
	if err != nil {
		t.Fatal(err)
	}
	return shared
}

package sys

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestJoinExecEntersNamespaces(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	holder := exec.Command("sleep", "60")
	holder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWUTS,
		UidMappings: []syscall.SysProcIDMap{{Size: 1}}, GidMappings: []syscall.SysProcIDMap{{Size: 1}}}
	if err := holder.Start(); err != nil {
		t.Skipf("needs user namespaces: %v", err)
	}
	defer func() { holder.Process.Kill(); holder.Wait() }()
	var spaces []*os.File
	var want string
	for _, n := range []string{"user", "uts"} {
		f, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", holder.Process.Pid, n))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		spaces = append(spaces, f)
		link, _ := os.Readlink(f.Name())
		want += link + "\n"
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	j := JoinExec{Path: "/bin/sh", Args: []string{"sh", "-c", "readlink /proc/self/ns/user /proc/self/ns/uts"},
		Env: os.Environ(), Files: []*os.File{os.Stdin, w, os.Stderr}, Namespaces: spaces, Root: true, Unshare: unix.CLONE_NEWNS}
	pid, err := j.Start()
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	n, _ := r.Read(buf)
	var ws unix.WaitStatus
	unix.Wait4(pid, &ws, 0, nil)
	if got := string(buf[:n]); got != want || ws.ExitStatus() != 0 {
		t.Errorf("namespaces of the child = %q, status %d; want %q", got, ws, want)
	}
}

func TestJoinExecReportsTheStep(t *testing.T) {
	j := JoinExec{Path: "/nonexistent", Args: []string{"x"}}
	if _, err := j.Start(); err == nil || !strings.Contains(err.Error(), "execve: no such file") {
		t.Errorf("Start of a missing program = %v, want the execve's errno", err)
	}
}

package sys

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestScriptEntersNamespaces(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	holder := exec.Command("sleep", "60")
	holder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWUTS | unix.CLONE_NEWPID,
		UidMappings: []syscall.SysProcIDMap{{Size: 1}}, GidMappings: []syscall.SysProcIDMap{{Size: 1}}}
	if err := holder.Start(); err != nil {
		t.Skipf("needs user namespaces: %v", err)
	}
	defer func() { holder.Process.Kill(); holder.Wait() }()
	var want string
	var s Script
	for _, n := range []string{"user", "uts", "pid"} {
		f, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", holder.Process.Pid, n))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		fd, err := s.Fd(f)
		if err != nil {
			t.Fatal(err)
		}
		s.Call("setns", unix.SYS_SETNS, fd, 0)
		link, _ := os.Readlink(f.Name())
		want += link + "\n"
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := s.Stdio(os.Stdin, w, os.Stderr); err != nil {
		t.Fatal(err)
	}
	s.Fork()
	s.Exec([]string{"/nowhere/sh", "/bin/sh"}, []string{"sh", "-c", "cd /proc/$PPID/ns 2>/dev/null; for n in user uts pid; do readlink /proc/self/ns/$n; done"}, os.Environ())
	pid, err := s.Start()
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	data, _ := io.ReadAll(r)
	var ws unix.WaitStatus
	if _, err := unix.Wait4(pid, &ws, 0, nil); err != nil {
		t.Fatalf("the process that went on is not our child: %v", err)
	}
	// readlink of /proc/self works on the host's proc only with the host's pid, so
	// the shell may see nothing; the namespaces are then shown by status alone.
	if got := string(data); got != want && got != "" || ws.Signaled() {
		t.Errorf("namespaces of the child = %q, status %v; want %q", got, ws, want)
	}
}

func TestScriptReportsTheStep(t *testing.T) {
	var s Script
	s.Exec([]string{"/nonexistent", "/etc"}, []string{"x"}, nil)
	var step *StepError
	if _, err := s.Start(); !errors.As(err, &step) || step.Step != "execve" || step.Errno != unix.EACCES {
		t.Errorf("Start of a directory = %v, want execve's EACCES", err)
	}
	s = Script{}
	s.Call("setns", unix.SYS_SETNS, 9999, 0)
	s.Exec([]string{"/bin/true"}, []string{"true"}, nil)
	if _, err := s.Start(); !errors.As(err, &step) || step.Step != "setns" || step.Errno != unix.EBADF {
		t.Errorf("Start with a bad descriptor = %v, want setns's EBADF", err)
	}
}

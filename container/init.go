package container

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// InitRole is the program that --init puts before the container's own.
const InitRole = initPath

// initReady is the name of the process once no signal is lost any more: to one
// that it does not catch yet, PID 1 is deaf.
const initReady = "kist-init"

// awaitInit waits until --init's program has caught up with its start.
func (e *Engine) awaitInit(c *Config) {
	if !c.Init || c.InitPath != "" {
		return
	}
	comm := fmt.Sprintf("/proc/%d/comm", e.process(c.ID).Pid)
	for pause := time.Millisecond; pause < time.Second; pause *= 2 {
		if name, err := os.ReadFile(comm); err != nil || strings.TrimSpace(string(name)) == initReady {
			return
		}
		time.Sleep(pause)
	}
}

// InitMain runs the program of its arguments, forwards signals to it, reaps
// every process that loses its parent, and ends with the program's status.
func InitMain() int {
	args := os.Args[1:]
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		fmt.Fprintln(os.Stderr, "init: no program is given")
		return 127
	}
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)
	os.WriteFile("/proc/self/comm", []byte(initReady), 0)
	path, err := exec.LookPath(args[0])
	if err != nil {
		fmt.Fprintln(os.Stderr, "init:", err)
		return 127
	}
	child, err := os.StartProcess(path, args, &os.ProcAttr{Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}})
	if err != nil {
		fmt.Fprintln(os.Stderr, "init:", err)
		return 126
	}
	for s := range signals {
		switch n := s.(syscall.Signal); n {
		case syscall.SIGCHLD:
			if status, ended := reapAll(child.Pid); ended {
				return status
			}
		case syscall.SIGURG, syscall.SIGPIPE: // the Go runtime's own
		default:
			unix.Kill(child.Pid, n)
		}
	}
	return 0
}

// reapAll reaps what has ended and returns the status of pid if it is among them.
func reapAll(pid int) (status int, ended bool) {
	for {
		var ws unix.WaitStatus
		got, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || got <= 0 {
			return status, ended
		}
		if got == pid {
			if ended, status = true, ws.ExitStatus(); ws.Signaled() {
				status = 128 + int(ws.Signal())
			}
		}
	}
}

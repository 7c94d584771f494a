package runtime

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// adoptChildren makes what another process leaves behind a child of this one,
// until undo. A process that always adopts goes on doing so.
func adoptChildren() (undo func()) {
	var adopts int32
	unix.Prctl(unix.PR_GET_CHILD_SUBREAPER, uintptr(unsafe.Pointer(&adopts)), 0, 0, 0)
	if adopts != 0 {
		return func() {}
	}
	unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	return func() { unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) }
}

// AdoptForGood is for a process that has containers of another runtime as its
// children: a container's monitor.
func AdoptForGood() { unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }

// Reap reaps what a runtime's helpers left to this process, other than the
// container's first process. Unreaped they would hold up the end of its pid
// namespace; see pid_namespaces(7).
func (r *Runtime) Reap(id string) {
	if rec, err := r.read(id); err == nil && rec.Program != "" {
		rec.reap()
	}
}

func (rec *record) reap() {
	own, _ := unix.Getsid(0)
	tasks, _ := filepath.Glob("/proc/self/task/*/children")
	for _, task := range tasks {
		data, _ := os.ReadFile(task)
		for _, field := range bytes.Fields(data) {
			pid, _ := strconv.Atoi(string(field))
			if pid > 0 && pid != rec.Init.Pid && helperEnded(pid, own, filepath.Base(rec.Program)) {
				unix.Wait4(pid, nil, unix.WNOHANG, nil)
			}
		}
	}
}

// helperEnded reports whether a child is what remains of a process of the
// program. Those that this process started itself, and waits for, lead a process
// group in its own session; see foreignCommand.
func helperEnded(pid, session int, program string) bool {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	open, end := bytes.IndexByte(data, '('), bytes.LastIndexByte(data, ')')
	if err != nil || open < 0 || end < open {
		return false
	}
	name, fields := string(data[open+1:end]), strings.Fields(string(data[end+1:]))
	if len(fields) < 4 || fields[0] != "Z" || name != program && !strings.HasPrefix(name, program+":") {
		return false
	}
	ours := fields[2] == strconv.Itoa(pid) && fields[3] == strconv.Itoa(session)
	return !ours
}

package sys

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// A Process is the identity of a process: a number is used again, a number with
// its start time is not until the next boot.
type Process struct {
	Pid int `json:"pid"`
	// Start is field 22 of /proc/PID/stat, in clock ticks since boot.
	Start uint64 `json:"startTicks"`
}

// ErrGone is what the functions on a Process return after its end.
var ErrGone = errors.New("no such process")

// ProcessOf reads the identity of pid. It returns ErrGone when there is no such
// process, or only a zombie is left of it. See proc_pid_stat(5).
func ProcessOf(pid int) (Process, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return Process{}, ErrGone
	}
	if err != nil {
		return Process{}, err
	}
	state, start, err := parseStat(data)
	if err != nil {
		return Process{}, fmt.Errorf("read /proc/%d/stat: %w", pid, err)
	}
	if state == 'Z' || state == 'X' {
		return Process{}, ErrGone
	}
	return Process{pid, start}, nil
}

// parseStat finds the state and the start time behind the command name, which
// may itself hold blanks and parentheses.
func parseStat(data []byte) (state byte, start uint64, err error) {
	end := bytes.LastIndexByte(data, ')')
	if end < 0 {
		return 0, 0, errors.New("no command name")
	}
	fields := bytes.Fields(data[end+1:])
	if len(fields) < 20 {
		return 0, 0, errors.New("too few fields")
	}
	start, err = strconv.ParseUint(string(fields[19]), 10, 64)
	return fields[0][0], start, err
}

// Alive reports whether p still runs.
func (p Process) Alive() bool {
	if p.Pid <= 0 {
		return false
	}
	now, err := ProcessOf(p.Pid)
	return err == nil && now == p
}

// Open returns a pidfd of p, which names that process and no later one of the
// same number, or ErrGone. See pidfd_open(2), Linux 5.3.
func (p Process) Open() (*os.File, error) {
	fd, err := unix.PidfdOpen(p.Pid, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return nil, ErrGone
	}
	if err != nil {
		return nil, os.NewSyscallError("pidfd_open", err)
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	// Checked after the open: if it is the same process now, the pidfd is its.
	if !p.Alive() {
		f.Close()
		return nil, ErrGone
	}
	return f, nil
}

// OpenFile opens a file below /proc/PID of p itself, as "root" or "ns/mnt", or
// returns ErrGone: another process of the number may have the host's.
func (p Process) OpenFile(name string, flags int) (*os.File, error) {
	f, err := os.OpenFile(fmt.Sprintf("/proc/%d/%s", p.Pid, name), flags, 0)
	// Checked after the open: if it is the same process now, the file is its.
	if err == nil && !p.Alive() {
		f.Close()
		err = ErrGone
	}
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Signal sends sig to p and to no process that came after it. It returns
// ErrGone when p has ended. See pidfd_send_signal(2).
func (p Process) Signal(sig unix.Signal) error {
	f, err := p.Open()
	if err != nil {
		return err
	}
	defer f.Close()
	err = unix.PidfdSendSignal(int(f.Fd()), sig, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return ErrGone
	}
	return os.NewSyscallError("pidfd_send_signal", err)
}

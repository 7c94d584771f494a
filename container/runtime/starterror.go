package runtime

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// StartError says at which step, on which object, building the environment or
// starting the program ended. NotFound and NotExecutable tell what a shell's
// 127 and 126 tell.
type StartError struct {
	Step   string `json:"step"`
	Object string `json:"object,omitempty"`
	Text   string `json:"text,omitempty"`
	Errno  int    `json:"errno,omitempty"`
}

func (e *StartError) Error() string {
	s := e.Step
	if e.Object != "" {
		s += " " + e.Object
	}
	switch {
	case e.Text != "":
		return s + ": " + e.Text
	case e.Errno != 0:
		return s + ": " + syscall.Errno(e.Errno).Error()
	}
	return s
}

// Unwrap gives the errno, where there is one.
func (e *StartError) Unwrap() error {
	if e.Errno == 0 {
		return nil
	}
	return syscall.Errno(e.Errno)
}

// stepExec is the Step of an error about the program itself.
const stepExec = "exec"

// NotFound reports whether the program was not found.
func (e *StartError) NotFound() bool {
	return e.Step == stepExec && (e.Errno == int(unix.ENOENT) || e.Errno == int(unix.ENOTDIR))
}

// NotExecutable reports whether the program is there but cannot be executed.
func (e *StartError) NotExecutable() bool { return e.Step == stepExec && !e.NotFound() }

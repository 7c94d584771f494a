package runtime

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/sys"
)

// execute becomes the program.
func (p *initProcess) execute() error {
	proc := p.Spec.Process
	if proc == nil {
		return &StartError{Step: "start", Text: "config.json has no process"}
	}
	paths := lookup(proc)
	sys.ResetSignals()
	// Without no_new_privs the filter wants CAP_SYS_ADMIN, which finish drops.
	if !proc.NoNewPrivileges {
		if err := p.loadFilter(); err != nil {
			return err
		}
	}
	if err := becomeUser(proc); err != nil {
		return err
	}
	if err := accessible(proc); err != nil {
		return err
	}
	if proc.NoNewPrivileges {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return os.NewSyscallError("set no_new_privs", err)
		}
		if err := p.loadFilter(); err != nil {
			return err
		}
	}
	// Whatever was inherited, close-on-exec or not, ends here: close_range(2),
	// Linux 5.9; the flag, 5.11.
	if err := unix.CloseRange(uint(p.connFd), 1<<32-1, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return os.NewSyscallError("close_range", err)
	}
	return execFirst(paths, proc)
}

// workdir enters the working directory. Where start comes from another process,
// whoever created the container wants to know already that the program is missing.
func (p *initProcess) workdir() error {
	proc := p.Spec.Process
	if proc == nil {
		return nil
	}
	if err := enterDir(proc); err != nil || !p.Listen {
		return err
	}
	return executable(proc)
}

// executable tells what execFirst would, without doing it; execve, as the user,
// has the last word.
func executable(proc *specs.Process) error {
	found := syscall.ENOENT
	for _, path := range lookup(proc) {
		info, err := os.Stat(path)
		switch {
		case err != nil:
		case info.Mode().IsRegular() && info.Mode()&0o111 != 0:
			return nil
		default:
			found = syscall.EACCES
		}
	}
	return execError(proc.Args[0], found)
}

// enterDir goes to the working directory, which is made when missing, and makes
// sure that it is one below the root: /proc/self/fd/N would lead out.
func enterDir(proc *specs.Process) error {
	err := os.Chdir(proc.Cwd)
	if errors.Is(err, os.ErrNotExist) {
		unix.Umask(0o022) // this thread's: the program's user is to get in
		if err := os.MkdirAll(proc.Cwd, 0o755); err != nil {
			return fmt.Errorf("make working directory: %w", err)
		}
		err = os.Chdir(proc.Cwd)
	}
	if errors.Is(err, os.ErrPermission) {
		return nil // for the user alone: accessible tries again
	}
	if err != nil {
		return fmt.Errorf("enter working directory: %w", err)
	}
	return inside(proc.Cwd)
}

func inside(cwd string) error {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Getcwd(buf)
	if err != nil || n == 0 || buf[0] != '/' {
		return &StartError{Step: "enter working directory", Object: cwd, Text: "it leads out of the container"}
	}
	return nil
}

// accessible enters the working directory again as the user, who may see what
// root of another machine may not (a network file system).
func accessible(proc *specs.Process) error {
	if err := os.Chdir(proc.Cwd); err != nil {
		return fmt.Errorf("enter working directory as the user: %w", err)
	}
	return inside(proc.Cwd)
}

// defaultPath is what execvp(3) uses without PATH.
const defaultPath = "/bin:/usr/bin"

// lookup lists the paths at which the program may be, as execvp(3) tries them.
func lookup(proc *specs.Process) []string {
	name := proc.Args[0]
	if name == "" || strings.ContainsRune(name, '/') {
		return []string{name} // execve says of "" that there is no such file
	}
	path := defaultPath
	for _, e := range proc.Env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			path = v
		}
	}
	var paths []string
	for _, dir := range strings.Split(path, ":") {
		if dir == "" {
			dir = "."
		}
		paths = append(paths, dir+"/"+name)
	}
	return paths
}

// execFirst becomes the first of paths that can be executed. As execvp(3) does
// it goes on after EACCES and reports it only when nothing else was found.
func execFirst(paths []string, proc *specs.Process) error {
	found := syscall.ENOENT
	for _, path := range paths {
		err := unix.Exec(path, proc.Args, proc.Env)
		switch {
		case errors.Is(err, unix.EACCES):
			found = syscall.EACCES
		case !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR):
			return execError(proc.Args[0], err)
		case errors.Is(err, unix.ENOENT) && exists(path):
			// The file is there: its interpreter or dynamic linker is not.
			return interpreterError(proc.Args[0])
		}
	}
	return execError(proc.Args[0], found)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func interpreterError(name string) error {
	return &StartError{Step: stepExec, Object: name, Text: "its interpreter is not in the image", Errno: int(unix.ENOENT)}
}

func execError(name string, err error) error {
	e := &StartError{Step: stepExec, Object: name}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		e.Errno = int(errno)
	}
	return e
}

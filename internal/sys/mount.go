package sys

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// NewFS makes a detached mount of a new file system. params are fsconfig
// strings: "key=value", or "key" for a flag. attr are MOUNT_ATTR_* flags.
// See fsopen(2), fsconfig(2), fsmount(2), Linux 5.2.
func NewFS(fstype, source string, params []string, attr int) (*os.File, error) {
	fs, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, &os.PathError{Op: "fsopen", Path: fstype, Err: err}
	}
	defer unix.Close(fs)
	if source != "" {
		params = append([]string{"source=" + source}, params...)
	}
	for _, p := range params {
		key, value, ok := strings.Cut(p, "=")
		if ok {
			err = unix.FsconfigSetString(fs, key, value)
		} else {
			err = unix.FsconfigSetFlag(fs, key)
		}
		if err != nil {
			return nil, fsError(fs, fstype, "option "+p, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, fsError(fs, fstype, "", err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attr)
	if err != nil {
		return nil, fsError(fs, fstype, "", err)
	}
	return os.NewFile(uintptr(fd), fstype), nil
}

// fsError adds what the kernel wrote about the failure into the context.
func fsError(fs int, fstype, what string, err error) error {
	op := "mount " + fstype
	if what != "" {
		op += " " + what
	}
	buf := make([]byte, 4096)
	if n, _ := unix.Read(fs, buf); n > 2 {
		return fmt.Errorf("%s: %w (%s)", op, err, strings.TrimSpace(string(buf[2:n])))
	}
	return fmt.Errorf("%s: %w", op, err)
}

// Clone makes a detached copy of the mount at path, relative to dir (nil: the
// working directory), with everything below it when recursive. flags may hold
// AT_SYMLINK_NOFOLLOW. See open_tree(2), Linux 5.2.
func Clone(dir *os.File, path string, recursive bool, flags uint) (*os.File, error) {
	at := unix.AT_FDCWD
	if dir != nil {
		at = int(dir.Fd())
	}
	if path == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(at, path, flags|unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	runtime.KeepAlive(dir)
	if err != nil {
		return nil, &os.PathError{Op: "open_tree", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// SetAttr changes the flags of the mount m, and of all below it when recursive.
// See mount_setattr(2), Linux 5.12.
func SetAttr(m *os.File, recursive bool, attr *unix.MountAttr) error {
	flags := uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	err := unix.MountSetattr(int(m.Fd()), "", flags, attr)
	runtime.KeepAlive(m)
	if err != nil {
		return &os.PathError{Op: "mount_setattr", Path: m.Name(), Err: err}
	}
	return nil
}

// Attach mounts the detached m on target, an open directory or file, whatever
// its path leads to by now. See move_mount(2), Linux 5.2.
func Attach(m, target *os.File) error {
	err := unix.MoveMount(int(m.Fd()), "", int(target.Fd()), "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	runtime.KeepAlive(m)
	runtime.KeepAlive(target)
	if err != nil {
		return &os.PathError{Op: "move_mount", Path: target.Name(), Err: err}
	}
	return nil
}

// EnsureInRoot opens path below root as OpenInRoot does with O_PATH, and makes
// what is missing of it: directories, and last a directory or an empty file.
// Links are followed inside root only, also where they lead to nothing yet, and
// nothing that exists is replaced.
func EnsureInRoot(root *os.File, path string, dir bool, perm uint32) (*os.File, error) {
	return ensure(root, path, dir, perm, maxLinks)
}

// maxLinks is the kernel's limit, MAXSYMLINKS.
const maxLinks = 40

func ensure(root *os.File, path string, dir bool, perm uint32, links int) (*os.File, error) {
	f, err := OpenInRoot(root, path, unix.O_PATH, 0)
	if err == nil || !errors.Is(err, unix.ENOENT) {
		return f, err
	}
	parent, name := splitPath(path)
	if name == "" || name == "." || name == ".." || links == 0 {
		return nil, err
	}
	p, err := ensure(root, parent, true, 0o755, links)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	if err := makeAt(p, name, dir, perm); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, &os.PathError{Op: "create", Path: path, Err: err}
	}
	// EEXIST: a link to nothing stands there, or another process was first. The
	// look-up decides.
	f, err = OpenInRoot(root, path, unix.O_PATH, 0)
	if !errors.Is(err, unix.ENOENT) {
		return f, err
	}
	buf := make([]byte, unix.PathMax)
	n, errLink := unix.Readlinkat(int(p.Fd()), name, buf)
	if errLink != nil {
		return nil, err
	}
	target := string(buf[:n])
	if !strings.HasPrefix(target, "/") {
		target = parent + "/" + target
	}
	return ensure(root, target, dir, perm, links-1)
}

func makeAt(parent *os.File, name string, dir bool, perm uint32) error {
	if dir {
		return unix.Mkdirat(int(parent.Fd()), name, perm)
	}
	fd, err := unix.Openat(int(parent.Fd()), name, unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_WRONLY, perm)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

func splitPath(path string) (parent, name string) {
	path = strings.TrimRight(path, "/")
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return "/", path
	}
	return path[:i+1], path[i+1:]
}

// Mounted reports whether something is mounted on path in this mount namespace.
// See statx(2), STATX_ATTR_MOUNT_ROOT, Linux 5.8.
func Mounted(path string) bool {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, 0, &st)
	return err == nil && st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
}

// UnmountAll detaches all that is mounted on path itself. It succeeds when
// nothing is; see umount(2).
func UnmountAll(path string) error {
	for {
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		switch {
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT):
			return nil
		case err != nil:
			return &os.PathError{Op: "umount", Path: path, Err: err}
		}
	}
}

// MountsBelow are the mount points at dir and below: what is in them is not for
// the owner of dir to remove.
func MountsBelow(dir string) ([]string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var list []string
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.SplitN(lines.Text(), " ", 6)
		if len(fields) < 6 {
			continue
		}
		at := unescape(fields[4])
		if at == dir || strings.HasPrefix(at, dir+"/") {
			list = append(list, at)
		}
	}
	return list, lines.Err()
}

// unescape reads the octal escapes of proc_pid_mountinfo(5).
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

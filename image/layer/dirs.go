package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// maxOpenDirs bounds the descriptors of one dirCache. Archives list directory
// by directory, so few are needed at a time.
const maxOpenDirs = 32

// A dirCache keeps directories of a layer open by their path from the root.
type dirCache struct {
	root *os.File
	fds  map[string]int
}

// lookup opens the directory p; resolve adds to how openat2(2) walks. It never
// leaves the root. The descriptor is good until the next lookup.
func (d *dirCache) lookup(p string, resolve uint64) (int, error) {
	if p == "." {
		return int(d.root.Fd()), nil
	}
	if fd, ok := d.fds[p]; ok {
		return fd, nil
	}
	fd, err := openat2(int(d.root.Fd()), p, unix.O_DIRECTORY|unix.O_RDONLY, resolve|unix.RESOLVE_NO_MAGICLINKS|unix.RESOLVE_NO_XDEV)
	if err != nil {
		return -1, err
	}
	if len(d.fds) >= maxOpenDirs {
		d.close()
	}
	if d.fds == nil {
		d.fds = make(map[string]int, maxOpenDirs)
	}
	d.fds[p] = fd
	return fd, nil
}

// forget closes p and all below it, because it is to be replaced.
func (d *dirCache) forget(p string) {
	for q, fd := range d.fds {
		if q == p || strings.HasPrefix(q, p+"/") {
			unix.Close(fd)
			delete(d.fds, q)
		}
	}
}

func (d *dirCache) close() {
	for _, fd := range d.fds {
		unix.Close(fd)
	}
	clear(d.fds)
}

// parent opens the directory that an entry goes into and makes it when missing.
func (u *unpacker) parent(dir string) (int, error) {
	fd, err := u.dirs.lookup(dir, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS)
	if err == nil {
		return fd, nil
	}
	if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ELOOP) && !errors.Is(err, unix.ENOTDIR) {
		return -1, err
	}
	// Make what is missing, from the nearest parent that is there.
	if up := path.Dir(dir); up != "." {
		if _, err := u.parent(up); err != nil {
			return -1, err
		}
	}
	return u.step(dir)
}

// step opens dir, whose parents exist, following links of the layer within it,
// as a chrooted tar would; a missing one is made.
func (u *unpacker) step(dir string) (int, error) {
	fd, err := u.dirs.lookup(dir, unix.RESOLVE_IN_ROOT)
	if err == nil || errors.Is(err, unix.ELOOP) {
		return fd, err
	}
	above, base := path.Split(dir)
	up, uerr := u.dirs.lookup(path.Clean(above), unix.RESOLVE_IN_ROOT)
	if uerr != nil {
		return -1, uerr
	}
	var st unix.Stat_t
	serr := fstatat(up, base, &st)
	switch {
	case errors.Is(serr, unix.ENOENT):
	case serr != nil:
		return -1, serr
	case isWhiteout(&st):
		// Hidden by this layer, and then filled again: an opaque directory.
		if err := unlinkat(up, base, 0); err != nil {
			return -1, err
		}
	default:
		return -1, fmt.Errorf("%q is no directory of this layer: %w", dir, err)
	}
	if err := mkdirat(up, base, 0o755); err != nil {
		return -1, err
	}
	u.res.Disk += block
	if serr == nil {
		return u.openOpaque(dir)
	}
	u.res.Implied = append(u.res.Implied, dir)
	return u.dirs.lookup(dir, unix.RESOLVE_IN_ROOT)
}

func (u *unpacker) openOpaque(dir string) (int, error) {
	fd, err := u.dirs.lookup(dir, unix.RESOLVE_IN_ROOT)
	if err != nil {
		return -1, err
	}
	return fd, u.setOpaque(fd)
}

// mkdir makes a directory, or takes over the one that is there.
func (u *unpacker) mkdir(parent int, base string, hdr *tar.Header) error {
	err := mkdirat(parent, base, 0o700)
	if errors.Is(err, unix.EEXIST) {
		var st unix.Stat_t
		if err := fstatat(parent, base, &st); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			u.later(hdr)
			return nil
		}
		if err := unlinkat(parent, base, 0); err != nil {
			return err
		}
		u.dirs.forget(hdr.Name)
		if err = mkdirat(parent, base, 0o700); err == nil && isWhiteout(&st) {
			_, err = u.openOpaque(hdr.Name)
		}
	}
	if err != nil {
		return err
	}
	u.res.Disk += block
	u.later(hdr)
	return nil
}

// later remembers a directory's attributes for finish; the last entry counts.
func (u *unpacker) later(hdr *tar.Header) {
	if i, ok := u.byPath[hdr.Name]; ok {
		u.pending[i] = hdr
		return
	}
	u.byPath[hdr.Name] = len(u.pending)
	u.pending = append(u.pending, hdr)
}

// forgetDirs drops what later noted for a directory that was replaced.
func (u *unpacker) forgetDirs(name string) {
	u.dirs.forget(name)
	for i, hdr := range u.pending {
		if hdr != nil && (hdr.Name == name || strings.HasPrefix(hdr.Name, name+"/")) {
			delete(u.byPath, hdr.Name)
			u.pending[i] = nil
		}
	}
}

// finish gives the directories their attributes, children before parents.
func (u *unpacker) finish() error {
	implied := u.res.Implied[:0]
	for _, dir := range u.res.Implied {
		if _, ok := u.byPath[dir]; !ok {
			implied = append(implied, dir)
		}
	}
	u.res.Implied = implied
	if _, ok := u.byPath["."]; !ok {
		u.res.Implied = append(u.res.Implied, ".")
	}
	for i := len(u.pending) - 1; i >= 0; i-- {
		hdr := u.pending[i]
		if hdr == nil {
			continue
		}
		fd, err := u.dirs.lookup(hdr.Name, unix.RESOLVE_IN_ROOT)
		if err != nil {
			return fmt.Errorf("unpack %.255q: %w", hdr.Name, err)
		}
		if err := u.attributes(fd, hdr); err != nil {
			return fmt.Errorf("unpack %.255q: %w", hdr.Name, err)
		}
		// A directory of many names has more than the one block it was counted with.
		var st unix.Stat_t
		if hdr.Name != "." && unix.Fstat(fd, &st) == nil {
			u.res.Disk += st.Blocks*512 - block
		}
	}
	return nil
}

// displace removes what an earlier entry of this archive put at base.
func (u *unpacker) displace(parent int, base, name string) error {
	var st unix.Stat_t
	if err := fstatat(parent, base, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return unlinkat(parent, base, 0)
	}
	u.forgetDirs(name)
	return removeTree(parent, base)
}

// whiteout makes overlay's form of an archive's whiteout. It hides what lies in
// the layers below; what this layer itself has stays, whatever the order.
func (u *unpacker) whiteout(parent int, dir, hidden, base string) error {
	switch {
	case base == opaqueMarker && dir == ".":
		u.res.HideRoot = true
		return nil
	case base == opaqueMarker:
		return u.setOpaque(parent)
	case strings.HasPrefix(base, aufsPrefix):
		return nil
	case hidden == "" || hidden == "." || hidden == "..":
		return errors.New("invalid whiteout")
	}
	err := makeWhiteout(parent, hidden)
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	var st unix.Stat_t
	if err := fstatat(parent, hidden, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return err
	}
	_, err = u.openOpaque(path.Join(dir, hidden))
	return err
}

func (u *unpacker) setOpaque(fd int) error {
	return os.NewSyscallError("fsetxattr", unix.Fsetxattr(fd, overlayXattr(u.o.Rootless, "opaque"), []byte("y"), 0))
}

package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// entry unpacks one entry of any kind.
func (u *unpacker) entry(hdr *tar.Header, body io.Reader) error {
	if hdr.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name, err := cleanName(hdr.Name)
	if err != nil {
		return err
	}
	hdr.Name = name
	if name == "." {
		if hdr.Typeflag != tar.TypeDir {
			return errors.New("the root of a layer must be a directory")
		}
		u.later(hdr)
		return nil
	}
	dir, base := path.Split(name)
	dir = path.Clean(dir)
	parent, err := u.parent(dir)
	if err != nil {
		return err
	}
	if hidden, is := strings.CutPrefix(base, whiteoutPrefix); is {
		return u.whiteout(parent, dir, hidden, base)
	}
	return u.create(parent, base, hdr, body)
}

// cleanName returns name relative to the layer's root, "." for the root.
func cleanName(name string) (string, error) {
	if name == "" || len(name) > 4096 || strings.IndexByte(name, 0) >= 0 {
		return "", errors.New("invalid name")
	}
	for part := range strings.SplitSeq(name, "/") {
		switch {
		case part == "..":
			return "", errors.New("name leaves the layer")
		case len(part) > 255:
			return "", errors.New("name is longer than 255 bytes")
		}
	}
	// Absolute names are names below the root.
	return path.Clean("./" + name), nil
}

// create makes the object of hdr, in place of one that an earlier entry made.
func (u *unpacker) create(parent int, base string, hdr *tar.Header, body io.Reader) error {
	if hdr.Typeflag == tar.TypeDir {
		return u.mkdir(parent, base, hdr)
	}
	err := u.make(parent, base, hdr, body)
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	if err := u.displace(parent, base, hdr.Name); err != nil {
		return err
	}
	return u.make(parent, base, hdr, body)
}

func (u *unpacker) make(parent int, base string, hdr *tar.Header, body io.Reader) error {
	switch hdr.Typeflag {
	case tar.TypeReg, tar.TypeRegA, tar.TypeGNUSparse, tar.TypeCont: //nolint:staticcheck // old archives have TypeRegA
		return u.regular(parent, base, hdr, body)
	case tar.TypeLink:
		return u.hardLink(parent, base, hdr)
	case tar.TypeSymlink:
		return u.symlink(parent, base, hdr)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return u.node(parent, base, hdr)
	}
	return fmt.Errorf("unknown entry type %q", hdr.Typeflag)
}

// maxSparse bounds what the sparse files of one layer may have together.
const maxSparse = 32 << 30

func isSparse(hdr *tar.Header) bool {
	_, old := hdr.PAXRecords["GNU.sparse.size"]
	_, current := hdr.PAXRecords["GNU.sparse.realsize"]
	return hdr.Typeflag == tar.TypeGNUSparse || old || current
}

func (u *unpacker) regular(parent int, base string, hdr *tar.Header, body io.Reader) error {
	if isSparse(hdr) {
		if u.sparse += hdr.Size; u.sparse > maxSparse || hdr.Size > maxSparse {
			return fmt.Errorf("%w: sparse files of more than %d bytes", ErrTooLarge, int64(maxSparse))
		}
	}
	fd, err := openat(parent, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	if err = u.fill(fd, body); err == nil {
		err = u.attributes(fd, hdr)
	}
	if cerr := unix.Close(fd); err == nil && cerr != nil {
		err = os.NewSyscallError("close", cerr)
	}
	return err
}

// fill copies the file's content. Long runs of zeros become holes, so that a
// sparse file stays one and a bomb of zeros fills no disk.
func (u *unpacker) fill(fd int, body io.Reader) error {
	var size, hole int64
	for {
		n, err := readChunk(body, u.buf)
		if n > 0 {
			size += int64(n)
			if n == len(u.buf) && allZero(u.buf) {
				hole += int64(n)
			} else {
				if hole > 0 {
					if _, err := unix.Seek(fd, hole, io.SeekCurrent); err != nil {
						return os.NewSyscallError("lseek", err)
					}
					u.res.Disk -= hole
					hole = 0
				}
				if err := writeAll(fd, u.buf[:n]); err != nil {
					return err
				}
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	if hole > 0 {
		u.res.Disk -= hole
		if err := unix.Ftruncate(fd, size); err != nil {
			return os.NewSyscallError("ftruncate", err)
		}
	}
	u.count(size)
	return nil
}

// readChunk fills b as far as body goes; io.EOF comes with the last bytes.
func readChunk(body io.Reader, b []byte) (int, error) {
	n := 0
	for n < len(b) {
		m, err := body.Read(b[n:])
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

const block = 4096

func (u *unpacker) count(size int64) {
	u.res.Size += size
	u.res.Disk += (size + block - 1) / block * block
}

func (u *unpacker) symlink(parent int, base string, hdr *tar.Header) error {
	if hdr.Linkname == "" || len(hdr.Linkname) >= 4096 {
		return errors.New("invalid link target")
	}
	if err := unix.Symlinkat(hdr.Linkname, parent, base); err != nil {
		return os.NewSyscallError("symlinkat", err)
	}
	// ext4 keeps a short target in the inode, others longer ones.
	var st unix.Stat_t
	if len(hdr.Linkname) >= 60 && fstatat(parent, base, &st) == nil {
		u.res.Disk += st.Blocks * 512
	}
	return u.attributesAt(parent, base, hdr)
}

// hardLink links to a file of this layer. The last component of its target is
// not followed, so the link is to the symlink itself where it is one.
func (u *unpacker) hardLink(parent int, base string, hdr *tar.Header) error {
	target, err := cleanName(hdr.Linkname)
	if err != nil {
		return fmt.Errorf("link target %.255q: %w", hdr.Linkname, err)
	}
	if target == hdr.Name {
		return fmt.Errorf("link to itself")
	}
	dir, last := path.Split(target)
	from, err := u.dirs.lookup(path.Clean(dir), unix.RESOLVE_IN_ROOT)
	if err == nil {
		// The second lookup may have closed the first one's descriptor.
		parent, err = u.parent(path.Dir(hdr.Name))
	}
	if err == nil {
		err = os.NewSyscallError("linkat", unix.Linkat(from, last, parent, base, 0))
	}
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("link target %.255q is not in this layer", target)
	}
	return err
}

func (u *unpacker) node(parent int, base string, hdr *tar.Header) error {
	kind := map[byte]uint32{tar.TypeChar: unix.S_IFCHR, tar.TypeBlock: unix.S_IFBLK, tar.TypeFifo: unix.S_IFIFO}[hdr.Typeflag]
	var dev uint64
	if hdr.Typeflag != tar.TypeFifo {
		if u.o.Rootless {
			return nil // an unprivileged user may make none
		}
		dev = unix.Mkdev(uint32(hdr.Devmajor), uint32(hdr.Devminor))
		if hdr.Typeflag == tar.TypeChar && dev == 0 {
			return errors.New("device 0:0 would be a whiteout")
		}
	}
	if err := unix.Mknodat(parent, base, kind|0o600, int(dev)); err != nil {
		return os.NewSyscallError("mknodat", err)
	}
	return u.attributesAt(parent, base, hdr)
}

package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/sys"
)

// DiffOptions say how an upper directory is packed.
type DiffOptions struct {
	// Rootless reads user.overlay.* attributes.
	Rootless bool
	// Flat packs the whole tree, without whiteouts: an export of a mounted root.
	Flat bool
	// Owner, unless nil, translates the owners of the tree to those of the archive.
	Owner func(uid, gid uint32) (uint32, uint32)
}

// WriteDiff writes the layer archive of upper, overlay's directory of changes
// above lowers (top first), to w. Entries come in the order of their names, so
// equal trees give equal archives. The tree must not change meanwhile.
func WriteDiff(ctx context.Context, w io.Writer, upper string, lowers []string, o DiffOptions) (Result, error) {
	root, err := os.OpenFile(upper, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return Result{}, err
	}
	defer root.Close()
	p := &packer{ctx: ctx, tw: tar.NewWriter(w), lowers: lowers, o: o, links: map[inode]string{}, buf: make([]byte, 64<<10)}
	if err := p.dir(root, "."); err != nil {
		return p.res, err
	}
	return p.res, p.tw.Close()
}

type inode struct{ dev, ino uint64 }

type packer struct {
	ctx    context.Context
	tw     *tar.Writer
	lowers []string
	o      DiffOptions
	// links are the first names of files with several.
	links map[inode]string
	buf   []byte
	res   Result
}

// dir packs what is in an open directory; its own entry is written by its parent.
func (p *packer) dir(d *os.File, name string) error {
	names, err := d.Readdirnames(-1)
	if err != nil {
		return err
	}
	slices.Sort(names)
	if !p.o.Flat && name != "." && hasOpaque(int(d.Fd()), p.o.Rootless) {
		if err := p.marker(path.Join(name, opaqueMarker)); err != nil {
			return err
		}
	}
	for _, n := range names {
		if p.ctx.Err() != nil {
			return context.Cause(p.ctx)
		}
		if err := p.entry(d, n, path.Join(name, n)); err != nil {
			return fmt.Errorf("pack %.255q: %w", path.Join(name, n), err)
		}
	}
	return nil
}

func hasOpaque(fd int, rootless bool) bool {
	v, err := getXattr(fd, overlayXattr(rootless, "opaque"))
	return err == nil && len(v) == 1 && v[0] == 'y'
}

// marker writes an empty file that means something is hidden.
func (p *packer) marker(name string) error {
	p.res.Files++
	return p.tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o600, Format: tar.FormatPAX})
}

func (p *packer) entry(d *os.File, base, name string) error {
	var st unix.Stat_t
	if err := fstatat(int(d.Fd()), base, &st); err != nil {
		return err
	}
	if isWhiteout(&st) && !p.o.Flat {
		return p.marker(path.Join(path.Dir(name), whiteoutPrefix+base))
	}
	if st.Mode&unix.S_IFMT == unix.S_IFSOCK {
		return nil // sockets have no form in an archive
	}
	if p.o.Owner != nil {
		st.Uid, st.Gid = p.o.Owner(st.Uid, st.Gid)
	}
	hdr, err := header(d, base, name, &st)
	if err != nil {
		return err
	}
	p.res.Files++
	if hdr.Typeflag == tar.TypeReg {
		return p.file(d, base, hdr, &st)
	}
	p.res.Disk += st.Blocks * 512
	if hdr.Typeflag == tar.TypeDir {
		return p.directory(d, base, hdr)
	}
	return p.tw.WriteHeader(hdr)
}

func (p *packer) directory(d *os.File, base string, hdr *tar.Header) error {
	sub, err := open(d, base, unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer sub.Close()
	hdr.PAXRecords = packXattrs(int(sub.Fd()))
	name := hdr.Name
	hdr.Name += "/"
	if err := p.tw.WriteHeader(hdr); err != nil {
		return err
	}
	return p.dir(sub, name)
}

func (p *packer) file(d *os.File, base string, hdr *tar.Header, st *unix.Stat_t) error {
	if st.Nlink > 1 {
		id := inode{uint64(st.Dev), st.Ino}
		if first, ok := p.links[id]; ok {
			hdr.Typeflag, hdr.Linkname, hdr.Size = tar.TypeLink, first, 0
			return p.tw.WriteHeader(hdr)
		}
		p.links[id] = hdr.Name
	}
	f, err := openRegular(d, base)
	if err != nil {
		return err
	}
	defer f.Close()
	hdr.PAXRecords = packXattrs(int(f.Fd()))
	p.res.Size += st.Size
	p.res.Disk += st.Blocks * 512
	if err := p.tw.WriteHeader(hdr); err != nil {
		return err
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{p.tw}, struct{ io.Reader }{io.LimitReader(f, st.Size)}, p.buf)
	if err == nil && n < st.Size {
		err = errors.New("the file shrank while it was read")
	}
	return err
}

func open(d *os.File, base string, flags int) (*os.File, error) {
	fd, err := openat(int(d.Fd()), base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|flags, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), base), nil
}

// openRegular opens what was a regular file when it was looked at: a container
// that runs may have put a device or a FIFO in its place.
func openRegular(d *os.File, base string) (*os.File, error) {
	f, err := open(d, base, unix.O_PATH)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return sys.ReopenRegular(f)
}

// header describes an object as an archive does.
func header(d *os.File, base, name string, st *unix.Stat_t) (*tar.Header, error) {
	hdr := &tar.Header{
		Name: name, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid),
		ModTime: time.Unix(st.Mtim.Sec, st.Mtim.Nsec), Format: tar.FormatPAX,
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		hdr.Typeflag, hdr.Size = tar.TypeReg, st.Size
	case unix.S_IFDIR:
		hdr.Typeflag = tar.TypeDir
	case unix.S_IFLNK:
		hdr.Typeflag = tar.TypeSymlink
		buf := make([]byte, 4097)
		n, err := unix.Readlinkat(int(d.Fd()), base, buf)
		if err != nil {
			return nil, os.NewSyscallError("readlinkat", err)
		}
		hdr.Linkname = string(buf[:n])
	case unix.S_IFCHR, unix.S_IFBLK:
		hdr.Typeflag = tar.TypeChar
		if st.Mode&unix.S_IFMT == unix.S_IFBLK {
			hdr.Typeflag = tar.TypeBlock
		}
		hdr.Devmajor, hdr.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	case unix.S_IFIFO:
		hdr.Typeflag = tar.TypeFifo
	default:
		return nil, fmt.Errorf("unknown kind of file %o", st.Mode&unix.S_IFMT)
	}
	return hdr, nil
}

// packXattrs returns an object's attributes as PAX records, without overlay's.
func packXattrs(fd int) map[string]string {
	var records map[string]string
	for _, name := range listXattrs(fd) {
		if !keptXattr(name) || strings.HasPrefix(name, "system.") || name == "security.selinux" {
			continue
		}
		value, err := getXattr(fd, name)
		if err != nil {
			continue
		}
		if records == nil {
			records = map[string]string{}
		}
		records[paxXattr+name] = string(value)
	}
	return records
}

package layer

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// Options say how a layer is unpacked.
type Options struct {
	// Rootless uses user.overlay.* attributes, leaves out device nodes, and keeps
	// the caller's owner where an id is not mapped.
	Rootless bool
	// MaxBytes bounds the uncompressed archive; 0 is no bound.
	MaxBytes int64
}

// A Result is what unpacking found out.
type Result struct {
	// DiffID is the digest of the uncompressed archive, "sha256:…".
	DiffID string
	// Size is the sum of the regular files' sizes in bytes, as docker counts it.
	Size int64
	// Disk is how much of the file system that is: whole blocks, directories too.
	Disk int64
	// Files is the number of entries.
	Files int
	// Implied are the directories that the archive has no entry for. They take
	// mode, owner, times and attributes from the layers below; see Adopt.
	Implied []string
	// HideRoot says that the archive hides everything below the layer; overlay
	// knows no opaque root, so Adopt makes whiteouts.
	HideRoot bool
}

// Apply unpacks the archive r, compressed or not, into dir, an empty directory
// that nobody else writes to. After an error dir holds a part of the layer.
func Apply(ctx context.Context, dir string, r io.Reader, o Options) (Result, error) {
	src, _, err := Decompress(r)
	if err != nil {
		return Result{}, err
	}
	defer src.Close()
	root, err := os.OpenFile(dir, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return Result{}, err
	}
	defer root.Close()
	h := sha256.New()
	p := newPipeline(ctx, limited(src, o.MaxBytes), h)
	defer p.Close()
	u := newUnpacker(root, o)
	defer u.dirs.close()
	if err := u.unpack(ctx, p); err != nil {
		return Result{}, err
	}
	// The digest covers what follows the archive's end marker too.
	if _, err := io.Copy(io.Discard, p); err != nil {
		return Result{}, err
	}
	u.res.DiffID = digestOf(h)
	return u.res, nil
}

// limited fails once more than n bytes were read.
func limited(r io.Reader, n int64) io.Reader {
	if n <= 0 {
		return r
	}
	return &limitedReader{r, n}
}

type limitedReader struct {
	r    io.Reader
	left int64
}

func (l *limitedReader) Read(b []byte) (int, error) {
	if l.left < 0 {
		return 0, ErrTooLarge
	}
	if int64(len(b)) > l.left+1 {
		b = b[:l.left+1]
	}
	n, err := l.r.Read(b)
	l.left -= int64(n)
	if l.left < 0 {
		return 0, ErrTooLarge
	}
	return n, err
}

type unpacker struct {
	root *os.File
	o    Options
	dirs dirCache
	// pending are the directories whose attributes come last, because adding
	// names to a directory changes its times and a set-gid one its children.
	pending []*tar.Header
	byPath  map[string]int
	buf     []byte
	res     Result
}

func newUnpacker(root *os.File, o Options) *unpacker {
	return &unpacker{
		root: root, o: o, dirs: dirCache{root: root},
		byPath: map[string]int{}, buf: make([]byte, 64<<10),
	}
}

func (u *unpacker) unpack(ctx context.Context, r io.Reader) error {
	tr := tar.NewReader(r)
	for {
		hdr, err := tr.Next()
		switch {
		case errors.Is(err, io.EOF):
			return u.finish()
		case err != nil:
			return fmt.Errorf("read layer archive: %w", err)
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case u.res.Files >= maxEntries:
			return fmt.Errorf("%w: more than %d entries", ErrTooLarge, maxEntries)
		}
		u.res.Files++
		if err := u.entry(hdr, tr); err != nil {
			return fmt.Errorf("unpack %.255q: %w", hdr.Name, err)
		}
	}
}

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

func (u *unpacker) regular(parent int, base string, hdr *tar.Header, body io.Reader) error {
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

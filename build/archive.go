package build

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/sys"
)

// decompress looks at the first bytes of r and undoes gzip, bzip2, xz or zstd;
// what is none of them comes back as it is. The name does not matter.
func decompress(r io.Reader) (io.ReadCloser, error) {
	b := bufio.NewReaderSize(r, 64<<10)
	head, _ := b.Peek(6)
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return gzip.NewReader(b)
	case bytes.HasPrefix(head, []byte("BZh")):
		return io.NopCloser(bzip2.NewReader(b)), nil
	case bytes.HasPrefix(head, []byte("\xfd7zXZ\x00")):
		x, err := xz.NewReader(b)
		return io.NopCloser(x), err
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	}
	return io.NopCloser(b), nil
}

// isArchive reports whether the file p is a tar archive, compressed or not.
func (s *source) isArchive(p string) bool {
	f, err := sys.OpenRegular(s.root, p)
	if err != nil {
		return false
	}
	defer f.Close()
	r, err := decompress(f)
	if err != nil {
		return false
	}
	defer r.Close()
	_, err = tar.NewReader(r).Next()
	return err == nil
}

// unpack writes the archive's content below dest.
func (w *copier) unpack(g *group, dest string) (err error) {
	f, err := sys.OpenRegular(g.src.root, g.items[0].path)
	if err != nil {
		return err
	}
	defer f.Close()
	r, err := decompress(f)
	if err != nil {
		return fmt.Errorf("%s: %w", g.items[0].path, err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	x := untar{t: w.t, dest: dest, owner: w.owner, mode: w.mode, limit: maxUnpacked(g.items[0].stat.Size)}
	if err := x.all(tar.NewReader(r)); err != nil {
		return fmt.Errorf("unpack %s: %w", g.items[0].path, err)
	}
	return nil
}

// An untar writes a tar archive into a tree. Names are taken below dest, links
// are looked up below the tree's root, and nothing is written outside it.
type untar struct {
	t     *tree
	dest  string
	owner *identity
	mode  chmod
	// flat drops owners: the archive is a context, whose ids mean nothing.
	flat bool
	// limit is how many more bytes the files may have: a small archive can name
	// a file of exabytes.
	limit int64
}

// maxUnpacked is how many bytes an archive of size bytes may unpack to. gzip
// reaches 1032:1; real archives stay below 100:1, and small ones are let be.
func maxUnpacked(size int64) int64 { return max(8<<30, size*200) }

func (x *untar) all(r *tar.Reader) error {
	for n := 0; ; n++ {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if n >= maxItems {
			return fmt.Errorf("more than %d entries", maxItems)
		}
		if err := x.entry(h, r); err != nil {
			return fmt.Errorf("%q: %w", h.Name, err)
		}
	}
}

// place is where a name of the archive goes.
func (x *untar) place(name string) string {
	return path.Join(x.dest, path.Join("/", name))
}

func (x *untar) entry(h *tar.Header, r io.Reader) error {
	if strings.ContainsRune(h.Name, 0) || len(h.Name) > unix.PathMax {
		return errors.New("not a file name")
	}
	if x.limit -= max(h.Size, 0); h.Size < 0 || x.limit < 0 {
		return errors.New("unpacks to more than the archive's size accounts for")
	}
	to := x.place(h.Name)
	dir := h.Typeflag == tar.TypeDir
	m := x.meta(h, dir)
	if to == path.Join("/", x.dest) {
		return nil // the root of the archive is the destination
	}
	if err := x.t.mkdirAll(path.Dir(to), 0, 0); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return x.t.mkdir(to, m, true)
	case tar.TypeReg, tar.TypeGNUSparse:
		return x.t.file(to, m, func(f *os.File) error {
			_, err := io.Copy(f, r)
			return err
		})
	case tar.TypeSymlink:
		return x.t.symlink(to, h.Linkname, m)
	case tar.TypeLink:
		return x.t.link(to, x.place(h.Linkname))
	case tar.TypeFifo:
		return x.t.node(to, unix.S_IFIFO, 0, m)
	case tar.TypeChar, tar.TypeBlock:
		if x.flat {
			return nil
		}
		kind := uint32(unix.S_IFCHR)
		if h.Typeflag == tar.TypeBlock {
			kind = unix.S_IFBLK
		}
		return x.t.node(to, kind, unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor)), m)
	case tar.TypeXGlobalHeader:
		return nil
	}
	return fmt.Errorf("type %q: not one that kist unpacks", h.Typeflag)
}

func (x *untar) meta(h *tar.Header, dir bool) meta {
	m := meta{uid: h.Uid, gid: h.Gid, mode: uint32(h.Mode) & 0o7777, mtime: unix.NsecToTimespec(h.ModTime.UnixNano())}
	switch {
	case x.owner != nil:
		m.uid, m.gid = x.owner.uid, x.owner.gid
	case x.flat:
		m.uid, m.gid = 0, 0
	}
	if x.mode != nil {
		m.mode = x.mode(m.mode, dir)
	}
	for k, v := range h.PAXRecords {
		if name, ok := strings.CutPrefix(k, "SCHILY.xattr."); ok && keeps(name) {
			m.attrs = append(m.attrs, attr{name, v})
		}
	}
	return m
}

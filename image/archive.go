package image

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"github.com/kist-containers/kist/image/layer"
)

// An archive is a set of named files: a tar archive or a directory.
type archive interface {
	// open returns the content of a regular file.
	open(name string) (*io.SectionReader, error)
	Close() error
}

// maxArchiveFiles bounds the names of an archive that are kept in memory.
const maxArchiveFiles = 1 << 16

type tarArchive struct {
	f     *os.File
	files map[string]tarFile
}

type tarFile struct {
	off, size int64
	link      string
}

// openArchive opens the file or directory at path.
func openArchive(path, spool string) (archive, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && st.IsDir() {
		root, err := os.OpenRoot(path)
		f.Close()
		return dirArchive{root}, err
	}
	return readArchive(f, spool)
}

// readArchive indexes the archive f and takes it over. One that is compressed,
// or that cannot be read twice, is first copied to an unnamed file in spool.
func readArchive(f *os.File, spool string) (archive, error) {
	head := make([]byte, 6)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) || n > 0 && layer.Detect(head[:n]) != layer.None {
		g, serr := spooled(f, spool)
		f.Close()
		if serr != nil {
			return nil, serr
		}
		f = g
	}
	a, err := indexTar(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	return a, nil
}

// spooled copies r, decompressed, to a file without a name. See open(2), O_TMPFILE.
func spooled(r io.Reader, dir string) (*os.File, error) {
	plain, _, err := layer.Decompress(r)
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	f, err := tempFile(dir)
	if err != nil {
		return nil, err
	}
	if _, err = io.CopyBuffer(struct{ io.Writer }{f}, plain, make([]byte, copyBuffer)); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// tempFile opens a file that is gone when it is closed.
func tempFile(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, ".tmp-")
	if err != nil {
		return nil, err
	}
	return f, os.Remove(f.Name())
}

func indexTar(f *os.File) (*tarArchive, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	a := &tarArchive{f: f, files: map[string]tarFile{}}
	tr := tar.NewReader(f)
	for {
		hdr, err := tr.Next()
		switch {
		case errors.Is(err, io.EOF):
			return a, nil
		case errors.Is(err, tar.ErrHeader) && len(a.files) == 0:
			return nil, errors.New("not a tar archive")
		case err != nil:
			return nil, fmt.Errorf("read archive: %w", err)
		case len(a.files) >= maxArchiveFiles:
			return nil, fmt.Errorf("read archive: more than %d files", maxArchiveFiles)
		}
		name := path.Clean("/" + hdr.Name)
		switch hdr.Typeflag {
		case tar.TypeReg:
			// The reader takes whole blocks from f, so f stands at the content.
			off, err := f.Seek(0, io.SeekCurrent)
			if err != nil {
				return nil, err
			}
			a.files[name] = tarFile{off: off, size: hdr.Size}
		case tar.TypeSymlink:
			a.files[name] = tarFile{link: path.Join(path.Dir(name), hdr.Linkname)}
		case tar.TypeLink:
			a.files[name] = tarFile{link: path.Clean("/" + hdr.Linkname)}
		}
	}
}

func (a *tarArchive) open(name string) (*io.SectionReader, error) {
	name = path.Clean("/" + name)
	for range 8 {
		f, ok := a.files[name]
		if !ok {
			break
		}
		if f.link == "" {
			return io.NewSectionReader(a.f, f.off, f.size), nil
		}
		name = f.link
	}
	return nil, fmt.Errorf("%.255s: %w", name[1:], os.ErrNotExist)
}

func (a *tarArchive) Close() error { return a.f.Close() }

// A dirArchive is a directory; no link leads out of it.
type dirArchive struct{ root *os.Root }

func (a dirArchive) open(name string) (*io.SectionReader, error) {
	f, err := a.root.Open(path.Clean("./" + name))
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%.255s: not a regular file", name)
	}
	return io.NewSectionReader(f, 0, st.Size()), nil
}

func (a dirArchive) Close() error { return a.root.Close() }

// readDocument reads a small file of an archive.
func readDocument(a archive, name string, limit int64) ([]byte, error) {
	r, err := a.open(name)
	if err != nil {
		return nil, err
	}
	data, err := readAll(r, limit)
	if err != nil {
		return nil, fmt.Errorf("%.255s: %w", name, err)
	}
	return data, nil
}

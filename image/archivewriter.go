package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// An archiveWriter writes tar with the files' contents copied by the kernel
// where it can (copy_file_range(2)), which archive/tar's own writer prevents.
type archiveWriter struct{ w io.Writer }

func (a *archiveWriter) header(name string, size int64) error {
	var b bytes.Buffer
	err := tar.NewWriter(&b).WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: time.Unix(0, 0),
	})
	if err == nil {
		_, err = a.w.Write(b.Bytes())
	}
	return err
}

func (a *archiveWriter) pad(size int64) error {
	_, err := a.w.Write(make([]byte, -size&511))
	return err
}

func (a *archiveWriter) document(name string, data []byte) error {
	if err := a.header(name, int64(len(data))); err != nil {
		return err
	}
	if _, err := a.w.Write(data); err != nil {
		return err
	}
	return a.pad(int64(len(data)))
}

func (a *archiveWriter) file(name, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if err := a.header(name, st.Size()); err != nil {
		return err
	}
	if n, err := io.Copy(a.w, f); err != nil || n != st.Size() {
		return errors.Join(err, sizeError(n, st.Size()))
	}
	return a.pad(st.Size())
}

func sizeError(n, want int64) error {
	if n != want {
		return fmt.Errorf("copied %d of %d bytes", n, want)
	}
	return nil
}

// close writes the two empty blocks that end an archive.
func (a *archiveWriter) close() error {
	_, err := a.w.Write(make([]byte, 1024))
	return err
}

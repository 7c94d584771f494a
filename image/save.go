package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kist-containers/kist/internal/ui"
)

// Formats of saved images.
const (
	DockerArchive = "docker-archive"
	OCIArchive    = "oci-archive"
	OCIDir        = "oci-dir"
)

// Save writes images to w. A docker archive is an OCI layout with docker's
// manifest.json besides, as docker itself writes it since version 25: the blobs
// go out as they are, so saving copies files and computes nothing.
func (s *Store) Save(ctx context.Context, w io.Writer, names []string, format string) error {
	pin, err := s.Pin(ctx)
	if err != nil {
		return err
	}
	defer s.unpin(pin)
	l, err := s.layoutOf(names)
	if err != nil {
		return err
	}
	return s.writeArchive(ctx, w, l, format)
}

func (s *Store) writeArchive(ctx context.Context, w io.Writer, l *savedLayout, format string) error {
	a := &archiveWriter{w: w}
	if err := l.documents(format, a.document); err != nil {
		return err
	}
	for _, d := range l.blobs {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := a.file(blobName(d.Digest), s.blobPath(d.Digest)); err != nil {
			return fmt.Errorf("blob %s: %w", short(d.Digest.String()), err)
		}
	}
	return a.close()
}

// SaveDir writes images as an OCI layout directory, which must not exist or be
// empty.
func (s *Store) SaveDir(ctx context.Context, dir string, names []string) error {
	pin, err := s.Pin(ctx)
	if err != nil {
		return err
	}
	defer s.unpin(pin)
	l, err := s.layoutOf(names)
	if err != nil {
		return err
	}
	if old, err := os.ReadDir(dir); err == nil && len(old) > 0 {
		return fmt.Errorf("%s is not empty", dir)
	}
	if err := os.MkdirAll(filepath.Join(dir, "blobs/sha256"), 0o755); err != nil {
		return err
	}
	for _, d := range l.blobs {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := copyFile(filepath.Join(dir, blobName(d.Digest)), s.blobPath(d.Digest)); err != nil {
			return err
		}
	}
	return l.documents(OCIArchive, func(name string, data []byte) error {
		return os.WriteFile(filepath.Join(dir, name), data, 0o644)
	})
}

func copyFile(to, from string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = io.Copy(out, in)
	return err
}

// A savedLayout is what a layout of some images consists of.
type savedLayout struct {
	index v1.IndexManifest
	items []dockerItem
	blobs []v1.Descriptor
	seen  map[v1.Hash]bool
}

func (s *Store) layoutOf(names []string) (*savedLayout, error) {
	entries, err := s.readIndex()
	if err != nil {
		return nil, err
	}
	l := &savedLayout{seen: map[v1.Hash]bool{}, index: v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}}
	for _, name := range names {
		e, err := find(entries, name)
		if err != nil {
			return nil, err
		}
		if err := s.addToLayout(l, e, name); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// addToLayout adds an image; saved by its ID, it has no name in the archive.
func (s *Store) addToLayout(l *savedLayout, e entry, name string) error {
	d := v1.Descriptor{MediaType: e.MediaType, Digest: e.Digest, Size: e.Size, Platform: e.Platform}
	var tag string
	if r := e.ref(); r.Tag != "" && !isID(e, name) {
		tag = r.Familiar()
		d.Annotations = map[string]string{"io.containerd.image.name": r.String(), noteName: r.Tag}
	}
	l.index.Manifests = append(l.index.Manifests, d)
	return s.addBlobs(l, d, tag, 0)
}

func (s *Store) addBlobs(l *savedLayout, d v1.Descriptor, tag string, depth int) error {
	l.add(d)
	if d.MediaType.IsIndex() {
		data, err := s.readBlob(d, maxManifest)
		if err != nil {
			return err
		}
		im, err := parseIndex(data, d.MediaType)
		if err != nil || depth > maxIndexDepth {
			return err
		}
		for _, child := range im.Manifests {
			if s.hasBlob(child) {
				if err := s.addBlobs(l, child, "", depth+1); err != nil {
					return err
				}
			}
		}
		return nil
	}
	m, err := s.readManifest(d)
	if err != nil {
		return err
	}
	l.add(m.Config)
	item := dockerItem{Config: blobName(m.Config.Digest)}
	for _, b := range m.Layers {
		if !s.hasBlob(b) {
			return fmt.Errorf("layer %s is not in the store", short(b.Digest.String()))
		}
		l.add(b)
		item.Layers = append(item.Layers, blobName(b.Digest))
	}
	l.addItem(item, tag)
	return nil
}

func (l *savedLayout) add(d v1.Descriptor) {
	if !l.seen[d.Digest] {
		l.seen[d.Digest] = true
		l.blobs = append(l.blobs, d)
	}
}

// addItem joins the names of one image in one element, as docker does.
func (l *savedLayout) addItem(it dockerItem, tag string) {
	for i := range l.items {
		if l.items[i].Config == it.Config {
			if tag != "" {
				l.items[i].RepoTags = append(l.items[i].RepoTags, tag)
			}
			return
		}
	}
	if tag != "" {
		it.RepoTags = []string{tag}
	}
	l.items = append(l.items, it)
}

// documents writes the layout's small files.
func (l *savedLayout) documents(format string, write func(string, []byte) error) error {
	index, err := json.Marshal(l.index)
	if err != nil {
		return err
	}
	manifest, err := json.Marshal(l.items)
	if err != nil {
		return err
	}
	errs := []error{write("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)), write("index.json", index)}
	if format == DockerArchive {
		errs = append(errs, write("manifest.json", manifest))
	}
	return errors.Join(errs...)
}

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

// SaveCmd is `kist save`.
type SaveCmd struct {
	Output   string   `short:"o" help:"File, or directory with --format oci-dir; standard output without it." placeholder:"FILE"`
	Format   string   `default:"docker-archive" enum:"docker-archive,oci-archive,oci-dir" help:"docker-archive, oci-archive or oci-dir."`
	Multi    bool     `short:"m" name:"multi-image-archive" help:"Accepted for podman's sake; several images are always possible."`
	Quiet    bool     `short:"q" help:"Accepted; nothing is shown anyway."`
	Platform []string `help:"Accepted when it is the images' own." placeholder:"PLATFORM"`
	Image    []string `arg:"" help:"Names or IDs."`
}

// Run writes the archive. A file is complete or is not there.
func (c *SaveCmd) Run(ctx context.Context, s *Store, out *ui.Output) error {
	switch {
	case c.Format == OCIDir && c.Output == "":
		return errors.New("save --format oci-dir: needs -o DIR")
	case c.Format == OCIDir:
		return s.SaveDir(ctx, c.Output, c.Image)
	case c.Output == "" && ui.IsTerminal(out.Out):
		return ui.Hint(errors.New("save: standard output is a terminal"), "kist save -o FILE %s", c.Image[0])
	case c.Output == "":
		return s.Save(ctx, out.Out, c.Image, c.Format)
	}
	return writeOutput(c.Output, func(f *os.File) error { return s.Save(ctx, f, c.Image, c.Format) })
}

// writeOutput fills the file path that a user named: beside it first, so that
// an error leaves what was there. A device or pipe is written directly.
func writeOutput(path string, fill func(*os.File) error) (err error) {
	if st, serr := os.Stat(path); serr == nil && !st.Mode().IsRegular() {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return errors.Join(fill(f), f.Close())
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-"+filepath.Base(path)+"-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	if err := errors.Join(fill(f), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

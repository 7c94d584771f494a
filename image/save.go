package image

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Formats of saved images.
const (
	DockerArchive = "docker-archive"
	OCIArchive    = "oci-archive"
	OCIDir        = "oci-dir"
	DockerDir     = "docker-dir"
)

// SaveOptions say what of the images to save, and how.
type SaveOptions struct {
	// Format is one of the formats; "" is DockerArchive.
	Format string
	// Platforms are wanted of a list of images; none means all that are here. An
	// image that is for another one is an error.
	Platforms []string
}

// Save writes images to w. A docker archive is an OCI layout with docker's
// manifest.json besides, as docker itself writes it since version 25: the blobs
// go out as they are, so saving copies files and computes nothing.
func (s *Store) Save(ctx context.Context, w io.Writer, names []string, o SaveOptions) error {
	return s.saving(ctx, names, o, func(l *savedLayout) error {
		return s.writeArchive(ctx, w, l, cmp.Or(o.Format, DockerArchive))
	})
}

// SaveDir writes images as an OCI layout directory, or one image as docker-dir,
// skopeo's dir: form. The directory must not exist or be empty.
func (s *Store) SaveDir(ctx context.Context, dir string, names []string, o SaveOptions) error {
	return s.saving(ctx, names, o, func(l *savedLayout) error {
		if old, err := os.ReadDir(dir); err == nil && len(old) > 0 {
			return fmt.Errorf("%s is not empty", dir)
		}
		if o.Format == DockerDir {
			return s.saveFlat(ctx, dir, l)
		}
		return s.saveLayout(ctx, dir, l)
	})
}

// saving writes what names mean, and keeps it until it is written.
func (s *Store) saving(ctx context.Context, names []string, o SaveOptions, write func(*savedLayout) error) error {
	pin, err := s.Pin(ctx)
	if err != nil {
		return err
	}
	defer s.unpin(pin)
	l, err := s.layoutOf(names, o.Platforms)
	if err != nil {
		return err
	}
	if err := write(l); err != nil {
		return err
	}
	for _, name := range names {
		s.event(name, "save", name)
	}
	return nil
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

func (s *Store) saveLayout(ctx context.Context, dir string, l *savedLayout) error {
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

// saveFlat writes the one image of l.
func (s *Store) saveFlat(ctx context.Context, dir string, l *savedLayout) error {
	if len(l.index.Manifests) != 1 {
		return fmt.Errorf("%s has room for one image, not %d", DockerDir, len(l.index.Manifests))
	}
	sink := &dirSink{dir: dir, flat: true}
	if err := sink.prepare(); err != nil {
		return err
	}
	cp := &copier{from: storeSource{s}, to: sink, all: true, spool: s.imageDir("partial")}
	_, err := cp.run(ctx, l.index.Manifests[0].Digest.String(), "latest")
	return err
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

func newSavedLayout() *savedLayout {
	return &savedLayout{seen: map[v1.Hash]bool{}, index: v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}}
}

func (s *Store) layoutOf(names, platforms []string) (*savedLayout, error) {
	entries, err := s.readIndex()
	if err != nil {
		return nil, err
	}
	if len(platforms) == 0 {
		platforms = []string{""}
	}
	l := newSavedLayout()
	for _, name := range names {
		e, err := find(entries, name)
		if err != nil {
			return nil, err
		}
		for _, p := range platforms {
			if err := s.saveEntry(l, e, name, p); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return l, nil
}

// saveEntry adds an image; saved by its ID, it has no name in the archive.
func (s *Store) saveEntry(l *savedLayout, named entry, name, platform string) error {
	e := named
	if platform != "" {
		var err error
		if e, err = s.forPlatform(named, platform); err != nil {
			return err
		}
	}
	d := v1.Descriptor{MediaType: e.MediaType, Digest: e.Digest, Size: e.Size, Platform: e.Platform}
	r := named.ref()
	if r.Tag == "" || isID(named, name) {
		return s.addToLayout(l, d, "")
	}
	d.Annotations = nameNotes(r)
	return s.addToLayout(l, d, r.Familiar())
}

// nameNotes name an image in a layout, for containerd and docker and for others.
func nameNotes(r Reference) map[string]string {
	return map[string]string{"io.containerd.image.name": r.String(), noteName: r.Tag}
}

// addToLayout adds the image d, which is called tag in docker's manifest.json.
func (s *Store) addToLayout(l *savedLayout, d v1.Descriptor, tag string) error {
	l.index.Manifests = append(l.index.Manifests, d)
	if d.MediaType.IsIndex() {
		tag = "" // docker's manifest.json knows no lists
	}
	return s.walk(d, func(d v1.Descriptor) error {
		l.add(d)
		if d.MediaType.IsIndex() {
			return nil
		}
		return s.addImageBlobs(l, d, tag)
	})
}

func (s *Store) addImageBlobs(l *savedLayout, d v1.Descriptor, tag string) error {
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

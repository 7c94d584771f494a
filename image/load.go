package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kist-containers/kist/internal/ui"
)

// LoadOptions say what of an archive to load.
type LoadOptions struct {
	// Platforms are wanted of an index; none means this machine's.
	Platforms []string
	// Unnamed leaves out the names that a layout gives its images.
	Unnamed  bool
	Progress *ui.Progress
}

// LoadFile loads all images of the archive or OCI layout directory at path.
func (s *Store) LoadFile(ctx context.Context, path string, o LoadOptions) ([]*Image, error) {
	return s.load(ctx, o, func(spool string) (archive, error) { return openArchive(path, spool) })
}

// Load loads all images of the archive f, which may be a pipe, and closes f.
func (s *Store) Load(ctx context.Context, f *os.File, o LoadOptions) ([]*Image, error) {
	return s.load(ctx, o, func(spool string) (archive, error) { return readArchive(f, spool) })
}

func (s *Store) load(ctx context.Context, o LoadOptions, open func(spool string) (archive, error)) ([]*Image, error) {
	pin, err := s.pinned(ctx)
	if err != nil {
		return nil, err
	}
	defer s.unpin(pin)
	a, err := open(s.imageDir("partial"))
	if err != nil {
		return nil, err
	}
	defer a.Close()
	images, err := s.loadArchive(ctx, a, o)
	for _, img := range images {
		s.event(img.ID, "load", firstName(img))
	}
	return images, err
}

// loadArchive takes the OCI layout where there is one, because it keeps the
// digests that registries know; docker writes both since version 25.
func (s *Store) loadArchive(ctx context.Context, a archive, o LoadOptions) ([]*Image, error) {
	if data, err := readDocument(a, "index.json", maxManifest); err == nil {
		return s.loadLayout(ctx, layoutSource{archiveBlobs{a}}, data, o)
	}
	data, err := readDocument(a, "manifest.json", maxManifest)
	switch {
	case errors.Is(err, os.ErrNotExist):
		if _, err := a.open("repositories"); err == nil {
			return nil, errors.New("the archive is of docker before 1.10, save the image again with a current one")
		}
		return nil, ui.Hint(errors.New("not an image archive: neither manifest.json nor index.json"), "kist import makes an image of a root file system")
	case err != nil:
		return nil, err
	}
	if _, err := a.open("version"); err == nil && bytes.HasPrefix(data, []byte("{")) {
		return s.loadPlatforms(ctx, flatSource{a}, "", o, nil)
	}
	return s.loadDocker(ctx, a, data, o)
}

// loadLayout loads the images of an OCI layout.
func (s *Store) loadLayout(ctx context.Context, src imageSource, index []byte, o LoadOptions) ([]*Image, error) {
	im, err := parseIndex(index, "")
	if err != nil {
		return nil, fmt.Errorf("index.json: %w", err)
	}
	var images []*Image
	for _, d := range im.Manifests {
		notes := map[string]string{}
		if name := layoutName(d); name != "" && !o.Unnamed {
			notes[noteName] = name
		}
		if from := d.Annotations[noteDigest]; from != "" {
			notes[noteDigest] = from
		}
		loaded, err := s.loadPlatforms(ctx, src, d.Digest.String(), o, notes)
		images = append(images, loaded...)
		if err != nil {
			return images, err
		}
	}
	return images, nil
}

// loadPlatforms loads what src means by reference, for each platform wanted.
func (s *Store) loadPlatforms(ctx context.Context, src imageSource, reference string, o LoadOptions, notes map[string]string) ([]*Image, error) {
	platforms := o.Platforms
	if len(platforms) == 0 {
		platforms = []string{""}
	}
	var images []*Image
	for _, p := range platforms {
		e, _, err := s.fetchImage(ctx, src, reference, p, o.Progress)
		if err != nil {
			return images, err
		}
		maps.Copy(e.Annotations, notes)
		img, err := s.record(ctx, e)
		if err != nil {
			return images, err
		}
		images = append(images, img.calledOnly(e.name()))
	}
	return images, nil
}

// calledOnly returns i with those of its names that were just given to it.
func (i *Image) calledOnly(names ...string) *Image {
	i.Names = nil
	for _, n := range names {
		if r, err := ParseReference(n); err == nil {
			i.Names = append(i.Names, r.Tagged().Familiar())
		}
	}
	return i
}

// layoutName is the name of an image in a layout: containerd's and docker's
// full name, else the annotation of the specification where it is a full name.
// A mere tag names nothing.
func layoutName(d v1.Descriptor) string {
	for _, note := range []string{"io.containerd.image.name", noteName} {
		name := d.Annotations[note]
		if note == noteName && !strings.ContainsAny(name, ":/") {
			continue
		}
		if r, err := ParseReference(name); err == nil && r.Digest == "" {
			return r.Tagged().String()
		}
	}
	return ""
}

package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kist-containers/kist/image/registry"
)

// A location is an image somewhere, as skopeo writes it.
type location struct {
	transport string // docker, oci, oci-archive, docker-archive, dir, kist
	path      string // host/name for docker, a file or directory for others
	tag       string
}

// parseLocation reads docker://REF, oci:DIR[:TAG], oci-archive:FILE[:TAG],
// docker-archive:FILE[:NAME], dir:DIR, and a plain name for kist's own store.
func parseLocation(s string) (location, error) {
	transport, rest, ok := strings.Cut(s, ":")
	switch {
	case ok && transport == "docker" && strings.HasPrefix(rest, "//"):
		return location{transport: "docker", path: rest[2:]}, nil
	case ok && transport == "dir":
		return location{transport: "dir", path: rest}, nil
	case ok && (transport == "oci" || transport == "oci-archive" || transport == "docker-archive"):
		path, tag, _ := strings.Cut(rest, ":")
		if path == "" {
			return location{}, fmt.Errorf("%s: no path", s)
		}
		return location{transport, path, tag}, nil
	}
	if _, err := ParseReference(s); err != nil && !isHex(strings.TrimPrefix(s, "sha256:")) {
		return location{}, err
	}
	return location{transport: "kist", path: s}, nil
}

// openSource returns the source at l and what to ask of it. Close ends a source
// that is an io.Closer.
func (s *Store) openSource(ctx context.Context, c *registry.Config, l location) (imageSource, string, error) {
	switch l.transport {
	case "docker":
		r, err := ParseReference(l.path)
		if err != nil {
			return nil, "", err
		}
		repo, err := registry.Open(c, r.Host, r.Path)
		return repo, r.identifier(), err
	case "kist":
		entries, err := s.readIndex()
		if err != nil {
			return nil, "", err
		}
		e, err := find(entries, l.path)
		return storeSource{s}, e.Digest.String(), err
	}
	a, err := openArchive(l.path, s.imageDir("partial"))
	if err != nil {
		return nil, "", err
	}
	switch _, noLayout := a.open("index.json"); {
	case l.transport == "dir":
		return flatSource{a}, "", nil
	case l.transport == "docker-archive" && noLayout != nil:
		src, err := s.asLayout(ctx, a, l.tag)
		return src, "", err
	}
	return layoutSource{archiveBlobs{a}}, l.tag, nil
}

// A tempLayout is a layout that goes when it is closed.
type tempLayout struct {
	layoutSource
	dir string
}

// Close removes the layout.
func (t tempLayout) Close() error { return errors.Join(t.layoutSource.Close(), os.RemoveAll(t.dir)) }

// asLayout returns an image of a docker archive as a layout, and closes a.
func (s *Store) asLayout(ctx context.Context, a archive, name string) (imageSource, error) {
	defer a.Close()
	tmp, err := os.MkdirTemp(s.imageDir("partial"), ".tmp-")
	if err != nil {
		return nil, err
	}
	sink := &dirSink{dir: tmp}
	if err = sink.prepare(); err == nil {
		err = convertDocker(ctx, a, name, sink)
	}
	var layout archive
	if err == nil {
		layout, err = openArchive(tmp, "")
	}
	if err != nil {
		os.RemoveAll(tmp)
		return nil, err
	}
	return tempLayout{layoutSource{archiveBlobs{layout}}, tmp}, nil
}

// copyTo opens the sink at l and copies into it.
func (s *Store) copyTo(ctx context.Context, cp *copier, c *registry.Config, reference string, l location) (d v1.Descriptor, err error) {
	switch l.transport {
	case "docker":
		r, err := ParseReference(l.path)
		if err != nil {
			return d, err
		}
		repo, err := registry.Open(c, r.Host, r.Path)
		if err != nil {
			return d, err
		}
		sink := registrySink{Repository: repo}
		if from, ok := cp.from.(*registry.Repository); ok && from.Host == r.Host && from.Path != r.Path {
			sink.mountFrom = from.Path
		}
		cp.to = sink
		return cp.run(ctx, reference, r.identifier())
	case "oci", "dir":
		sink := &dirSink{dir: l.path, flat: l.transport == "dir", tag: l.tag}
		if err := sink.prepare(); err != nil {
			return d, err
		}
		cp.to = sink
		return cp.run(ctx, reference, "latest")
	}
	return s.copyToArchive(ctx, cp, reference, l)
}

// copyToArchive makes a layout in a temporary directory and packs it.
func (s *Store) copyToArchive(ctx context.Context, cp *copier, reference string, l location) (d v1.Descriptor, err error) {
	tmp, err := os.MkdirTemp(s.imageDir("partial"), ".tmp-")
	if err != nil {
		return d, err
	}
	defer os.RemoveAll(tmp)
	sink := &dirSink{dir: tmp, tag: l.tag}
	if err := sink.prepare(); err != nil {
		return d, err
	}
	cp.to = sink
	if d, err = cp.run(ctx, reference, "latest"); err != nil {
		return d, err
	}
	format := OCIArchive
	if l.transport == "docker-archive" {
		format = DockerArchive
	}
	other := Open(s.roots, s.o)
	other.layout = tmp
	return d, writeOutput(l.path, func(f *os.File) error { return other.packLayout(ctx, f, d, l.tag, format) })
}

// packLayout writes the one image of the layout to w. An OCI archive keeps the
// tag as it was given; docker's needs a whole name.
func (s *Store) packLayout(ctx context.Context, w io.Writer, d v1.Descriptor, tag, format string) error {
	l := newSavedLayout()
	name := ""
	if tag != "" {
		d.Annotations = map[string]string{noteName: tag}
	}
	if r, err := ParseReference(tag); err == nil && format == DockerArchive {
		d.Annotations, name = nameNotes(r.Tagged()), r.Tagged().Familiar()
	}
	if err := s.addToLayout(l, d, name); err != nil {
		return err
	}
	return s.writeArchive(ctx, w, l, format)
}

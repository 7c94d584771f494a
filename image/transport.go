package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kist-containers/kist/image/registry"
	"github.com/kist-containers/kist/internal/ui"
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

// CopyCmd is `kist image copy`.
type CopyCmd struct {
	RegistryFlags
	All      bool   `short:"a" help:"Copy all platforms."`
	Platform string `help:"Copy the image for another platform." placeholder:"PLATFORM"`
	Quiet    bool   `short:"q" help:"Show no progress."`
	Source   string `arg:"" help:"docker://NAME, oci:DIR[:TAG], oci-archive:FILE, docker-archive:FILE, dir:DIR, or a name in the store."`
	Dest     string `arg:"" help:"The same forms."`
}

// Run copies and prints the digest.
func (c *CopyCmd) Run(ctx context.Context, s *Store, out *ui.Output) error {
	d, err := c.copy(ctx, s, out)
	if err != nil {
		return fmt.Errorf("image copy %s: %w", c.Source, err)
	}
	out.Print(d.Digest)
	return nil
}

func (c *CopyCmd) copy(ctx context.Context, s *Store, out *ui.Output) (d v1.Descriptor, err error) {
	from, err := parseLocation(c.Source)
	if err != nil {
		return d, err
	}
	to, err := parseLocation(c.Dest)
	if err != nil {
		return d, err
	}
	platform, err := ParsePlatform(c.Platform)
	if err != nil {
		return d, err
	}
	if err := s.prepare(); err != nil {
		return d, err
	}
	pin, err := s.Pin(ctx)
	if err != nil {
		return d, err
	}
	defer s.unpin(pin)
	cp := &copier{all: c.All, platform: platform, spool: s.imageDir("partial")}
	if !c.Quiet {
		cp.progress = out.Progress()
		defer cp.progress.Close()
	}
	if to.transport == "kist" {
		return c.intoStore(ctx, s, from, to, cp.progress)
	}
	var reference string
	if cp.from, reference, err = s.openSource(c.Config(), from); err != nil {
		return d, err
	}
	if closer, ok := cp.from.(io.Closer); ok {
		defer closer.Close()
	}
	return s.copyTo(ctx, cp, c.Config(), reference, to)
}

// intoStore pulls or loads.
func (c *CopyCmd) intoStore(ctx context.Context, s *Store, from, to location, p *ui.Progress) (v1.Descriptor, error) {
	var img *Image
	switch from.transport {
	case "docker":
		var err error
		if img, err = s.Pull(ctx, from.path, PullOptions{Platform: c.Platform, Progress: p, Registry: c.Config()}); err != nil {
			return v1.Descriptor{}, err
		}
	case "kist":
		var err error
		if img, err = s.Resolve(from.path); err != nil {
			return v1.Descriptor{}, err
		}
	case "dir":
		return v1.Descriptor{}, errors.New("copying dir: into the store is not possible; copy it to oci-archive: and load that")
	default:
		images, err := s.LoadFile(ctx, from.path, LoadOptions{Progress: p})
		if err != nil {
			return v1.Descriptor{}, err
		}
		if len(images) != 1 {
			return v1.Descriptor{}, fmt.Errorf("%d images there, want one", len(images))
		}
		img = images[0]
	}
	return bareWithPlatform(img.Manifest), s.Tag(ctx, img.ID, to.path)
}

// openSource returns the source at l and what to ask of it.
func (s *Store) openSource(c *registry.Config, l location) (imageSource, string, error) {
	switch l.transport {
	case "docker":
		r, err := ParseReference(l.path)
		if err != nil {
			return nil, "", err
		}
		repo, err := registry.Open(c, r.Host, r.Path)
		return repo, r.identifier(), err
	case "dir":
		a, err := openArchive(l.path, "")
		if err != nil {
			return nil, "", err
		}
		return flatSource{a}, "", nil
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
	return layoutSource{archiveBlobs{a}}, l.tag, nil
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
		cp.to = registrySink{repo}
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

// packLayout writes the one image of the layout to w.
func (s *Store) packLayout(ctx context.Context, w io.Writer, d v1.Descriptor, name, format string) error {
	l := &savedLayout{seen: map[v1.Hash]bool{}, index: v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}}
	e := entry{d}
	if r, err := ParseReference(name); err == nil && name != "" {
		e.Annotations = map[string]string{noteName: r.Tagged().String()}
	}
	if err := s.addToLayout(l, e, ""); err != nil {
		return err
	}
	return s.writeArchive(ctx, w, l, format)
}

// A storeSource is kist's own store.
type storeSource struct{ s *Store }

// Manifest implements imageSource.
func (s storeSource) Manifest(_ context.Context, digest string) ([]byte, v1.Descriptor, error) {
	h, err := v1.NewHash(digest)
	if err != nil {
		return nil, v1.Descriptor{}, err
	}
	return withType(s.s.readBlob(v1.Descriptor{Digest: h}, maxManifest))
}

// Blob implements source.
func (s storeSource) Blob(_ context.Context, d v1.Descriptor, offset int64) (io.ReadCloser, int64, error) {
	f, err := os.Open(s.s.blobPath(d.Digest))
	if err != nil {
		return nil, 0, fatal{err}
	}
	_, err = f.Seek(offset, io.SeekStart)
	return f, offset, err
}

// withType describes a document by what it says of itself.
func withType(data []byte, err error) ([]byte, v1.Descriptor, error) {
	if err != nil {
		return nil, v1.Descriptor{}, err
	}
	var doc struct {
		MediaType types.MediaType `json:"mediaType"`
		Manifests []any           `json:"manifests"`
	}
	if err := unmarshal(data, &doc); err != nil {
		return nil, v1.Descriptor{}, err
	}
	switch {
	case doc.MediaType != "":
	case doc.Manifests != nil:
		doc.MediaType = types.OCIImageIndex
	default:
		doc.MediaType = types.OCIManifestSchema1
	}
	return data, v1.Descriptor{MediaType: doc.MediaType, Digest: hashOf(data), Size: int64(len(data))}, nil
}

// A layoutSource is an OCI layout, a directory or an archive.
type layoutSource struct{ archiveBlobs }

// Close closes the archive.
func (s layoutSource) Close() error { return s.a.Close() }

// Manifest implements imageSource: by digest, by tag, or the only one.
func (s layoutSource) Manifest(_ context.Context, reference string) ([]byte, v1.Descriptor, error) {
	if h, err := v1.NewHash(reference); err == nil {
		return verified(withType(readDocument(s.a, blobName(h), maxManifest)))(h)
	}
	data, err := readDocument(s.a, "index.json", maxManifest)
	if errors.Is(err, os.ErrNotExist) {
		return nil, v1.Descriptor{}, errors.New("not an OCI layout; a docker archive of docker before 25 has to be loaded first")
	}
	if err != nil {
		return nil, v1.Descriptor{}, err
	}
	im, err := parseIndex(data, "")
	if err != nil {
		return nil, v1.Descriptor{}, err
	}
	var found []v1.Descriptor
	for _, d := range im.Manifests {
		if reference == "" || d.Annotations[noteName] == reference || layoutName(d) == reference {
			found = append(found, d)
		}
	}
	if len(found) != 1 {
		return nil, v1.Descriptor{}, fmt.Errorf("%d images match, name one of its tags", len(found))
	}
	return verified(withType(readDocument(s.a, blobName(found[0].Digest), maxManifest)))(found[0].Digest)
}

// verified checks a document against the digest it was asked by.
func verified(data []byte, d v1.Descriptor, err error) func(v1.Hash) ([]byte, v1.Descriptor, error) {
	return func(h v1.Hash) ([]byte, v1.Descriptor, error) {
		if err == nil && d.Digest != h {
			err = fmt.Errorf("%w: wanted %s, got %s", ErrCorrupt, h, d.Digest)
		}
		return data, d, err
	}
}

// A flatSource is skopeo's dir: form.
type flatSource struct{ a archive }

// Close closes the directory.
func (s flatSource) Close() error { return s.a.Close() }

// Manifest implements imageSource.
func (s flatSource) Manifest(_ context.Context, reference string) ([]byte, v1.Descriptor, error) {
	name := "manifest.json"
	if h, err := v1.NewHash(reference); err == nil {
		name = h.Hex + ".manifest.json"
		if _, err := s.a.open(name); err != nil {
			name = h.Hex
		}
		return verified(withType(readDocument(s.a, name, maxManifest)))(h)
	}
	return withType(readDocument(s.a, name, maxManifest))
}

// Blob implements source.
func (s flatSource) Blob(_ context.Context, d v1.Descriptor, offset int64) (io.ReadCloser, int64, error) {
	r, err := s.a.open(d.Digest.Hex)
	if err != nil {
		return nil, 0, fatal{err}
	}
	_, err = r.Seek(offset, io.SeekStart)
	return io.NopCloser(r), offset, err
}

package image

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sync/errgroup"

	"github.com/kist-containers/kist/image/registry"
	"github.com/kist-containers/kist/internal/ui"
)

// An imageSink is where a copied image goes. A blob is asked for only when the
// sink has none.
type imageSink interface {
	HasBlob(ctx context.Context, d v1.Descriptor) (bool, error)
	putBlob(ctx context.Context, d v1.Descriptor, content *os.File) error
	PutManifest(ctx context.Context, reference string, data []byte, mt types.MediaType) error
	// finish makes the image visible under its name.
	finish(top v1.Descriptor) error
}

// A copier copies an image as it is: no layer is unpacked.
type copier struct {
	from     imageSource
	to       imageSink
	all      bool
	platform v1.Platform
	spool    string
	progress *ui.Progress
}

// run copies the image reference and calls it as.
func (c *copier) run(ctx context.Context, reference, as string) (v1.Descriptor, error) {
	var data []byte
	var d v1.Descriptor
	var err error
	if c.all {
		data, d, err = c.from.Manifest(ctx, reference)
	} else {
		var f followed
		f, err = follow(ctx, c.from, reference, c.platform)
		data, d = f.data, f.d
	}
	if err == nil {
		err = c.document(ctx, data, d, as, 0)
	}
	if err != nil {
		return d, err
	}
	return d, c.to.finish(d)
}

// document copies what a manifest or index refers to, and then itself.
func (c *copier) document(ctx context.Context, data []byte, d v1.Descriptor, as string, depth int) error {
	if !d.MediaType.IsIndex() {
		m, err := parseManifest(data, d.MediaType)
		if err != nil {
			return err
		}
		if err := c.blobs(ctx, m); err != nil {
			return err
		}
		return c.to.PutManifest(ctx, as, data, d.MediaType)
	}
	im, err := parseIndex(data, d.MediaType)
	if err != nil {
		return err
	}
	if depth >= maxIndexDepth {
		return errNesting
	}
	for _, child := range im.Manifests {
		sub, got, err := c.from.Manifest(ctx, child.Digest.String())
		if err != nil {
			return err
		}
		if err := c.document(ctx, sub, got, child.Digest.String(), depth+1); err != nil {
			return err
		}
	}
	return c.to.PutManifest(ctx, as, data, d.MediaType)
}

func (c *copier) blobs(ctx context.Context, m *v1.Manifest) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelUploads)
	seen := map[v1.Hash]bool{}
	for _, d := range append(append([]v1.Descriptor{}, m.Layers...), m.Config) {
		if seen[d.Digest] || foreign(d) {
			continue
		}
		seen[d.Digest] = true
		task := c.progress.Task(short(d.Digest.String()), d.Size)
		g.Go(func() error { return c.blob(ctx, d, task) })
	}
	return g.Wait()
}

// blob copies one blob over a file without a name, verified on the way.
func (c *copier) blob(ctx context.Context, d v1.Descriptor, task *ui.Task) error {
	if has, err := c.to.HasBlob(ctx, d); err != nil || has {
		task.Done("Already exists")
		return err
	}
	f, err := tempFile(c.spool)
	if err != nil {
		return err
	}
	defer f.Close()
	dl := newDownload(f, d, task)
	if err := dl.run(ctx, c.from); err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	task.Phase("Copying", d.Size)
	if err := c.to.putBlob(ctx, d, f); err != nil {
		return fmt.Errorf("blob %s: %w", short(d.Digest.String()), err)
	}
	task.Done("Copied")
	return nil
}

// A registrySink is a repository.
type registrySink struct {
	*registry.Repository
	// mountFrom is another repository of the registry that has the blobs, or "".
	mountFrom string
}

// HasBlob implements imageSink: a blob that can be mounted need not be fetched.
func (r registrySink) HasBlob(ctx context.Context, d v1.Descriptor) (bool, error) {
	has, err := r.Repository.HasBlob(ctx, d)
	if err != nil || has || r.mountFrom == "" {
		return has, err
	}
	return r.Mount(ctx, d, r.mountFrom)
}

func (r registrySink) putBlob(ctx context.Context, d v1.Descriptor, f *os.File) error {
	_, err := r.PutBlob(ctx, d, f, registry.PutOptions{})
	return err
}

func (r registrySink) finish(v1.Descriptor) error { return nil }

// A dirSink is an OCI layout directory, or skopeo's dir: form of an image.
type dirSink struct {
	dir string
	// flat is skopeo's form: manifest.json, version, and blobs by their hex.
	flat bool
	tag  string
}

func (s *dirSink) path(h v1.Hash) string {
	if s.flat {
		return filepath.Join(s.dir, h.Hex)
	}
	return filepath.Join(s.dir, blobName(h))
}

func (s *dirSink) prepare() error {
	sub := "blobs/sha256"
	if s.flat {
		sub = ""
	}
	return os.MkdirAll(filepath.Join(s.dir, sub), 0o755)
}

// HasBlob implements imageSink.
func (s *dirSink) HasBlob(_ context.Context, d v1.Descriptor) (bool, error) {
	st, err := os.Stat(s.path(d.Digest))
	return err == nil && st.Size() == d.Size, nil
}

func (s *dirSink) putBlob(_ context.Context, d v1.Descriptor, f *os.File) error {
	return writeOutput(s.path(d.Digest), func(out *os.File) error {
		_, err := io.Copy(out, f)
		return err
	})
}

// PutManifest implements imageSink.
func (s *dirSink) PutManifest(_ context.Context, reference string, data []byte, _ types.MediaType) error {
	if s.flat && !strings.HasPrefix(reference, "sha256:") {
		if err := os.WriteFile(filepath.Join(s.dir, "version"), []byte("Directory Transport Version: 1.1\n"), 0o644); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(s.dir, "manifest.json"), data, 0o644)
	}
	return os.WriteFile(s.path(hashOf(data)), data, 0o644)
}

// finish adds the image to index.json, in place of one with its tag.
func (s *dirSink) finish(top v1.Descriptor) error {
	if s.flat {
		return nil
	}
	path := filepath.Join(s.dir, "index.json")
	im := &v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}
	if data, err := os.ReadFile(path); err == nil {
		if im, err = parseIndex(data, ""); err != nil {
			return err
		}
	}
	d := v1.Descriptor{MediaType: top.MediaType, Digest: top.Digest, Size: top.Size}
	if s.tag != "" {
		d.Annotations = map[string]string{noteName: s.tag}
	}
	kept := im.Manifests[:0]
	for _, old := range im.Manifests {
		if old.Annotations[noteName] != s.tag {
			kept = append(kept, old)
		}
	}
	im.Manifests = append(kept, d)
	data, err := json.Marshal(im)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(s.dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644)
}

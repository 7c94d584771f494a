package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

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
	if err := s.prepare(); err != nil {
		return nil, err
	}
	a, err := openArchive(path, s.imageDir("partial"))
	if err != nil {
		return nil, err
	}
	defer a.Close()
	return s.loadArchive(ctx, a, o)
}

// Load loads all images of the archive f, which may be a pipe, and closes f.
func (s *Store) Load(ctx context.Context, f *os.File, o LoadOptions) ([]*Image, error) {
	if err := s.prepare(); err != nil {
		return nil, err
	}
	a, err := readArchive(f, s.imageDir("partial"))
	if err != nil {
		return nil, err
	}
	defer a.Close()
	return s.loadArchive(ctx, a, o)
}

// loadArchive takes the OCI layout where there is one, because it keeps the
// digests that registries know; docker writes both since version 25.
func (s *Store) loadArchive(ctx context.Context, a archive, o LoadOptions) ([]*Image, error) {
	pin, err := s.Pin(ctx)
	if err != nil {
		return nil, err
	}
	defer s.unpin(pin)
	if data, err := readDocument(a, "index.json", maxManifest); err == nil {
		return s.loadLayout(ctx, a, data, o)
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
	return s.loadDocker(ctx, a, data, o)
}

// loadLayout loads the images of an OCI layout.
func (s *Store) loadLayout(ctx context.Context, a archive, index []byte, o LoadOptions) ([]*Image, error) {
	im, err := parseIndex(index, "")
	if err != nil {
		return nil, fmt.Errorf("index.json: %w", err)
	}
	if len(o.Platforms) == 0 {
		o.Platforms = []string{""}
	}
	var images []*Image
	for _, d := range im.Manifests {
		for _, p := range o.Platforms {
			img, err := s.loadManifest(ctx, a, d, p, o)
			if err != nil {
				return images, err
			}
			images = append(images, img)
		}
	}
	return images, nil
}

func (s *Store) loadManifest(ctx context.Context, a archive, d v1.Descriptor, platform string, o LoadOptions) (*Image, error) {
	want, err := ParsePlatform(platform)
	if err != nil {
		return nil, err
	}
	src := archiveBlobs{a}
	top := d
	for depth := 0; d.MediaType.IsIndex(); depth++ {
		data, err := s.fetchSmall(ctx, src, d, maxManifest)
		if err != nil {
			return nil, err
		}
		im, err := parseIndex(data, d.MediaType)
		if err != nil {
			return nil, err
		}
		if d, err = choose(im.Manifests, want); err != nil {
			return nil, err
		}
		if depth >= maxIndexDepth {
			return nil, errors.New("indexes nest too deep")
		}
	}
	data, err := s.fetchSmall(ctx, src, d, maxManifest)
	if err != nil {
		return nil, err
	}
	m, err := parseManifest(data, d.MediaType)
	if err != nil {
		return nil, err
	}
	if _, err := s.writeBlob(data, d.MediaType); err != nil {
		return nil, err
	}
	cfg, err := s.fetchConfig(ctx, src, m)
	if err != nil {
		return nil, err
	}
	if _, err := s.newFetch(src, o.Progress).all(ctx, m.Layers, cfg.RootFS.DiffIDs); err != nil {
		return nil, err
	}
	name := layoutName(top)
	if o.Unnamed {
		name = ""
	}
	return s.record(ctx, noted(d, name, top.Annotations[noteDigest], m.Config.Digest, cfg, s.sizeOf(cfg)))
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

// A dockerItem is an element of a docker archive's manifest.json.
type dockerItem struct {
	Config   string
	RepoTags []string
	Layers   []string
}

func parseDockerManifest(data []byte) ([]dockerItem, error) {
	var items []dockerItem
	if err := unmarshal(data, &items); err != nil {
		return nil, fmt.Errorf("manifest.json: %w", err)
	}
	for _, it := range items {
		if len(it.Layers) > maxLayers {
			return nil, fmt.Errorf("manifest.json: %d layers, more than %d", len(it.Layers), maxLayers)
		}
		for _, tag := range it.RepoTags {
			if _, err := ParseReference(tag); err != nil {
				return nil, fmt.Errorf("manifest.json: %w", err)
			}
		}
	}
	return items, nil
}

func (s *Store) loadDocker(ctx context.Context, a archive, manifest []byte, o LoadOptions) ([]*Image, error) {
	items, err := parseDockerManifest(manifest)
	if err != nil {
		return nil, err
	}
	var images []*Image
	for _, it := range items {
		img, err := s.loadDockerItem(ctx, a, it, o)
		if err != nil {
			return images, err
		}
		images = append(images, img)
	}
	return images, nil
}

func (s *Store) loadDockerItem(ctx context.Context, a archive, it dockerItem, o LoadOptions) (*Image, error) {
	raw, err := readDocument(a, it.Config, maxConfig)
	if err != nil {
		return nil, err
	}
	cfg, err := parseConfig(raw)
	if err != nil {
		return nil, err
	}
	if len(it.Layers) != len(cfg.RootFS.DiffIDs) {
		return nil, fmt.Errorf("manifest.json lists %d layers, the configuration %d", len(it.Layers), len(cfg.RootFS.DiffIDs))
	}
	descs, err := s.loadDockerLayers(ctx, a, it, cfg.RootFS.DiffIDs, o)
	if err != nil {
		return nil, err
	}
	if !json.Valid(raw) {
		return nil, errors.New("the configuration is not JSON")
	}
	return s.AddRawImage(ctx, raw, descs, it.RepoTags)
}

// loadDockerLayers takes in the layers, some at a time, and publishes them from
// the base up.
func (s *Store) loadDockerLayers(ctx context.Context, a archive, it dockerItem, diffIDs []v1.Hash, o LoadOptions) ([]v1.Descriptor, error) {
	stack := s.layers(diffIDs)
	descs := make([]v1.Descriptor, len(stack))
	taken := make([]*ingested, len(stack))
	defer func() {
		for _, in := range taken {
			if in != nil {
				in.discard()
			}
		}
	}()
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(3, runtime.NumCPU()))
	for i, l := range stack {
		task := o.Progress.Task(short(l.DiffID), 0)
		if rec, err := s.layerRecord(l.ChainID); err == nil && exists(l.Dir) && rec.Blob.Size > 0 && s.hasBlob(rec.Blob) {
			descs[i] = rec.Blob
			task.Done("Already exists")
			continue
		}
		g.Go(func() (err error) {
			taken[i], err = s.loadDockerLayer(gctx, a, it.Layers[i], stack[:i+1], task)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for i := range stack {
		if in := taken[i]; in != nil {
			if err := s.publishIngested(in, stack[:i+1]); err != nil {
				return nil, err
			}
			taken[i], descs[i] = nil, in.desc
		}
	}
	return descs, s.syncNames()
}

func (s *Store) loadDockerLayer(ctx context.Context, a archive, name string, stack []Layer, task *ui.Task) (*ingested, error) {
	diffID := stack[len(stack)-1].DiffID
	r, err := a.open(name)
	if err != nil {
		return nil, err
	}
	task.Phase("Loading", r.Size())
	in, err := s.ingest(ctx, io.TeeReader(r, taskWriter{task}), LayerOptions{})
	if err != nil {
		return nil, fmt.Errorf("layer %.255s: %w", name, err)
	}
	if in.res.DiffID != diffID {
		in.discard()
		return nil, fmt.Errorf("layer %.255s: %w: it is %s, the image says %s", name, ErrCorrupt, in.res.DiffID, diffID)
	}
	// Each layer is synced while the others still keep the processors busy.
	if err := s.stage(in.tree, stack, in.desc, in.res); err != nil {
		in.discard()
		return nil, err
	}
	task.Done("Loaded")
	return in, nil
}

// taskWriter lets a nil Task stand in a TeeReader.
type taskWriter struct{ t *ui.Task }

func (w taskWriter) Write(b []byte) (int, error) { return w.t.Write(b) }

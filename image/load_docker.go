package image

import (
	"context"
	"fmt"
	"io"
	"runtime"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

	"github.com/kist-containers/kist/internal/ui"
)

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
	raw, cfg, err := dockerConfig(a, it)
	if err != nil {
		return nil, err
	}
	if len(o.Platforms) > 0 {
		if err := checkPlatform(cfg, o.Platforms[0]); err != nil {
			return nil, err
		}
	}
	if o.Unnamed {
		it.RepoTags = nil
	}
	descs, err := s.loadDockerLayers(ctx, a, it, cfg.RootFS.DiffIDs, o)
	if err != nil {
		return nil, err
	}
	img, err := s.AddRawImage(ctx, raw, descs, it.RepoTags)
	if err != nil {
		return nil, err
	}
	return img.calledOnly(it.RepoTags...), nil
}

// dockerConfig reads the configuration of an image, which has as many layers as
// manifest.json lists.
func dockerConfig(a archive, it dockerItem) ([]byte, *v1.ConfigFile, error) {
	raw, err := readDocument(a, it.Config, maxConfig)
	if err != nil {
		return nil, nil, err
	}
	cfg, err := parseConfig(raw)
	if err == nil && len(it.Layers) != len(cfg.RootFS.DiffIDs) {
		err = fmt.Errorf("manifest.json lists %d layers, the configuration %d", len(it.Layers), len(cfg.RootFS.DiffIDs))
	}
	return raw, cfg, err
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

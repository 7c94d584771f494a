package build

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/image"
	"github.com/kist-containers/kist/internal/state"
)

// publish makes a layer of upper and completes and saves its record. It returns
// nil when there is nothing to publish.
func (r *stageRun) publish(ctx context.Context, rec *Record, upper string, optional bool) (*layer, error) {
	b := r.job.b
	if optional {
		empty, err := isEmpty(upper)
		if err != nil {
			return nil, err
		}
		if empty {
			return nil, b.save(rec)
		}
	}
	if e := r.job.req.Epoch; !e.IsZero() {
		if err := clamp(upper, e); err != nil {
			return nil, err
		}
	}
	l, blob, err := b.store.AddLayerFromDir(ctx, rec.Parent, upper, image.LayerOptions{})
	if err != nil {
		return nil, fmt.Errorf("store the layer: %w", err)
	}
	rec.ChainID, rec.DiffID, rec.Blob, rec.Size = l.ChainID, l.DiffID, blob, b.layerSize(l.ChainID)+blob.Size
	return &layer{DiffID: l.DiffID, ChainID: l.ChainID, Dir: l.Dir, Blob: blob}, b.save(rec)
}

func isEmpty(dir string) (bool, error) {
	entries, err := os.ReadDir(dir)
	return len(entries) == 0, err
}

// layerSize is what the layer's files take on disk.
func (b *Builder) layerSize(chainID string) int64 {
	var rec struct {
		Disk int64 `json:"disk"`
	}
	if state.ReadJSON(b.layerDir(chainID)+".json", &rec) != nil {
		return 0
	}
	return rec.Disk
}

// clamp takes back the times in dir that are later than epoch: the build itself
// made those.
func clamp(dir string, epoch time.Time) error {
	at := unix.NsecToTimespec(epoch.UnixNano())
	return filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil || !info.ModTime().After(epoch) {
			return err
		}
		return setTime(unix.AT_FDCWD, p, at, unix.AT_SYMLINK_NOFOLLOW)
	})
}

// relay puts the archive of l on another parent: a layer of COPY --link is the
// same whatever it lies on.
func (b *Builder) relay(ctx context.Context, parent string, l layer) (layer, error) {
	f, err := os.Open(b.blobPath(l.Blob.Digest))
	if err != nil {
		return layer{}, err
	}
	defer f.Close()
	added, blob, err := b.store.AddLayer(ctx, parent, f, image.LayerOptions{DiffID: l.DiffID, Uncompressed: true})
	if err != nil {
		return layer{}, err
	}
	return layer{DiffID: added.DiffID, ChainID: added.ChainID, Dir: added.Dir, Blob: blob}, nil
}

// layersOf lists an image's layers with their archives.
func (b *Builder) layersOf(img *image.Image) ([]layer, error) {
	var m v1.Manifest
	if err := state.ReadJSON(b.blobPath(img.Manifest.Digest), &m); err != nil {
		return nil, err
	}
	if len(m.Layers) != len(img.Layers) {
		return nil, fmt.Errorf("image %s: %d layers in the manifest, %d in the configuration", img.ID, len(m.Layers), len(img.Layers))
	}
	var all []layer
	for i, l := range img.Layers {
		all = append(all, layer{DiffID: l.DiffID, ChainID: l.ChainID, Dir: l.Dir, Blob: m.Layers[i]})
	}
	return all, nil
}

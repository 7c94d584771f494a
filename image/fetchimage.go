package image

import (
	"context"
	"errors"
	"fmt"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kist-containers/kist/image/registry"
	"github.com/kist-containers/kist/internal/ui"
)

// fetchImage brings the image that src means by reference into the store, for
// platform ("" for this machine's), and returns its entry, still without a name,
// and what the source means by the reference.
func (s *Store) fetchImage(ctx context.Context, src imageSource, reference, platform string, p *ui.Progress) (entry, v1.Descriptor, error) {
	want, err := ParsePlatform(platform)
	if err != nil {
		return entry{}, v1.Descriptor{}, err
	}
	f, err := follow(ctx, src, reference, want)
	if err != nil {
		return entry{}, f.top, err
	}
	m, err := parseManifest(f.data, f.d.MediaType)
	if err != nil {
		return entry{}, f.top, err
	}
	cfg, raw, err := s.fetchConfig(ctx, src, m)
	if err != nil {
		return entry{}, f.top, err
	}
	if err := checkPlatform(cfg, platform); err != nil {
		return entry{}, f.top, err
	}
	if _, err := s.newFetch(src, p).all(ctx, m.Layers, cfg.RootFS.DiffIDs); err != nil {
		return entry{}, f.top, err
	}
	for _, b := range []struct {
		data []byte
		mt   types.MediaType
	}{{raw, m.Config.MediaType}, {f.data, f.d.MediaType}} {
		if _, err := s.writeBlob(b.data, b.mt); err != nil {
			return entry{}, f.top, err
		}
	}
	return noted(f.d, "", "", m.Config.Digest, cfg, s.sizeOf(cfg)), f.top, nil
}

// fetchConfig gets the configuration of an image and checks that it fits the
// manifest. What is no container image is refused by name.
func (s *Store) fetchConfig(ctx context.Context, src source, m *v1.Manifest) (*v1.ConfigFile, []byte, error) {
	if !isConfig(m.Config.MediaType) {
		return nil, nil, fmt.Errorf("not a container image but an artifact (%s)", m.Config.MediaType)
	}
	raw, err := s.fetchSmall(ctx, src, m.Config, maxConfig)
	if err != nil {
		return nil, nil, err
	}
	cfg, err := parseConfig(raw)
	if err != nil {
		return nil, nil, err
	}
	if len(cfg.RootFS.DiffIDs) != len(m.Layers) {
		return nil, nil, fmt.Errorf("the manifest has %d layers, the configuration %d", len(m.Layers), len(cfg.RootFS.DiffIDs))
	}
	return cfg, raw, nil
}

func isConfig(t types.MediaType) bool {
	return t == types.OCIConfigJSON || t == types.DockerConfigJSON || t == "" || t == "application/octet-stream"
}

// fetchSmall gets a verified document, from the store if it has it.
func (s *Store) fetchSmall(ctx context.Context, src source, d v1.Descriptor, limit int64) ([]byte, error) {
	if s.hasBlob(d) {
		return s.readBlob(d, limit)
	}
	if d.Size > limit {
		return nil, fmt.Errorf("blob %s: %d bytes, more than %d", short(d.Digest.String()), d.Size, limit)
	}
	var last error
	for try := range stalls {
		data, err := readSmall(ctx, src, d, limit)
		if err == nil {
			return data, nil
		}
		last = fmt.Errorf("blob %s: %w", short(d.Digest.String()), err)
		if _, again := registry.Retry(err, try); !again || errors.Is(err, ErrCorrupt) || ctx.Err() != nil {
			break
		}
	}
	return nil, last
}

func readSmall(ctx context.Context, src source, d v1.Descriptor, limit int64) ([]byte, error) {
	body, _, err := src.Blob(ctx, d, 0)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	data, err := readAll(body, limit)
	if err != nil {
		return nil, err
	}
	return data, verify(data, d)
}

// sizeOf sums the sizes of the files of an image's layers.
func (s *Store) sizeOf(cfg *v1.ConfigFile) int64 {
	var sum int64
	for _, l := range s.layers(cfg.RootFS.DiffIDs) {
		if rec, err := s.layerRecord(l.ChainID); err == nil {
			sum += rec.Size
		}
	}
	return sum
}

func readAll(r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("more than %d bytes", limit)
	}
	return data, err
}

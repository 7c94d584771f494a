package image

import (
	"context"
	"errors"
	"fmt"

	"github.com/kist-containers/kist/internal/ui"
)

// Pull policies, docker's --pull and podman's.
const (
	PullAlways  = "always"
	PullMissing = "missing"
	PullNever   = "never"
	PullNewer   = "newer"
)

// Ensure returns the image ref, pulled as policy says: "" is missing.
func (s *Store) Ensure(ctx context.Context, ref, policy string, o PullOptions) (*Image, error) {
	switch policy {
	case PullAlways:
		return s.Pull(ctx, ref, o)
	case "", PullMissing, PullNever:
	case PullNewer:
		img, err := s.Pull(ctx, ref, o)
		if err != nil {
			if local, lerr := s.local(ctx, ref, o.Platform); lerr == nil {
				return local, nil
			}
		}
		return img, err
	default:
		return nil, fmt.Errorf("--pull %s: want always, missing, newer or never", policy)
	}
	img, err := s.localOrAlias(ctx, ref, &o)
	if err == nil || !errors.Is(err, ErrNotFound) {
		return img, err
	}
	if policy == PullNever {
		return nil, ui.Hint(err, "kist pull %s", ref)
	}
	return s.Pull(ctx, ref, o)
}

// localOrAlias is local, also for what registries.conf makes of a short name.
// That is read only when the name itself is not there: most need none of it.
func (s *Store) localOrAlias(ctx context.Context, ref string, o *PullOptions) (*Image, error) {
	img, err := s.local(ctx, ref, o.Platform)
	if !errors.Is(err, ErrNotFound) {
		return img, err
	}
	if o.Registry == nil {
		o.Registry = defaultConfig()
	}
	names, xerr := expand(o.Registry, ref)
	if xerr != nil {
		return nil, err
	}
	for _, r := range names {
		if found, ferr := s.local(ctx, r.String(), o.Platform); ferr == nil {
			return found, nil
		}
	}
	return nil, err
}

// local is Resolve for an image that is to run: of the right platform, and with
// all layers unpacked.
func (s *Store) local(ctx context.Context, ref, platform string) (*Image, error) {
	img, err := s.ResolvePlatform(ref, platform)
	if errors.Is(err, ErrNotFound) && isHello(ref) {
		return s.makeHello(ctx)
	}
	if err != nil {
		return nil, err
	}
	if img.unpacked() {
		return img, nil
	}
	return img, s.unpackAgain(ctx, img)
}

// unpackAgain makes the layers of an image whose blobs another program put into
// the layout, or whose layers were lost.
func (s *Store) unpackAgain(ctx context.Context, img *Image) error {
	pin, err := s.Pin(ctx)
	if err != nil {
		return err
	}
	defer pin.Unlock()
	m, err := s.readManifest(img.Manifest)
	if err != nil {
		return err
	}
	if len(m.Layers) != len(img.Config.RootFS.DiffIDs) {
		return fmt.Errorf("image %s: %d layers, but %d diffIDs", short(img.ID), len(m.Layers), len(img.Config.RootFS.DiffIDs))
	}
	_, err = s.newFetch(storeSource{s}, nil).all(ctx, m.Layers, img.Config.RootFS.DiffIDs)
	return err
}

package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kist-containers/kist/internal/state"
)

// Check looks for what crashes or other programs left wrong and returns a line
// for each. repair removes litter, unpacks lost layers again from their blobs,
// and takes images out whose blobs are gone.
func (s *Store) Check(ctx context.Context, repair bool) ([]string, error) {
	if !exists(s.imageDir("oci-layout")) {
		return nil, nil
	}
	files, errFiles := state.Sweep(s.imageDir(), repair)
	problems := append(s.litter(), files...)
	entries, err := s.readIndex()
	if err != nil {
		return problems, err
	}
	lost := map[v1.Hash]bool{}
	errs := []error{errFiles}
	for _, e := range entries {
		img, err := s.openWhole(e)
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, ErrCorrupt):
			problems = append(problems, fmt.Sprintf("image %s %s: %v", short(e.id()), e.name(), err))
			lost[e.Digest] = true
		case err != nil:
			errs = append(errs, err)
		case img != nil && !img.unpacked():
			problems = append(problems, fmt.Sprintf("image %s %s: a layer is not unpacked", short(e.id()), e.name()))
			if repair {
				errs = append(errs, s.unpackAgain(ctx, img))
			}
		}
	}
	if !repair {
		return problems, errors.Join(errs...)
	}
	if len(lost) > 0 {
		errs = append(errs, s.drop(ctx, lost))
	}
	_, err = s.collect(ctx)
	return problems, errors.Join(append(errs, err)...)
}

// litter tells of what lies in the layers' directory unfinished, with nobody at
// work on it.
func (s *Store) litter() []string {
	var found []string
	reaping, adding := held(s.layerDir(reapLock)), held(s.imageDir("pin.lock"))
	for _, name := range readNames(s.layerDir()) {
		switch {
		case isTrash(name) && !reaping:
			found = append(found, "half-removed layer "+name)
		case strings.HasPrefix(name, ".tmp-") && !adding:
			found = append(found, "half-made layer "+name)
		}
	}
	return found
}

func held(path string) bool {
	lock, err := state.TryLock(path)
	lock.Unlock()
	return errors.Is(err, state.ErrLocked)
}

// openWhole opens the image of an entry and sees that its blobs are there; nil
// for a list of manifests.
func (s *Store) openWhole(e entry) (*Image, error) {
	if e.MediaType.IsIndex() {
		_, err := s.readBlob(e.Descriptor, maxManifest)
		return nil, err
	}
	m, err := s.readManifest(e.Descriptor)
	if err != nil {
		return nil, err
	}
	for _, l := range m.Layers {
		if !s.hasBlob(l) {
			return nil, fmt.Errorf("blob %s: %w", short(l.Digest.String()), fs.ErrNotExist)
		}
	}
	return s.open(e, nil)
}

func (s *Store) drop(ctx context.Context, lost map[v1.Hash]bool) error {
	return s.update(ctx, func(entries []entry) ([]entry, error) {
		var kept []entry
		for _, e := range entries {
			if !lost[e.Digest] {
				kept = append(kept, e)
			}
		}
		return kept, nil
	})
}

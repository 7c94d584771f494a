package image

import (
	"context"
	"errors"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// AddIndex stores an index of manifests of the store under each of names, which
// may not be empty: an index without a name would be garbage.
func (s *Store) AddIndex(ctx context.Context, manifests []v1.Descriptor, names []string) (v1.Descriptor, error) {
	im := &v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}
	for _, m := range manifests {
		im.Manifests = append(im.Manifests, bareWithPlatform(m))
	}
	if len(names) == 0 {
		return v1.Descriptor{}, errors.New("an index wants a name")
	}
	var d v1.Descriptor
	var err error
	for _, name := range names {
		if d, err = s.saveList(ctx, name, im); err != nil {
			return d, err
		}
	}
	return d, nil
}

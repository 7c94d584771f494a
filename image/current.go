package image

import (
	"context"
	"fmt"

	"github.com/kist-containers/kist/image/registry"
)

// Current reports whether the registry still means by ref what is stored under
// it. It asks for the digest alone, with one request.
func (s *Store) Current(ctx context.Context, ref string, o PullOptions) (bool, error) {
	if o.Registry == nil {
		o.Registry = defaultConfig()
	}
	candidates, err := expand(o.Registry, ref)
	if err != nil {
		return false, err
	}
	entries, err := s.readIndex()
	if err != nil {
		return false, err
	}
	var errs []error
	for _, r := range candidates {
		repo, err := registry.Open(o.Registry, r.Host, r.Path)
		if err != nil {
			return false, err
		}
		d, err := repo.Head(ctx, r.identifier())
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", r.Familiar(), err))
			continue
		}
		e, ok := findRef(entries, r)
		if !ok {
			return false, nil
		}
		known, err := ParseReference(e.repoDigest())
		return err == nil && known.Digest == d.Digest.String(), nil
	}
	return false, registry.Join(errs)
}

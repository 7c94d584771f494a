package image

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/kist-containers/kist/internal/ui"
)

// ManifestRemoveCmd is `kist manifest remove`.
type ManifestRemoveCmd struct {
	List  string `arg:"" help:"Name of the list."`
	Image string `arg:"" help:"Digest of the image."`
}

// Run takes the entry out.
func (c *ManifestRemoveCmd) Run(ctx context.Context, s *Store, out *ui.Output) error {
	_, im, err := s.list(c.List)
	if err != nil {
		return err
	}
	i, err := s.member(ctx, im, c.Image)
	if err != nil {
		return fmt.Errorf("manifest remove %s: %w", c.List, err)
	}
	im.Manifests = slices.Delete(im.Manifests, i, i+1)
	d, err := s.saveList(ctx, c.List, im)
	if err == nil {
		out.Print(d.Digest)
	}
	return err
}

// ManifestRmCmd is `kist manifest rm`.
type ManifestRmCmd struct {
	Ignore bool     `short:"i" help:"Do not mind a list that is not there."`
	Lists  []string `arg:"" help:"Names of lists."`
}

// Run removes lists, not images.
func (c *ManifestRmCmd) Run(ctx context.Context, s *Store, out *ui.Output) error {
	var errs []error
	for _, name := range c.Lists {
		_, _, err := s.list(name)
		if err == nil {
			_, err = s.Remove(ctx, name, RemoveOptions{Force: true})
		}
		if c.Ignore && errors.Is(err, ErrNotFound) {
			err = nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// ManifestExistsCmd is `kist manifest exists`.
type ManifestExistsCmd struct {
	List string `arg:"" help:"Name of the list."`
}

// Run says by its status whether the list is there.
func (c *ManifestExistsCmd) Run(s *Store) error {
	if _, _, err := s.list(c.List); err != nil {
		return ui.Exit(1)
	}
	return nil
}

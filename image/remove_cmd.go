package image

import (
	"context"
	"errors"
	"fmt"

	"github.com/kist-containers/kist/internal/ui"
)

// RmCmd is `kist rmi`.
type RmCmd struct {
	Force   bool     `short:"f" help:"Also an image with several names, or of a stopped container."`
	NoPrune bool     `help:"Accepted for docker's sake; kist has no untagged parents."`
	All     bool     `short:"a" help:"Remove all images."`
	Ignore  bool     `short:"i" help:"Do not mind an image that is not there."`
	Image   []string `arg:"" optional:"" help:"Name, ID, prefix of an ID, or NAME@DIGEST."`
}

// Run removes one image after another and goes on after an error.
func (c *RmCmd) Run(ctx context.Context, s *Store, out *ui.Output) error {
	names, err := s.named(c.Image, c.All)
	if err != nil {
		return err
	}
	if len(names) == 0 && !c.All {
		return errors.New("rmi: no image named")
	}
	var errs []error
	for _, name := range names {
		done, err := s.Remove(ctx, name, RemoveOptions{Force: c.Force || c.All})
		for _, d := range done {
			if d.Untagged != "" {
				out.Printf("Untagged: %s\n", d.Untagged)
			} else {
				out.Printf("Deleted: %s\n", d.Deleted)
			}
		}
		if err != nil && !(c.Ignore && errors.Is(err, ErrNotFound)) {
			if c.Force && errors.Is(err, ErrNotFound) {
				// docker: -f tells of a missing image and succeeds.
				out.Notef("kist: rmi: %s", err)
				continue
			}
			errs = append(errs, fmt.Errorf("rmi %w", err))
		}
	}
	return errors.Join(errs...)
}

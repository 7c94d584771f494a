package image

import (
	"context"
	"io"

	"github.com/kist-containers/kist/image/layer"
)

// A Change is one path that a container changed, with docker's letter.
type Change = layer.Change

// Changes lists what upper, overlay's directory of changes, does to lowers (top
// first): docker's diff.
func (s *Store) Changes(upper string, lowers []string) ([]Change, error) {
	return layer.Changes(upper, lowers, s.o.Rootless)
}

// WriteDiff writes the layer archive of upper above lowers.
func (s *Store) WriteDiff(ctx context.Context, w io.Writer, upper string, lowers []string, owner Owner) error {
	_, err := layer.WriteDiff(ctx, w, upper, lowers, layer.DiffOptions{Rootless: s.o.Rootless, Owner: owner})
	return err
}

// An Owner translates owners on disk to those of an archive; nil leaves them.
type Owner = func(uid, gid uint32) (uint32, uint32)

// WriteTree writes the whole tree below root as an archive: docker's export of
// a mounted root file system.
func WriteTree(ctx context.Context, w io.Writer, root string) error {
	return WriteTreeAs(ctx, w, root, nil)
}

// WriteTreeAs is WriteTree with other owners.
func WriteTreeAs(ctx context.Context, w io.Writer, root string, owner Owner) error {
	_, err := layer.WriteDiff(ctx, w, root, nil, layer.DiffOptions{Flat: true, Owner: owner})
	return err
}

// UnpackTree unpacks an archive, compressed or not, into the empty directory dir,
// with the care that a layer gets: nothing lands outside.
func (s *Store) UnpackTree(ctx context.Context, dir string, r io.Reader) error {
	_, err := layer.Apply(ctx, dir, r, layer.Options{Rootless: s.o.Rootless})
	return err
}

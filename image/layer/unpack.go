package layer

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Options say how a layer is unpacked.
type Options struct {
	// Rootless uses user.overlay.* attributes, leaves out device nodes, and keeps
	// the caller's owner where an id is not mapped.
	Rootless bool
}

// A Result is what unpacking found out.
type Result struct {
	// DiffID is the digest of the uncompressed archive, "sha256:…".
	DiffID string
	// Size is the sum of the regular files' sizes in bytes, as docker counts it.
	Size int64
	// Disk is how much of the file system that is: whole blocks, directories too.
	Disk int64
	// Files is the number of entries.
	Files int
	// Implied are the directories that the archive has no entry for. They take
	// mode, owner, times and attributes from the layers below; see Adopt.
	Implied []string
	// HideRoot says that the archive hides everything below the layer; overlay
	// knows no opaque root, so Adopt makes whiteouts.
	HideRoot bool
}

// Apply unpacks the archive r, compressed or not, into dir, an empty directory
// that nobody else writes to. After an error dir holds a part of the layer.
func Apply(ctx context.Context, dir string, r io.Reader, o Options) (Result, error) {
	src, _, err := Decompress(r)
	if err != nil {
		return Result{}, err
	}
	defer src.Close()
	root, err := os.OpenFile(dir, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return Result{}, err
	}
	defer root.Close()
	h := sha256.New()
	p := newPipeline(ctx, src, h)
	defer p.Close()
	u := newUnpacker(root, o)
	defer u.dirs.close()
	if err := u.unpack(ctx, p); err != nil {
		return Result{}, err
	}
	// The digest covers what follows the archive's end marker too.
	if _, err := io.Copy(io.Discard, p); err != nil {
		return Result{}, err
	}
	u.res.DiffID = digestOf(h)
	return u.res, nil
}

type unpacker struct {
	root *os.File
	o    Options
	dirs dirCache
	// pending are the directories whose attributes come last, because adding
	// names to a directory changes its times and a set-gid one its children.
	pending []*tar.Header
	byPath  map[string]int
	buf     []byte
	// sparse sums the sizes that sparse files claim: a header of some bytes may
	// claim any.
	sparse int64
	res    Result
}

func newUnpacker(root *os.File, o Options) *unpacker {
	return &unpacker{
		root: root, o: o, dirs: dirCache{root: root},
		byPath: map[string]int{}, buf: make([]byte, 64<<10),
	}
}

func (u *unpacker) unpack(ctx context.Context, r io.Reader) error {
	tr := tar.NewReader(r)
	for {
		hdr, err := tr.Next()
		switch {
		case errors.Is(err, io.EOF):
			return u.finish()
		case err != nil:
			return fmt.Errorf("read layer archive: %w", err)
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case u.res.Files >= maxEntries:
			return fmt.Errorf("%w: more than %d entries", ErrTooLarge, maxEntries)
		}
		u.res.Files++
		if err := u.entry(hdr, tr); err != nil {
			return fmt.Errorf("unpack %.255q: %w", hdr.Name, err)
		}
	}
}

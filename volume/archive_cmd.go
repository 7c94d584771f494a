package volume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/kist-containers/kist/internal/state"
	"github.com/kist-containers/kist/internal/ui"
)

// commandHolder stands for this command among those who have a volume mounted.
func commandHolder() string { return fmt.Sprintf("command-%d", os.Getpid()) }

// with calls f with the directory of the volume name while it is attached.
func (s *Store) with(ctx context.Context, name string, f func(dir string) error) (err error) {
	dir, err := s.Attach(ctx, name, commandHolder())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Detach(context.WithoutCancel(ctx), name, commandHolder())) }()
	return f(dir)
}

// Import unpacks an archive, compressed or not, into the volume name. What is
// there already stays where the archive has nothing of the name. The archive is
// unpacked beside first: a bad one changes nothing.
func (s *Store) Import(ctx context.Context, name string, r io.Reader) error {
	return s.with(ctx, name, func(dir string) error {
		l, err := s.lock(ctx, name)
		if err != nil {
			return err
		}
		defer l.Unlock()
		v, err := s.Get(name)
		if err != nil {
			return err
		}
		draft := filepath.Join(s.draft(v, dir), importDraft)
		if err := os.RemoveAll(draft); err != nil {
			return err
		}
		if err := os.Mkdir(draft, 0o755); err != nil {
			return err
		}
		defer os.RemoveAll(draft)
		if err := s.o.Unpack(ctx, draft, r); err != nil {
			return err
		}
		if err := merge(draft, dir); err != nil {
			return err
		}
		return s.filled(v)
	})
}

const importDraft = fillDone + ".import"

// Export writes what is in the volume name as a tar archive.
func (s *Store) Export(ctx context.Context, name string, w io.Writer) error {
	return s.with(ctx, name, func(dir string) error { return s.o.Pack(ctx, w, dir) })
}

// ImportCmd is `kist volume import`.
type ImportCmd struct {
	Volume string `arg:"" help:"Name of a volume that is there."`
	Source string `arg:"" optional:"" default:"-" help:"File, or - for standard input."`
}

// Run unpacks the archive.
func (c *ImportCmd) Run(ctx context.Context, s *Store, out *ui.Output) error {
	if _, err := s.Get(c.Volume); err != nil {
		return fmt.Errorf("volume import %w", err)
	}
	r := out.In
	if c.Source != "-" {
		f, err := os.Open(c.Source)
		if err != nil {
			return fmt.Errorf("volume import: %w", err)
		}
		defer f.Close()
		r = f
	}
	if err := s.Import(ctx, c.Volume, r); err != nil {
		return fmt.Errorf("volume import %s: %w", c.Volume, err)
	}
	return nil
}

// ExportCmd is `kist volume export`.
type ExportCmd struct {
	Output string `short:"o" help:"File of the archive; standard output by default." placeholder:"FILE"`
	Volume string `arg:"" help:"Name of a volume."`
}

// Run writes the archive: complete, or not at all.
func (c *ExportCmd) Run(ctx context.Context, s *Store, out *ui.Output) error {
	if _, err := s.Get(c.Volume); err != nil {
		return fmt.Errorf("volume export %w", err)
	}
	write := func(w io.Writer) error { return s.Export(ctx, c.Volume, w) }
	var err error
	if c.Output == "" || c.Output == "-" || c.Output == "/dev/stdout" {
		err = write(out.Out)
	} else {
		err = state.WriteFileFrom(c.Output, 0o600, write)
	}
	if err != nil {
		return fmt.Errorf("volume export %s: %w", c.Volume, err)
	}
	return nil
}

// hostHolder stands for `kist volume mount`.
const hostHolder = "host"

// MountCmd is `kist volume mount`.
type MountCmd struct {
	Volume []string `arg:"" help:"Names of volumes."`
}

// Run prints where each volume is.
func (c *MountCmd) Run(ctx context.Context, s *Store, out *ui.Output) error {
	for _, name := range c.Volume {
		dir, err := s.Attach(ctx, name, hostHolder)
		if err != nil {
			return fmt.Errorf("volume mount %w", err)
		}
		out.Print(dir)
	}
	return nil
}

// UnmountCmd is `kist volume unmount`.
type UnmountCmd struct {
	Volume []string `arg:"" help:"Names of volumes."`
}

// Run undoes MountCmd.
func (c *UnmountCmd) Run(ctx context.Context, s *Store, out *ui.Output) error {
	for _, name := range c.Volume {
		if _, err := s.Get(name); err != nil {
			return fmt.Errorf("volume unmount %w", err)
		}
		if err := s.Detach(ctx, name, hostHolder); err != nil {
			return fmt.Errorf("volume unmount %s: %w", name, err)
		}
		out.Print(name)
	}
	return nil
}

package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/kist-containers/kist/internal/ui"
)

// SaveCmd is `kist save`.
type SaveCmd struct {
	Output   string   `short:"o" help:"File, or directory with --format oci-dir and docker-dir; standard output without it." placeholder:"FILE"`
	Format   string   `default:"docker-archive" enum:"docker-archive,oci-archive,oci-dir,docker-dir" help:"docker-archive, oci-archive, oci-dir or docker-dir."`
	Multi    bool     `short:"m" name:"multi-image-archive" help:"Accepted for podman's sake; several images are always possible."`
	Quiet    bool     `short:"q" help:"Accepted; nothing is shown anyway."`
	Platform []string `help:"Only these platforms of a list of images." placeholder:"PLATFORM"`
	Image    []string `arg:"" help:"Names or IDs."`
}

// Run writes the archive. A file is complete or is not there.
func (c *SaveCmd) Run(ctx context.Context, s *Store, out *ui.Output) error {
	if err := c.save(ctx, s, out); err != nil {
		return fmt.Errorf("save: %w", err)
	}
	return nil
}

func (c *SaveCmd) save(ctx context.Context, s *Store, out *ui.Output) error {
	o := SaveOptions{Format: c.Format, Platforms: c.Platform}
	toDir := c.Format == OCIDir || c.Format == DockerDir
	switch {
	case toDir && c.Output == "":
		return fmt.Errorf("--format %s needs -o DIR", c.Format)
	case toDir:
		return s.SaveDir(ctx, c.Output, c.Image, o)
	case c.Output == "" && ui.IsTerminal(out.Out):
		return ui.Hint(errors.New("standard output is a terminal"), "kist save -o FILE %s", c.Image[0])
	case c.Output == "":
		return s.Save(ctx, out.Out, c.Image, o)
	}
	return writeOutput(c.Output, func(f *os.File) error { return s.Save(ctx, f, c.Image, o) })
}

// writeOutput fills the file path that a user named: beside it first, so that
// an error leaves what was there. A device or pipe is written directly.
func writeOutput(path string, fill func(*os.File) error) (err error) {
	if st, serr := os.Stat(path); serr == nil && !st.Mode().IsRegular() {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return errors.Join(fill(f), f.Close())
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-"+filepath.Base(path)+"-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	if err := errors.Join(fill(f), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/sys"
	"github.com/kist-containers/kist/internal/ui"
)

type unixStat = syscall.Stat_t

// CpCmd is `kist cp`.
type CpCmd struct {
	Archive    bool   `short:"a" help:"Keep the owners."`
	FollowLink bool   `short:"L" help:"Follow a link that the source is."`
	Quiet      bool   `short:"q" help:"Say nothing."`
	Overwrite  bool   `help:"Let a file replace a directory and the other way round."`
	Source     string `arg:"" help:"CONTAINER:PATH, PATH, or - for a tar stream on standard input."`
	Dest       string `arg:"" help:"CONTAINER:PATH, PATH, or - for a tar stream on standard output."`
}

// A side is one end of a copy: a path below a root.
type side struct {
	root *os.File // "/" of the container or of the host
	path string
	// trailing says that the path ends with a slash: it must be a directory.
	trailing bool
	// contents says that it ends with /.: what is in it, not it.
	contents  bool
	container bool
}

// Run copies.
func (c *CpCmd) Run(ctx context.Context, e *Engine, out *ui.Output) error {
	if err := c.copy(ctx, e, out); err != nil {
		return fmt.Errorf("cp: %w", err)
	}
	return nil
}

func (c *CpCmd) copy(ctx context.Context, e *Engine, out *ui.Output) error {
	from, err := c.side(e, c.Source)
	if err != nil {
		return err
	}
	to, err := c.side(e, c.Dest)
	if err != nil {
		return err
	}
	switch {
	case from != nil && to != nil && !from.container && !to.container, from == nil && to == nil:
		return errors.New("one of the two must be in a container: CONTAINER:PATH")
	case to == nil && ui.IsTerminal(out.Out):
		return errors.New("refusing to write an archive to a terminal")
	}
	r, w := io.Pipe()
	done := make(chan error, 1)
	if from == nil {
		return to.receiveStream(ctx, out.In, c)
	}
	name, dir := "", (*os.File)(nil)
	if to != nil {
		if name, dir, err = to.place(from, c); err != nil {
			return err
		}
		defer dir.Close()
	} else {
		name = path.Base(path.Clean("/" + from.path))
	}
	if name == "/" {
		name = "."
	}
	go func() {
		err := from.send(ctx, w, name, c)
		w.CloseWithError(err)
		done <- err
	}()
	if to == nil {
		_, err = io.Copy(out.Out, r)
	} else {
		err = receive(ctx, r, dir, c.options(to))
	}
	r.CloseWithError(err)
	if sent := <-done; sent != nil {
		return sent
	}
	return err
}

func (c *CpCmd) options(to *side) unpackOptions {
	// docker: into a container the files are root's, out of it the caller's,
	// unless -a keeps the owners.
	return unpackOptions{Owner: c.Archive, Replace: c.Overwrite}
}

// side reads an argument. A name with a slash or a dot in front of the colon is
// a path of the host.
func (c *CpCmd) side(e *Engine, arg string) (*side, error) {
	if arg == "-" {
		return nil, nil
	}
	name, p, ok := strings.Cut(arg, ":")
	s := &side{path: arg}
	if ok && !strings.ContainsAny(name, "/.") && name != "" {
		ct, err := e.Lookup(name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if s.root, err = e.openRootFS(ct); err != nil {
			return nil, err
		}
		s.path, s.container = "/"+p, true
	} else {
		abs, err := filepath.Abs(arg)
		if err != nil {
			return nil, err
		}
		if s.root, err = os.OpenFile("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
			return nil, err
		}
		s.path = abs
		p = arg
	}
	s.trailing = strings.HasSuffix(p, "/") || strings.HasSuffix(p, "/.")
	s.contents = strings.HasSuffix(p, "/.") || p == "."
	s.path = path.Clean(s.path)
	return s, nil
}

// place decides, as docker does, the directory to unpack in and the name that
// the source gets there.
func (to *side) place(from *side, c *CpCmd) (name string, dir *os.File, err error) {
	source, err := statInRoot(from.root, from.path, c.FollowLink || from.trailing)
	if err != nil {
		return "", nil, fmt.Errorf("%s: %w", from.path, plain(err))
	}
	base := path.Base(from.path)
	if from.path == "/" {
		base = "."
	}
	target, err := statInRoot(to.root, to.path, true)
	switch {
	case err == nil && target.IsDir():
		if from.contents || from.path == "/" {
			base = "."
		}
		dir, err = to.openDir(to.path)
		return base, dir, err
	case err == nil && source.IsDir():
		return "", nil, fmt.Errorf("%s: cannot copy a directory onto a file", to.path)
	case err == nil && to.trailing:
		return "", nil, fmt.Errorf("%s: not a directory", to.path)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return "", nil, fmt.Errorf("%s: %w", to.path, plain(err))
	case err != nil && to.trailing && !source.IsDir():
		return "", nil, fmt.Errorf("%s: no such directory", to.path)
	}
	dir, err = to.openDir(path.Dir(to.path))
	if err != nil {
		return "", nil, fmt.Errorf("%s: %w", path.Dir(to.path), plain(err))
	}
	return path.Base(to.path), dir, nil
}

func (s *side) openDir(p string) (*os.File, error) {
	return sys.OpenInRoot(s.root, p, unix.O_PATH|unix.O_DIRECTORY, 0)
}

func plain(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// send packs the source under name.
func (s *side) send(ctx context.Context, w io.Writer, name string, c *CpCmd) error {
	if s.path == "/" {
		root, err := rootAt(s.root)
		if err != nil {
			return err
		}
		defer root.Close()
		return pack(ctx, w, root, ".", name)
	}
	at, base := s.path, path.Base(s.path)
	if c.FollowLink || s.trailing {
		// Where the link leads, inside the root: found by asking the descriptor.
		f, err := sys.OpenInRoot(s.root, s.path, unix.O_PATH, 0)
		if err != nil {
			return plain(err)
		}
		info, err := f.Stat()
		if err == nil && info.IsDir() {
			defer f.Close()
			root, err := rootAt(f)
			if err != nil {
				return err
			}
			defer root.Close()
			return pack(ctx, w, root, ".", name)
		}
		f.Close()
		if real, err := s.resolve(); err == nil {
			at, base = real, path.Base(real)
		}
	}
	dir, err := s.openDir(path.Dir(at))
	if err != nil {
		return plain(err)
	}
	defer dir.Close()
	root, err := rootAt(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return pack(ctx, w, root, base, name)
}

// resolve follows the links of the path, one at a time, inside the root.
func (s *side) resolve() (string, error) {
	p := s.path
	for range 40 {
		f, err := sys.OpenInRoot(s.root, p, unix.O_PATH|unix.O_NOFOLLOW, 0)
		if err != nil {
			return "", err
		}
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(int(f.Fd()), "", buf)
		f.Close()
		if err != nil {
			return p, nil
		}
		if target := string(buf[:n]); path.IsAbs(target) {
			p = path.Clean(target)
		} else {
			p = path.Join(path.Dir(p), target)
		}
	}
	return "", unix.ELOOP
}

func receive(ctx context.Context, r io.Reader, dir *os.File, o unpackOptions) error {
	root, err := rootAt(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return unpack(ctx, r, root, o)
}

// receiveStream unpacks standard input into a directory of the container.
func (to *side) receiveStream(ctx context.Context, in io.Reader, c *CpCmd) error {
	dir, err := to.openDir(to.path)
	if err != nil {
		return fmt.Errorf("%s: %w", to.path, plain(err))
	}
	defer dir.Close()
	return receive(ctx, in, dir, unpackOptions{Owner: true, Replace: c.Overwrite})
}

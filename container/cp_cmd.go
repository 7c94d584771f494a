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
	contents bool
	// of is the container, nil for the host.
	of *Config
	// who are the owners of its files, nil for the host.
	who *owners
	// below is where root is mounted in the container.
	below string
}

// arg is the path as the user knows it.
func (s *side) arg() string { return path.Join(s.below, s.path) }

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
	case from != nil && to != nil && from.of == nil && to.of == nil, from == nil && to == nil:
		return errors.New("one of the two must be in a container: CONTAINER:PATH")
	case to == nil && ui.IsTerminal(out.Out):
		return errors.New("refusing to write an archive to a terminal")
	}
	if to != nil && to.of != nil && to.of.Security.ReadOnly && to.below == "" && !e.Status(to.of.ID).HasProcess() {
		return fmt.Errorf("%s: the root file system is read-only", to.arg())
	}
	if from == nil {
		return to.receiveStream(ctx, e, out.In, c)
	}
	r, w := io.Pipe()
	done := make(chan error, 1)
	source, err := from.stat(c)
	if err != nil {
		return err
	}
	name, dir := "", (*os.File)(nil)
	if to != nil {
		if name, dir, err = to.place(from, source); err != nil {
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
	count := &counter{r: r}
	if to == nil {
		_, err = io.Copy(out.Out, count)
	} else {
		// docker: into a container the files are root's, out of it the caller's,
		// unless -a keeps the owners.
		err = receive(ctx, count, dir, unpackOptions{Owner: c.Archive, Replace: c.Overwrite, Who: to.who})
	}
	r.CloseWithError(err)
	if sent := <-done; sent != nil && !errors.Is(sent, err) {
		return sent
	}
	if err == nil {
		from.tell(e, "archive-path")
		to.tell(e, "extract-to-dir")
		if to != nil && !c.Quiet && ui.IsTerminal(out.Err) {
			out.Notef("Successfully copied %s to %s", ui.Size(count.n), c.Dest)
		}
	}
	return err
}

// tell notes what was done to the side's container.
func (s *side) tell(e *Engine, action string) {
	if s != nil && s.of != nil {
		e.event(s.of, action, map[string]string{"path": s.arg()})
	}
}

// counter counts what is read.
type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
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
		s.of, s.who, s.path = ct, e.ownersOf(ct), path.Clean("/"+p)
		m, rest, found := ct.mountedAt(s.path)
		if found && !e.Status(ct.ID).HasProcess() {
			s.path, s.below = rest, m.Target
			s.root, err = e.openMount(m)
		} else {
			s.root, err = e.openRootFS(ct)
		}
		if err != nil {
			return nil, err
		}
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
func (to *side) place(from *side, source fs.FileInfo) (name string, dir *os.File, err error) {
	base := path.Base(from.path)
	if from.path == "/" {
		base = "."
	}
	// What is copied onto a link goes to where it leads, inside the root.
	if real, err := to.resolve(); err == nil {
		to.path = real
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
		return "", nil, fmt.Errorf("%s: cannot copy a directory onto a file", to.arg())
	case err == nil && to.trailing:
		return "", nil, fmt.Errorf("%s: not a directory", to.arg())
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return "", nil, fmt.Errorf("%s: %w", to.arg(), plain(err))
	case err != nil && to.trailing && !source.IsDir():
		return "", nil, fmt.Errorf("%s: no such directory", to.arg())
	}
	dir, err = to.openDir(path.Dir(to.path))
	if err != nil {
		return "", nil, fmt.Errorf("%s: %w", path.Dir(to.arg()), plain(err))
	}
	return path.Base(to.path), dir, nil
}

// stat looks at the source.
func (s *side) stat(c *CpCmd) (fs.FileInfo, error) {
	info, err := statInRoot(s.root, s.path, c.FollowLink || s.trailing)
	if err == nil && s.trailing && !info.IsDir() {
		err = unix.ENOTDIR
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.arg(), plain(err))
	}
	return info, nil
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
		return pack(ctx, w, root, ".", name, s.who)
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
			return pack(ctx, w, root, ".", name, s.who)
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
	return pack(ctx, w, root, base, name, s.who)
}

// resolve follows the links of the path, one at a time, inside the root.
func (s *side) resolve() (string, error) {
	p := s.path
	for hop := range 40 {
		f, err := sys.OpenInRoot(s.root, p, unix.O_PATH|unix.O_NOFOLLOW, 0)
		if err != nil && hop > 0 && errors.Is(err, fs.ErrNotExist) {
			return p, nil // a link to what is not there yet
		}
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
func (to *side) receiveStream(ctx context.Context, e *Engine, in io.Reader, c *CpCmd) error {
	dir, err := to.openDir(to.path)
	if err != nil {
		return fmt.Errorf("%s: %w", to.arg(), plain(err))
	}
	defer dir.Close()
	err = receive(ctx, in, dir, unpackOptions{Owner: true, Replace: c.Overwrite, Who: to.who})
	if err == nil {
		to.tell(e, "extract-to-dir")
	}
	return err
}

package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/kist-containers/kist/internal/ui"
)

// A buildContext is the files that a build may copy, and its Dockerfile.
type buildContext struct {
	source
	dockerfile []byte
	// name is what messages call the Dockerfile.
	name string
	// origin is where a context came from that is no directory of this machine's.
	origin  material
	cleanup []func()
}

func (c *buildContext) Close() {
	if c.root != nil {
		c.root.Close()
	}
	for _, f := range c.cleanup {
		f()
	}
}

// openContext finds the context that req names: a directory, "-" for a
// Dockerfile or an archive on stdin, a git or http(s) URL.
func (b *Builder) openContext(ctx context.Context, req *Request) (*buildContext, error) {
	c, err := b.findContext(ctx, req)
	if err != nil || req.Ignorefile == "" {
		return c, err
	}
	data, err := os.ReadFile(req.Ignorefile)
	if err == nil {
		c.ignore, err = parseIgnore(req.Ignorefile, data)
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("--ignorefile: %w", err)
	}
	return c, nil
}

func (b *Builder) findContext(ctx context.Context, req *Request) (_ *buildContext, err error) {
	where, file, stdin := req.Context, req.File, req.Stdin
	c := &buildContext{source: source{name: "the build context", owned: true}}
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	switch {
	case where == "-" && file == "-":
		return nil, errors.New("--file - and the context - both want standard input")
	case where == "-":
		err = b.stdinContext(c, stdin)
	case isGit(where) || strings.HasPrefix(where, "github.com/"):
		err = b.gitContext(ctx, c, where, isTrue(req.Args["BUILDKIT_CONTEXT_KEEP_GIT_DIR"]))
	case isURL(where):
		err = b.urlContext(ctx, c, where)
	default:
		return c, b.dirContext(c, where, file, stdin)
	}
	if err != nil {
		return nil, err
	}
	if err := c.findDockerfile(file, stdin); err != nil {
		return nil, err
	}
	c.ignore, err = findIgnore(&c.source, "")
	return c, err
}

// dirContext opens a directory. The Dockerfile may lie outside it.
func (b *Builder) dirContext(c *buildContext, dir, file string, stdin io.Reader) (err error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if c.root, err = os.Open(abs); err != nil {
		return fmt.Errorf("build context %s: %w", dir, errors.Unwrap(err))
	}
	if st, err := c.root.Stat(); err != nil || !st.IsDir() {
		return ui.Hint(fmt.Errorf("build context %s: not a directory", dir), "kist build -f %s %s", dir, filepath.Dir(dir))
	}
	c.sums = openSums(b.dir("sum"), abs)
	beside := ""
	switch file {
	case "-":
		c.name = "Dockerfile (stdin)"
		c.dockerfile, err = readLimited(stdin)
	case "":
		if err = c.findDockerfile("", nil); err == nil {
			beside = filepath.Join(abs, c.name)
		}
	default:
		beside, c.name = file, file
		if c.dockerfile, err = os.ReadFile(file); errors.Is(err, os.ErrNotExist) {
			err = fmt.Errorf("--file %s: no such file (it is looked up from the working directory)", file)
		}
	}
	if err != nil {
		return err
	}
	c.ignore, err = findIgnore(&c.source, beside)
	return err
}

// findDockerfile reads the Dockerfile inside the context.
func (c *buildContext) findDockerfile(file string, stdin io.Reader) (err error) {
	switch {
	case c.dockerfile != nil:
		return nil
	case file == "-":
		c.name = "Dockerfile (stdin)"
		c.dockerfile, err = readLimited(stdin)
		return err
	case file != "":
		c.name = file
		c.dockerfile, err = c.read(file, maxDockerfile)
		return err
	}
	for _, name := range []string{"Dockerfile", "dockerfile", "Containerfile"} {
		c.name = name
		c.dockerfile, err = c.read(name, maxDockerfile)
		if !notFound(err) {
			return err
		}
	}
	return ui.Hint(errors.New("no Dockerfile in the build context"), "name it with -f FILE")
}

// isTrue reads a build argument that turns something on.
func isTrue(s string) bool {
	yes, err := strconv.ParseBool(s)
	return err == nil && yes
}

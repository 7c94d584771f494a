package build

import (
	"archive/tar"
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"

	"github.com/kist-containers/kist/internal/ui"
)

func readLimited(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxDockerfile+1))
	if err == nil && len(data) > maxDockerfile {
		err = fmt.Errorf("Dockerfile on standard input: larger than %s", ui.Binary(maxDockerfile))
	}
	return data, err
}

// stdinContext reads an archive, or a Dockerfile without a context.
func (b *Builder) stdinContext(c *buildContext, r io.Reader) error {
	return b.streamContext(c, r, "Dockerfile (stdin)")
}

// streamContext unpacks r when it is an archive; otherwise it is the Dockerfile.
func (b *Builder) streamContext(c *buildContext, r io.Reader, name string) error {
	br := bufio.NewReaderSize(r, 64<<10)
	plain, err := decompress(br)
	if err != nil {
		return err
	}
	defer plain.Close()
	pb := bufio.NewReaderSize(plain, 64<<10)
	if head, _ := pb.Peek(512); !isTarHeader(head) {
		if c.dockerfile, err = readLimited(pb); err != nil {
			return err
		}
		c.name = name
		return b.emptyContext(c)
	}
	if err := b.emptyContext(c); err != nil {
		return err
	}
	t := &tree{root: c.root}
	x := untar{t: t, dest: "/", flat: true, limit: maxContext}
	if err := x.all(tar.NewReader(pb)); err != nil {
		return fmt.Errorf("unpack the build context: %w", err)
	}
	return t.close()
}

// maxContext bounds a context that comes as a stream, whose size nobody knows.
const maxContext = 256 << 30

func isTarHeader(head []byte) bool {
	_, err := tar.NewReader(bytes.NewReader(head)).Next()
	return len(head) == 512 && err == nil
}

// emptyContext makes the context an empty directory that ends with the build.
func (b *Builder) emptyContext(c *buildContext) error {
	dir, remove, err := b.scratch()
	if err != nil {
		return err
	}
	c.cleanup = append(c.cleanup, remove)
	c.root, err = os.Open(dir)
	return err
}

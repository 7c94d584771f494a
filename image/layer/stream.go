package layer

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// zstdWindow bounds the memory that a frame may ask for. zstd -19 uses 8 MiB.
const zstdWindow = 32 << 20

// A Compression is how an archive was compressed, told by its first bytes.
type Compression string

// The compressions that are recognised.
const (
	None  Compression = ""
	Gzip  Compression = "gzip"
	Zstd  Compression = "zstd"
	Bzip2 Compression = "bzip2"
	XZ    Compression = "xz"
)

// Detect tells the compression from the first bytes of a file; six are enough.
func Detect(head []byte) Compression {
	for _, m := range []struct {
		magic string
		is    Compression
	}{
		{"\x1f\x8b", Gzip}, {"\x28\xb5\x2f\xfd", Zstd}, {"BZh", Bzip2}, {"\xfd7zXZ\x00", XZ},
		// A skippable frame may precede a zstd stream.
		{"\x50\x2a\x4d\x18", Zstd},
	} {
		if bytes.HasPrefix(head, []byte(m.magic)) {
			return m.is
		}
	}
	return None
}

// Decompress returns the uncompressed form of r, whatever its compression is.
// It fails with ErrTooLarge where that grows as no honest archive does. Closing
// it does not close r.
func Decompress(r io.Reader) (io.ReadCloser, Compression, error) {
	return decompressBounded(r, freeBytes)
}

// An archive may grow to freeBytes without a question, and beyond to maxRatio
// times its compressed size. gzip reaches 1032:1 and zstd more, but real layers
// stay below 100:1.
const (
	freeBytes = 8 << 30
	maxRatio  = 200
)

func decompressBounded(r io.Reader, free int64) (io.ReadCloser, Compression, error) {
	in := &meter{r: r}
	br := bufio.NewReaderSize(in, 64<<10)
	head, err := br.Peek(6)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, None, err
	}
	c := Detect(head)
	rc, err := decompress(br, c)
	if err != nil {
		return nil, c, fmt.Errorf("decompress %s: %w", c, err)
	}
	if c == None {
		return rc, c, nil
	}
	return &inflated{ReadCloser: rc, in: in, free: free}, c, nil
}

// A meter counts what is read.
type meter struct {
	r io.Reader
	n int64
}

func (m *meter) Read(b []byte) (int, error) {
	n, err := m.r.Read(b)
	m.n += int64(n)
	return n, err
}

// An inflated is the uncompressed form of in, bounded.
type inflated struct {
	io.ReadCloser
	in        *meter
	out, free int64
}

func (i *inflated) Read(b []byte) (int, error) {
	n, err := i.ReadCloser.Read(b)
	i.out += int64(n)
	if i.out > i.free && i.out > i.in.n*maxRatio {
		return 0, fmt.Errorf("%w: %d compressed bytes became %d", ErrTooLarge, i.in.n, i.out)
	}
	return n, err
}

func decompress(r io.Reader, c Compression) (io.ReadCloser, error) {
	switch c {
	case Gzip:
		return gzip.NewReader(r)
	case Zstd:
		d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(zstdWindow))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	case Bzip2:
		return io.NopCloser(bzip2.NewReader(r)), nil
	case XZ:
		x, err := xz.NewReader(r)
		if err != nil {
			return nil, err
		}
		return io.NopCloser(x), nil
	}
	return io.NopCloser(r), nil
}

// A pipeline reads, hashes and hands on a stream, each step on a goroutine of
// its own, so that decompression, hashing and unpacking share the processors.
type pipeline struct {
	out    chan chunk
	free   chan []byte
	cancel context.CancelFunc
	wg     sync.WaitGroup
	rest   []byte
	last   []byte
	err    error
}

type chunk struct {
	data []byte
	err  error
}

// chunks × chunkSize is what one layer holds in memory between two steps.
const (
	chunks    = 6
	chunkSize = 128 << 10
)

// newPipeline starts reading src. h sees every byte before the reader does.
func newPipeline(ctx context.Context, src io.Reader, h hash.Hash) *pipeline {
	ctx, cancel := context.WithCancel(ctx)
	p := &pipeline{out: make(chan chunk, chunks), free: make(chan []byte, chunks), cancel: cancel}
	for range chunks {
		p.free <- make([]byte, chunkSize)
	}
	read := make(chan chunk, chunks)
	p.wg.Add(2)
	go p.fill(ctx, src, read)
	go p.hash(ctx, h, read)
	return p
}

func (p *pipeline) fill(ctx context.Context, src io.Reader, read chan<- chunk) {
	defer p.wg.Done()
	defer close(read)
	for {
		var buf []byte
		select {
		case buf = <-p.free:
		case <-ctx.Done():
			return
		}
		n, err := io.ReadFull(src, buf[:chunkSize])
		if errors.Is(err, io.ErrUnexpectedEOF) && n < chunkSize {
			err = endOf(src, err)
		}
		select {
		case read <- chunk{buf[:n], err}:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

// endOf tells a stream that ended from one that was cut short: ReadFull uses
// one error for both.
func endOf(src io.Reader, short error) error {
	var one [1]byte
	if n, err := src.Read(one[:]); n == 0 && err != nil {
		return err
	}
	return short
}

func (p *pipeline) hash(ctx context.Context, h hash.Hash, read <-chan chunk) {
	defer p.wg.Done()
	defer close(p.out)
	for c := range read {
		h.Write(c.data)
		select {
		case p.out <- c:
		case <-ctx.Done():
			return
		}
	}
}

// Read implements io.Reader.
func (p *pipeline) Read(b []byte) (int, error) {
	for len(p.rest) == 0 {
		if p.err != nil {
			return 0, p.err
		}
		if p.last != nil {
			p.free <- p.last
			p.last = nil
		}
		c, ok := <-p.out
		if !ok {
			p.err = context.Canceled
			return 0, p.err
		}
		p.rest, p.last, p.err = c.data, c.data, c.err
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// Close ends the steps and waits for them. The source must not block for ever.
func (p *pipeline) Close() {
	p.cancel()
	p.wg.Wait()
}

func digestOf(h hash.Hash) string { return "sha256:" + hex.EncodeToString(h.Sum(nil)) }

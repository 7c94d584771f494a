package image

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kist-containers/kist/image/registry"
	"github.com/kist-containers/kist/internal/ui"
)

// A source gives blobs from an offset on. A source that cannot start there
// starts at 0 and says so.
type source interface {
	Blob(ctx context.Context, d v1.Descriptor, offset int64) (body io.ReadCloser, start int64, err error)
}

// A download is one blob on its way into its partial file. Readers follow the
// file as it grows, so the network never waits for the disk's slow unpacking,
// and what a killed pull had received is neither fetched nor lost.
type download struct {
	f    *os.File
	want v1.Descriptor
	task *ui.Task

	mu   sync.Mutex
	grew *sync.Cond
	have int64
	err  error
	done bool
}

// errRestart makes a download begin again: what it resumed was not the blob.
var errRestart = errors.New("resumed content is not the blob")

// errShort says that a response was whole and yet too short.
var errShort = errors.New("the response ended early")

// openDownload opens the partial file of d. The caller holds d's lock.
func (s *Store) openDownload(d v1.Descriptor, task *ui.Task) (*download, error) {
	f, err := os.OpenFile(s.partialPath(d), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	dl := newDownload(f, d, task)
	st, err := f.Stat()
	if err == nil && st.Size() > d.Size {
		err = f.Truncate(0)
	} else if err == nil {
		dl.have = st.Size()
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return dl, nil
}

func newDownload(f *os.File, d v1.Descriptor, task *ui.Task) *download {
	dl := &download{f: f, want: d, task: task}
	dl.grew = sync.NewCond(&dl.mu)
	return dl
}

func (s *Store) partialPath(d v1.Descriptor) string { return s.imageDir("partial", d.Digest.Hex) }

// run fetches what is missing and verifies the whole. A wrong partial file is
// emptied, and the error is errRestart when another try may succeed.
func (d *download) run(ctx context.Context, src source) error {
	resumed := d.have
	err := d.fetch(ctx, src)
	d.mu.Lock()
	defer d.mu.Unlock()
	if errors.Is(err, ErrCorrupt) {
		d.f.Truncate(0)
		if resumed > 0 {
			err = errRestart
		}
	}
	d.err, d.done = err, true
	d.grew.Broadcast()
	return err
}

// stalls is how often in a row a download may fail without one new byte.
const stalls = 5

func (d *download) fetch(ctx context.Context, src source) error {
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(d.f, 0, d.have)); err != nil {
		return err
	}
	d.task.Phase("Downloading", d.want.Size)
	d.task.Add(d.have)
	for stalled := 0; d.have < d.want.Size; {
		before := d.have
		err := d.receive(ctx, src, h)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil:
			continue
		case errors.Is(err, ErrCorrupt):
			return err
		case errors.Is(err, errShort) && d.have == before:
			return fmt.Errorf("blob %s: %w: the registry has %d of the %d bytes of its descriptor", d.want.Digest, ErrCorrupt, d.have, d.want.Size)
		case d.have > before:
			stalled = 0
			continue
		}
		pause, retry := registry.Retry(err, stalled)
		if stalled++; !retry || stalled >= stalls {
			return fmt.Errorf("blob %s: %w", short(d.want.Digest.String()), err)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
	if got := digest(h); got != d.want.Digest.String() {
		return fmt.Errorf("blob %s: %w: got %s", d.want.Digest, ErrCorrupt, got)
	}
	return nil
}

// receive reads one response, from where the last one ended.
func (d *download) receive(ctx context.Context, src source, h io.Writer) error {
	body, start, err := src.Blob(ctx, d.want, d.have)
	if err != nil {
		return err
	}
	defer body.Close()
	if start > d.have {
		return fmt.Errorf("the registry sent bytes from %d, asked for %d", start, d.have)
	}
	switch _, err := io.CopyN(io.Discard, body, d.have-start); {
	case errors.Is(err, io.EOF):
		return errShort
	case err != nil:
		return err
	}
	buf := make([]byte, 64<<10)
	for {
		n, err := body.Read(buf)
		if d.have+int64(n) > d.want.Size {
			return fmt.Errorf("blob %s: %w: more than the %d bytes of its descriptor", d.want.Digest, ErrCorrupt, d.want.Size)
		}
		if werr := d.append(buf[:n], h); werr != nil {
			return werr
		}
		if errors.Is(err, io.EOF) && d.have < d.want.Size {
			return errShort
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (d *download) append(b []byte, h io.Writer) error {
	if len(b) == 0 {
		return nil
	}
	if _, err := d.f.WriteAt(b, d.have); err != nil {
		return fatal{err}
	}
	h.Write(b)
	d.task.Add(int64(len(b)))
	d.mu.Lock()
	d.have += int64(len(b))
	d.mu.Unlock()
	d.grew.Broadcast()
	return nil
}

// fatal is an error of this machine, which asking the registry again does not mend.
type fatal struct{ error }

func (f fatal) Unwrap() error { return f.error }

// Permanent tells registry.Retry.
func (fatal) Permanent() bool { return true }

// reader follows the file from its start. It ends where the download does.
func (d *download) reader() io.Reader { return &follower{d: d} }

type follower struct {
	d   *download
	off int64
}

func (f *follower) Read(b []byte) (int, error) {
	d := f.d
	d.mu.Lock()
	for f.off >= d.have && !d.done {
		d.grew.Wait()
	}
	left, err := d.have-f.off, d.err
	d.mu.Unlock()
	if left <= 0 {
		if err == nil {
			err = io.EOF
		}
		return 0, err
	}
	n, err := d.f.ReadAt(b[:min(int64(len(b)), left)], f.off)
	f.off += int64(n)
	if n > 0 {
		err = nil
	}
	return n, err
}

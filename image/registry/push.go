package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// HasBlob asks the registry, not its mirrors, whether it has d.
func (r *Repository) HasBlob(ctx context.Context, d v1.Descriptor) (bool, error) {
	e := r.main()
	req, err := e.client.request(ctx, http.MethodHead, e.path, "/blobs/"+d.Digest.String())
	if err != nil {
		return false, err
	}
	resp, err := e.client.do(req, e.scope("pull,push"), http.StatusOK)
	var refused *Error
	if errors.As(err, &refused) && refused.Status == http.StatusNotFound {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	resp.Body.Close()
	return true, nil
}

// An Upload is how a blob went to the registry.
type Upload string

// The ways to upload.
const (
	Mounted  Upload = "Mounted"
	Uploaded Upload = "Pushed"
)

// PutOptions say how a blob is uploaded.
type PutOptions struct {
	// From is a repository of the same registry that may have the blob, or "".
	From string
	// ChunkSize uploads in pieces of so many bytes; 0 in one piece, unless the
	// registry refuses that.
	ChunkSize int64
	// Sent sees the bytes as they go, and negative numbers when they go again.
	Sent func(n int64)
}

// PutBlob uploads d, read from content, which is as long as d.Size says.
func (r *Repository) PutBlob(ctx context.Context, d v1.Descriptor, content io.ReaderAt, o PutOptions) (Upload, error) {
	if o.Sent == nil {
		o.Sent = func(int64) {}
	}
	up := &upload{e: r.main(), ctx: ctx, d: d, content: content, o: o}
	for try := 0; ; try++ {
		if mounted, err := up.begin(o.From); err != nil || mounted {
			return Mounted, err
		}
		err := up.run()
		if err == nil {
			return Uploaded, nil
		}
		// What a broken upload left at the registry is not known: it begins again.
		o.Sent(-up.sent)
		up.sent = 0
		pause, again := Retry(err, try)
		if tooBig(err) && up.o.ChunkSize == 0 && d.Size > minChunk {
			up.o.ChunkSize, pause, again = minChunk, 0, true
		}
		if !again || try+1 >= tries {
			return "", err
		}
		if err := sleep(ctx, pause); err != nil {
			return "", err
		}
	}
}

func tooBig(err error) bool {
	var refused *Error
	return errors.As(err, &refused) && refused.Status == http.StatusRequestEntityTooLarge
}

// Mount makes the blob d of the repository from appear in this one; false when
// the registry does not.
func (r *Repository) Mount(ctx context.Context, d v1.Descriptor, from string) (bool, error) {
	up := &upload{e: r.main(), ctx: ctx, d: d, o: PutOptions{Sent: func(int64) {}}}
	mounted, err := up.begin(from)
	if err == nil && !mounted {
		up.abandon()
	}
	return mounted, err
}

// begin opens an upload, or has the blob mounted from another repository.
func (u *upload) begin(from string) (mounted bool, err error) {
	scope := u.e.scope("pull,push")
	at := url.URL{Scheme: "https", Host: u.e.client.host, Path: "/v2/" + u.e.path + "/blobs/uploads/"}
	if from != "" {
		scope += " repository:" + from + ":pull"
		at.RawQuery = url.Values{"mount": {u.d.Digest.String()}, "from": {from}}.Encode()
	}
	req, err := u.e.client.requestURL(u.ctx, http.MethodPost, &at)
	if err != nil {
		return false, err
	}
	req.ContentLength = 0
	resp, err := u.e.client.do(req, scope, http.StatusAccepted, http.StatusCreated)
	if err != nil {
		return false, err
	}
	resp.Body.Close()
	if resp.StatusCode == http.StatusCreated {
		return true, nil
	}
	if u.location, err = resolveLocation(resp); err != nil {
		return false, err
	}
	return false, u.e.checkLocation(u.location)
}

// abandon tells the registry that nothing will come. If it does not hear, it
// drops the upload by itself some day.
func (u *upload) abandon() {
	req, err := u.e.client.requestURL(u.ctx, http.MethodDelete, u.location)
	if err != nil {
		return
	}
	if resp, err := u.e.client.once(req.WithContext(withScope(u.ctx, u.e.scope("pull,push"))), []int{http.StatusNoContent}); err == nil {
		resp.Body.Close()
	}
}

// checkLocation refuses to send a layer somewhere else than by http(s).
func (e *endpoint) checkLocation(u *url.URL) error {
	if u.Scheme != "https" && !(u.Scheme == "http" && (e.client.insecure || isLoopback(u.Hostname()))) {
		return Fatal(fmt.Errorf("registry sends the upload to %s://%s", u.Scheme, u.Host))
	}
	return nil
}

type upload struct {
	e        *endpoint
	ctx      context.Context
	d        v1.Descriptor
	content  io.ReaderAt
	o        PutOptions
	location *url.URL
	sent     int64
}

func (u *upload) run() error {
	if u.o.ChunkSize > 0 && u.d.Size > u.o.ChunkSize {
		return u.chunked()
	}
	return u.put(io.NewSectionReader(u.content, 0, u.d.Size), u.d.Size)
}

// minChunk is what a registry behind a proxy with small limits gets.
const minChunk = 5 << 20

// put sends the rest of the blob and closes the upload.
func (u *upload) put(rest *io.SectionReader, size int64) error {
	q := u.location.Query()
	q.Set("digest", u.d.Digest.String())
	at := *u.location
	at.RawQuery = q.Encode()
	resp, err := u.send(http.MethodPut, &at, rest, size, nil, http.StatusCreated)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if got := resp.Header.Get("Docker-Content-Digest"); got != "" && got != u.d.Digest.String() {
		return fmt.Errorf("registry stored %s instead of %s", cut(got), u.d.Digest)
	}
	return nil
}

// chunked sends the blob piece by piece. Every answer names the next place.
func (u *upload) chunked() error {
	for off := int64(0); off < u.d.Size; {
		n := min(u.o.ChunkSize, u.d.Size-off)
		h := http.Header{"Content-Range": {fmt.Sprintf("%d-%d", off, off+n-1)}}
		resp, err := u.send(http.MethodPatch, u.location, io.NewSectionReader(u.content, off, n), n, h, http.StatusAccepted)
		if err != nil {
			return err
		}
		resp.Body.Close()
		if u.location, err = resolveLocation(resp); err != nil {
			return err
		}
		if err := u.e.checkLocation(u.location); err != nil {
			return err
		}
		off += n
	}
	return u.put(io.NewSectionReader(u.content, 0, 0), 0)
}

// send sends one body, once: only the authorizer repeats it.
func (u *upload) send(method string, at *url.URL, body *io.SectionReader, size int64, h http.Header, ok int) (*http.Response, error) {
	ctx := withScope(u.ctx, u.e.scope("pull,push"))
	req, err := u.e.client.requestURL(ctx, method, at)
	if err != nil {
		return nil, err
	}
	req.ContentLength = size
	req.GetBody = func() (io.ReadCloser, error) {
		if _, err := body.Seek(0, io.SeekStart); err != nil {
			return nil, err
		}
		return io.NopCloser(&counting{body, u}), nil
	}
	if req.Body, err = req.GetBody(); err != nil {
		return nil, err
	}
	if size == 0 {
		req.Body, req.GetBody = http.NoBody, nil
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	for k, v := range h {
		req.Header[k] = v
	}
	resp, err := u.e.client.once(req, []int{ok})
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return resp, err
}

type counting struct {
	r io.Reader
	u *upload
}

func (c *counting) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.u.sent += int64(n)
	c.u.o.Sent(int64(n))
	return n, err
}

package image

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"runtime"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/image/layer"
	"github.com/kist-containers/kist/internal/state"
	"github.com/kist-containers/kist/internal/ui"
)

// A layerRecord is <root>/layer/<hex>.json: what is known about a layer.
type layerRecord struct {
	Version int    `json:"version"`
	ChainID string `json:"chainID"`
	DiffID  string `json:"diffID"`
	Parent  string `json:"parent,omitempty"`
	// Size counts the files' bytes, Disk the blocks that they and the directories take.
	Size  int64     `json:"size"`
	Disk  int64     `json:"disk"`
	Files int       `json:"files"`
	Made  time.Time `json:"made"`
	// Blob is the archive that the layer was unpacked from.
	Blob v1.Descriptor `json:"blob"`
}

func (s *Store) layerRecord(chainID string) (layerRecord, error) {
	var r layerRecord
	err := state.ReadJSON(s.layerPath(chainID)+recordSuffix, &r)
	return r, err
}

// A layerFetch brings the layers of one image into the store, several at a
// time: each is downloaded, decompressed, hashed and unpacked in one go.
type layerFetch struct {
	s        *Store
	src      source
	progress *ui.Progress
	// network and disk bound how many layers are in each phase.
	network, disk chan struct{}
}

// parallelDownloads is podman's number; docker's is 3.
const parallelDownloads = 6

func (s *Store) newFetch(src source, p *ui.Progress) *layerFetch {
	return &layerFetch{
		s: s, src: src, progress: p,
		network: make(chan struct{}, parallelDownloads),
		disk:    make(chan struct{}, max(2, min(4, runtime.NumCPU()))),
	}
}

// all fetches descs, which pair with diffIDs. It returns the layers, base first.
func (f *layerFetch) all(ctx context.Context, descs []v1.Descriptor, diffIDs []v1.Hash) ([]Layer, error) {
	layers := f.s.layers(diffIDs)
	g, ctx := errgroup.WithContext(ctx)
	published := make([]chan struct{}, len(layers)+1)
	for i := range published {
		published[i] = make(chan struct{})
	}
	close(published[0])
	for i := range layers {
		task := f.progress.Task(short(descs[i].Digest.String()), descs[i].Size)
		g.Go(func() error {
			err := f.one(ctx, descs[i], layers[:i+1], published[i], task)
			if err != nil {
				return err
			}
			close(published[i+1])
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return layers, f.s.syncNames()
}

// one brings the top of stack into the store. The lock of a layer is held until
// it is there, so that two commands download it once; locks are taken from the
// base up in every process, so nobody waits in a circle.
func (f *layerFetch) one(ctx context.Context, d v1.Descriptor, stack []Layer, below <-chan struct{}, task *ui.Task) error {
	top := stack[len(stack)-1]
	lock, err := state.AcquireLock(ctx, f.s.roots.Lock("layer-"+hexOf(top.ChainID)))
	if err != nil {
		return err
	}
	defer lock.Unlock()
	if exists(top.Dir) && f.s.hasBlob(d) {
		task.Done("Already exists")
		return wait(ctx, below)
	}
	tmp, res, err := f.blobAndTree(ctx, d, stack, task)
	if err != nil {
		return err
	}
	if err = wait(ctx, below); err == nil {
		err = f.s.publish(tmp, stack, res)
	}
	if err != nil {
		discard(tmp)
		return err
	}
	task.Done("Pull complete")
	return nil
}

// blobAndTree stores the blob d and unpacks it into a temporary directory.
func (f *layerFetch) blobAndTree(ctx context.Context, d v1.Descriptor, stack []Layer, task *ui.Task) (string, layer.Result, error) {
	top := stack[len(stack)-1]
	lock, err := state.AcquireLock(ctx, f.s.roots.Lock("blob-"+d.Digest.Hex))
	if err != nil {
		return "", layer.Result{}, err
	}
	defer lock.Unlock()
	tmp, res, err := f.fetchAndUnpack(ctx, d, top, task)
	if errors.Is(err, errRestart) {
		tmp, res, err = f.fetchAndUnpack(ctx, d, top, task)
	}
	if err != nil {
		return "", res, err
	}
	task.Phase("Syncing", 0)
	if err = f.s.stage(tmp, stack, d, res); err == nil && !f.s.hasBlob(d) {
		err = os.Rename(f.s.partialPath(d), f.s.blobPath(d.Digest))
	}
	if err != nil {
		discard(tmp)
	}
	return tmp, res, err
}

func (f *layerFetch) fetchAndUnpack(ctx context.Context, d v1.Descriptor, top Layer, task *ui.Task) (string, layer.Result, error) {
	blob, finish, err := f.open(ctx, d, task)
	if err != nil {
		return "", layer.Result{}, err
	}
	tmp, res, err := f.unpack(ctx, blob, d)
	// The download's own error comes first: the archive is broken because of it.
	if ferr := finish(); ferr != nil {
		err = ferr
	}
	if err == nil && res.DiffID != top.DiffID {
		err = fmt.Errorf("layer %s: %w: its archive is %s, the image says %s", short(d.Digest.String()), ErrCorrupt, res.DiffID, top.DiffID)
	}
	if err != nil {
		discard(tmp)
		return "", res, err
	}
	return tmp, res, nil
}

// open returns the bytes of the blob, from the store or while they come in.
// finish waits for the end of the download.
func (f *layerFetch) open(ctx context.Context, d v1.Descriptor, task *ui.Task) (io.Reader, func() error, error) {
	if f.s.hasBlob(d) {
		file, err := os.Open(f.s.blobPath(d.Digest))
		return file, func() error { return file.Close() }, err
	}
	dl, err := f.s.openDownload(d, task)
	if err != nil {
		return nil, nil, err
	}
	if err := take(ctx, f.network); err != nil {
		dl.f.Close()
		return nil, nil, err
	}
	result := make(chan error, 1)
	go func() {
		err := dl.run(ctx, f.src)
		<-f.network
		result <- err
	}()
	// A blob that cannot be unpacked still comes in whole: its digest says who is
	// to blame.
	return dl.reader(), func() error {
		defer dl.f.Close()
		return <-result
	}, nil
}

// unpack unpacks blob into a new temporary directory.
func (f *layerFetch) unpack(ctx context.Context, blob io.Reader, d v1.Descriptor) (string, layer.Result, error) {
	if err := take(ctx, f.disk); err != nil {
		return "", layer.Result{}, err
	}
	defer func() { <-f.disk }()
	tmp, err := f.s.tempLayer()
	if err != nil {
		return "", layer.Result{}, err
	}
	res, err := layer.Apply(ctx, tmp, blob, layer.Options{Rootless: f.s.o.Rootless})
	if err != nil {
		err = fmt.Errorf("layer %s: %w", short(d.Digest.String()), err)
	}
	return tmp, res, err
}

func (s *Store) tempLayer() (string, error) {
	tmp := s.layerDir(".tmp-" + rand.Text())
	return tmp, os.Mkdir(tmp, 0o755)
}

// stage writes the record of the layer in tmp beside it, and makes both durable.
func (s *Store) stage(tmp string, stack []Layer, blob v1.Descriptor, res layer.Result) error {
	top := stack[len(stack)-1]
	rec := layerRecord{
		Version: 1, ChainID: top.ChainID, DiffID: top.DiffID,
		Size: res.Size, Disk: res.Disk, Files: res.Files, Made: time.Now().UTC(),
		Blob: v1.Descriptor{MediaType: blob.MediaType, Digest: blob.Digest, Size: blob.Size},
	}
	if n := len(stack); n > 1 {
		rec.Parent = stack[n-2].ChainID
	}
	data, err := json.MarshalIndent(rec, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(tmp+recordSuffix, data, 0o600); err != nil {
		return err
	}
	return s.sync()
}

const recordSuffix = ".json"

// publish gives a staged layer its name. What changes here is metadata, which
// the file system's journal keeps in order before the rename.
func (s *Store) publish(tmp string, stack []Layer, res layer.Result) error {
	top := stack[len(stack)-1]
	if exists(top.Dir) {
		return discard(tmp)
	}
	img := Image{Layers: stack[:len(stack)-1]}
	if err := layer.Adopt(tmp, res, img.LowerDirs(), s.o.Rootless); err != nil {
		return err
	}
	if err := os.Rename(tmp+recordSuffix, top.Dir+recordSuffix); err != nil {
		return err
	}
	err := os.Rename(tmp, top.Dir)
	if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOTEMPTY) {
		return discard(tmp)
	}
	return err
}

func discard(tmp string) error {
	if tmp == "" {
		return nil
	}
	os.Remove(tmp + recordSuffix)
	return state.Remove(tmp)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func wait(ctx context.Context, done <-chan struct{}) error {
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func take(ctx context.Context, slots chan struct{}) error {
	select {
	case slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func digest(h hash.Hash) string { return "sha256:" + hex.EncodeToString(h.Sum(nil)) }

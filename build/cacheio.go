package build

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kist-containers/kist/image"
	"github.com/kist-containers/kist/internal/state"
)

// A CacheLocation is one --cache-from or --cache-to: a local directory, or a
// registry reference.
type CacheLocation struct {
	Type string // "local" or "registry", "inline" in the image itself
	// Where is the directory or the reference.
	Where string
}

// A cacheManifest is cache.json of an exported cache: the records of a build's
// steps. Beside it lie their archives, blobs/sha256/<hex>.
type cacheManifest struct {
	Version int       `json:"version"`
	Records []*Record `json:"records"`
}

// A cacheImport is an exported cache that a build reads.
type cacheImport struct {
	records map[string]*Record
	blob    func(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error)
}

// parseCache reads type=local,src=DIR | type=registry,ref=REF | REF.
func parseCache(flag, s string) (CacheLocation, error) {
	if !strings.Contains(s, "=") {
		return CacheLocation{Type: "registry", Where: s}, nil
	}
	var l CacheLocation
	for kv := range strings.SplitSeq(s, ",") {
		k, v, _ := strings.Cut(kv, "=")
		switch k {
		case "type":
			l.Type = v
		case "src", "dest", "ref":
			l.Where = v
		case "mode", "compression", "oci-mediatypes", "image-manifest", "ignore-error", "tag":
			// kist's cache always holds all steps, in OCI types.
		default:
			return l, fmt.Errorf("%s %s: no such key %q", flag, s, k)
		}
	}
	if l.Type == "inline" && flag == "--cache-to" {
		return l, nil
	}
	if l.Type != "local" && l.Type != "registry" {
		return l, fmt.Errorf("%s %s: type is local, registry, or inline for --cache-to", flag, s)
	}
	if l.Where == "" {
		return l, fmt.Errorf("%s %s: wants %s", flag, s, map[string]string{"local": "src=DIR or dest=DIR", "registry": "ref=REF"}[l.Type])
	}
	return l, nil
}

// openImports reads --cache-from. A cache that is not there yet is no error: the
// first build of a job has none.
func (b *Builder) openImports(ctx context.Context, from []CacheLocation, show *display) ([]*cacheImport, error) {
	var all []*cacheImport
	for _, l := range from {
		var in *cacheImport
		var err error
		if l.Type == "local" {
			in, err = openLocalCache(l.Where)
		} else {
			in, err = b.openRegistryCache(ctx, l.Where)
		}
		if err != nil {
			show.warn("--cache-from %s: %v", l.Where, err)
			continue
		}
		all = append(all, in)
	}
	return all, nil
}

// maxCacheManifest bounds a foreign cache.json.
const maxCacheManifest = 64 << 20

func openLocalCache(dir string) (*cacheImport, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	f, err := root.Open("cache.json")
	if err != nil {
		root.Close()
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxCacheManifest))
	if err != nil {
		return nil, err
	}
	records, err := parseCacheManifest(data)
	if err != nil {
		return nil, err
	}
	in := &cacheImport{records: records}
	in.blob = func(_ context.Context, d v1.Descriptor) (io.ReadCloser, error) {
		return root.Open(filepath.Join("blobs", d.Digest.Algorithm, d.Digest.Hex))
	}
	return in, nil
}

// parseCacheManifest reads a list of steps by their keys.
func parseCacheManifest(data []byte) (map[string]*Record, error) {
	var m cacheManifest
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, fmt.Errorf("list of steps: %w", err)
	}
	if m.Version != 1 {
		return nil, fmt.Errorf("list of steps: version %d is not one that this kist reads", m.Version)
	}
	records := map[string]*Record{}
	key := regexp.MustCompile(`^[0-9a-f]{64}$`)
	for _, rec := range m.Records {
		if rec != nil && key.MatchString(rec.Key) {
			records[rec.Key] = rec
		}
	}
	return records, nil
}

// imported takes a step from --cache-from into the cache.
func (r *stageRun) imported(ctx context.Context, key string) (*Record, bool) {
	for _, in := range r.job.imports {
		rec, ok := in.records[key]
		if !ok || rec.Alias != "" {
			continue
		}
		mine := &Record{Key: key, Text: rec.Text, Parent: r.chain(), Created: rec.Created}
		if rec.ChainID != "" {
			if err := r.fetchLayer(ctx, in, rec, mine); err != nil {
				r.job.show.warn("--cache-from: step %q: %v", rec.Text, err)
				continue
			}
		}
		if r.job.b.save(mine) == nil {
			return mine, true
		}
	}
	return nil, false
}

// fetchLayer unpacks the archive of a foreign record, verified.
func (r *stageRun) fetchLayer(ctx context.Context, in *cacheImport, rec, mine *Record) error {
	blob, err := in.blob(ctx, rec.Blob)
	if err != nil {
		return err
	}
	defer blob.Close()
	l, desc, err := r.job.b.store.AddLayer(ctx, r.chain(), blob, image.LayerOptions{DiffID: rec.DiffID, Uncompressed: true})
	if err != nil {
		return err
	}
	mine.ChainID, mine.DiffID, mine.Blob = l.ChainID, l.DiffID, desc
	mine.Size = r.job.b.layerSize(l.ChainID) + desc.Size
	return nil
}

// exportCache writes the steps of the build to each --cache-to.
func (b *Builder) exportCache(ctx context.Context, to []CacheLocation, jobs []*job) error {
	if len(to) == 0 {
		return nil
	}
	m := cacheManifest{Version: 1}
	seen := map[string]bool{}
	for _, j := range jobs {
		for _, rec := range j.used {
			if !seen[rec.Key] {
				seen[rec.Key] = true
				m.Records = append(m.Records, rec)
			}
		}
	}
	for _, l := range to {
		var err error
		switch l.Type {
		case "local":
			err = b.writeLocalCache(l.Where, m)
		case "registry":
			err = b.pushCache(ctx, l.Where, m)
		}
		if err != nil {
			return fmt.Errorf("--cache-to %s: %w", l.Where, err)
		}
	}
	return nil
}

func (b *Builder) writeLocalCache(dir string, m cacheManifest) error {
	blobs := filepath.Join(dir, "blobs", "sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return err
	}
	for _, rec := range m.Records {
		if rec.ChainID == "" {
			continue
		}
		if err := copyBlob(b.blobPath(rec.Blob.Digest), filepath.Join(blobs, rec.Blob.Digest.Hex)); err != nil {
			return err
		}
	}
	return state.WriteJSON(filepath.Join(dir, "cache.json"), m)
}

// copyBlob copies a file that has its digest for a name.
func copyBlob(from, to string) error {
	if _, err := os.Stat(to); err == nil {
		return nil
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	return state.WriteFileFrom(to, 0o644, func(w io.Writer) error {
		_, err := io.Copy(w, in)
		return err
	})
}

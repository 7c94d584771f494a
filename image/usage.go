package image

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

// Usage is what the store takes on disk.
type Usage struct {
	// Disk is the bytes of the blocks of blobs, partial downloads and layers.
	Disk int64
	// Blobs and Layers are its parts. Layers leaves out what is renamed away and
	// about to be removed.
	Blobs, Layers int64
	Images        int
	// PerImage is by ID.
	PerImage map[string]ImageUsage
	// Unowned are the layers, with their archives, that no image has: the build
	// cache's, by chain ID.
	Unowned map[string]int64
}

// ImageUsage is one image's part: its layers, and their archives and documents.
// Shared is what other images have too.
type ImageUsage struct{ Size, Shared, Unique int64 }

// Usage adds up the blobs' blocks and the layers' records.
func (s *Store) Usage() (Usage, error) {
	u := Usage{PerImage: map[string]ImageUsage{}, Unowned: map[string]int64{}}
	for _, dir := range []string{s.imageDir("blobs", "sha256"), s.imageDir("blobs"), s.imageDir("partial"), s.imageDir()} {
		u.Blobs += blocksIn(dir)
	}
	disk, err := s.layerSizes()
	if err != nil {
		return u, err
	}
	for _, n := range disk {
		u.Layers += n
	}
	u.Layers += blocksIn(s.layerDir())
	u.Disk = u.Blobs + u.Layers
	return u, s.shares(&u, disk)
}

// shares tells whose the bytes are.
func (s *Store) shares(u *Usage, disk map[string]int64) error {
	entries, err := s.readIndex()
	if err != nil {
		return err
	}
	parts := map[string]map[string]int64{} // of each image, by path
	users := map[string]int{}
	for _, e := range entries {
		if parts[e.id()] != nil || e.id() == "" {
			continue
		}
		if img, err := s.open(e, nil); err == nil {
			parts[e.id()] = s.partsOf(img, disk)
		}
		for path := range parts[e.id()] {
			users[path]++
		}
	}
	u.Images = len(parts)
	for id, list := range parts {
		var iu ImageUsage
		for path, n := range list {
			iu.Size += n
			if users[path] > 1 {
				iu.Shared += n
			} else {
				iu.Unique += n
			}
		}
		u.PerImage[id] = iu
	}
	for hex, n := range disk {
		if users[s.layerDir(hex)] > 0 {
			continue
		}
		if rec, err := s.layerRecord("sha256:" + hex); err == nil && users[s.blobPath(rec.Blob.Digest)] == 0 {
			n += ownBlocks(s.blobPath(rec.Blob.Digest))
		}
		u.Unowned["sha256:"+hex] = n
	}
	return nil
}

// partsOf are the blocks of what an image consists of, by path.
func (s *Store) partsOf(img *Image, disk map[string]int64) map[string]int64 {
	parts := map[string]int64{}
	for _, l := range img.Layers {
		parts[l.Dir] = disk[hexOf(l.ChainID)]
	}
	blobs := []v1.Descriptor{img.Manifest}
	if m, err := s.readManifest(img.Manifest); err == nil {
		blobs = append(append(blobs, m.Config), m.Layers...)
	}
	for _, b := range blobs {
		parts[s.blobPath(b.Digest)] = ownBlocks(s.blobPath(b.Digest))
	}
	return parts
}

// layerSizes returns the blocks of each layer by the hex of its chain ID. A
// layer without a record is measured.
func (s *Store) layerSizes() (map[string]int64, error) {
	sizes := map[string]int64{}
	entries, err := os.ReadDir(s.layerDir())
	if err != nil {
		return sizes, ignoreMissing(err)
	}
	for _, e := range entries {
		if !e.IsDir() || isTrash(e.Name()) {
			continue
		}
		if rec, err := s.layerRecord("sha256:" + e.Name()); err == nil && isHex(e.Name()) {
			sizes[e.Name()] = rec.Disk + ownBlocks(s.layerDir(e.Name()))
			continue
		}
		sizes[e.Name()] = treeBlocks(s.layerDir(e.Name()))
	}
	return sizes, nil
}

// blocksIn counts a directory and the files in it, not what is below.
func blocksIn(dir string) int64 {
	sum := ownBlocks(dir)
	for _, name := range readNames(dir) {
		var st unix.Stat_t
		if unix.Lstat(filepath.Join(dir, name), &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
			sum += st.Blocks * 512
		}
	}
	return sum
}

func ownBlocks(path string) int64 {
	var st unix.Stat_t
	if unix.Lstat(path, &st) != nil {
		return 0
	}
	return st.Blocks * 512
}

// treeBlocks counts each file once, as du does.
func treeBlocks(dir string) int64 {
	var sum int64
	seen := map[uint64]bool{}
	filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err != nil || errors.Is(unix.Lstat(p, &st), unix.ENOENT) || st.Nlink > 1 && !d.IsDir() && seen[st.Ino] {
			return nil
		}
		seen[st.Ino] = true
		sum += st.Blocks * 512
		return nil
	})
	return sum
}

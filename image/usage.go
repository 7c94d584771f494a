package image

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

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
}

// ImageUsage is one image's part. Shared is what other images have too.
type ImageUsage struct{ Size, Shared, Unique int64 }

// Usage adds up the blobs' blocks and the layers' records.
func (s *Store) Usage() (Usage, error) {
	u := Usage{PerImage: map[string]ImageUsage{}}
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
	return u, s.perImage(&u, disk)
}

func (s *Store) perImage(u *Usage, disk map[string]int64) error {
	entries, err := s.readIndex()
	if err != nil {
		return err
	}
	users := map[string]int{}
	layersOf := map[string][]string{}
	for _, e := range entries {
		if _, done := layersOf[e.id()]; done || e.id() == "" {
			continue
		}
		img, err := s.open(e, nil)
		if err != nil {
			continue
		}
		layersOf[e.id()] = img.ChainIDs()
		for _, c := range img.ChainIDs() {
			users[c]++
		}
	}
	u.Images = len(layersOf)
	for id, chains := range layersOf {
		var iu ImageUsage
		for _, c := range chains {
			n := disk[hexOf(c)]
			iu.Size += n
			if users[c] > 1 {
				iu.Shared += n
			} else {
				iu.Unique += n
			}
		}
		u.PerImage[id] = iu
	}
	return nil
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

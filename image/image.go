package image

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// An Image is one image of the store, for one platform.
type Image struct {
	// ID is the digest of the configuration, "sha256:…".
	ID string
	// Names are its tags as docker shows them: "busybox:latest".
	Names []string
	// Pulled is the full name it was pulled by, which registries.conf may have
	// made of a short one; "" for an image that was not just pulled.
	Pulled string
	// RepoDigests are NAME@DIGEST for each registry it came from or went to.
	RepoDigests []string
	// Digest is the manifest's.
	Digest string
	// Manifest describes the manifest's blob.
	Manifest v1.Descriptor
	Config   *v1.ConfigFile
	// RawConfig is the configuration as it came, with what Config has no field for.
	RawConfig []byte
	// Layers are base first.
	Layers []Layer
	// Size is the sum of the sizes of the files of all layers, in bytes.
	Size int64
	// Created is zero when the image does not say.
	Created time.Time
}

// A Layer is an unpacked layer.
type Layer struct {
	// DiffID is the digest of its archive, ChainID that of the stack it tops.
	DiffID, ChainID string
	// Dir is absolute and ready to be a lower directory of overlay.
	Dir string
}

// LowerDirs returns the layers' directories top first, as overlay wants them.
func (i *Image) LowerDirs() []string {
	var dirs []string
	for _, l := range slices.Backward(i.Layers) {
		dirs = append(dirs, l.Dir)
	}
	return dirs
}

// ChainIDs returns the layers' chain IDs, base first.
func (i *Image) ChainIDs() []string {
	var ids []string
	for _, l := range i.Layers {
		ids = append(ids, l.ChainID)
	}
	return ids
}

// layers are the directories for a stack of diffIDs.
func (s *Store) layers(diffIDs []v1.Hash) []Layer {
	var layers []Layer
	parent := ""
	for _, d := range diffIDs {
		parent = chainID(parent, d.String())
		layers = append(layers, Layer{DiffID: d.String(), ChainID: parent, Dir: s.layerPath(parent)})
	}
	return layers
}

// chainID identifies diffID on top of parent, which is "" for a base layer. See
// the OCI image specification, config.md, "Layer ChainID".
func chainID(parent, diffID string) string {
	if parent == "" {
		return diffID
	}
	return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(parent+" "+diffID)))
}

// Resolve finds an image by name[:tag][@digest], by ID or by a unique prefix of
// its ID. A name wins over a prefix. The name of a list of images means the one
// for this machine. Errors wrap ErrNotFound, ErrAmbiguous or ErrInvalid.
func (s *Store) Resolve(name string) (*Image, error) { return s.ResolvePlatform(name, "") }

// ResolvePlatform is Resolve for the image of another platform: of a list that
// one, of an image no other than what it is for. "" is as for Resolve.
func (s *Store) ResolvePlatform(name, platform string) (*Image, error) {
	entries, err := s.readIndex()
	if err != nil {
		return nil, err
	}
	e, err := find(entries, name)
	if err != nil {
		return nil, err
	}
	if e, err = s.forPlatform(e, platform); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return s.open(e, entries)
}

// forPlatform returns e, or the image of a list e, for platform.
func (s *Store) forPlatform(e entry, platform string) (entry, error) {
	want, err := ParsePlatform(platform)
	if err != nil {
		return entry{}, err
	}
	if !e.MediaType.IsIndex() {
		if platform != "" && e.Platform != nil && e.Platform.OS != "" && !matchesPlatform(*e.Platform, want) {
			return entry{}, fmt.Errorf("%w for %s, only for %s", ErrNotFound, want, e.Platform)
		}
		return e, nil
	}
	f, err := follow(context.Background(), storeSource{s}, e.Digest.String(), want)
	if errors.Is(err, fs.ErrNotExist) {
		return entry{}, fmt.Errorf("%w for %s: its list is here, but not that image of it", ErrNotFound, want)
	}
	if err != nil {
		return entry{}, err
	}
	child := s.described(entry{f.d})
	if child.id() == "" {
		return entry{}, errors.New("not a container image but an artifact")
	}
	return child, nil
}

// open reads the image of entry e.
func (s *Store) open(e entry, entries []entry) (*Image, error) {
	id, err := v1.NewHash(e.id())
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", e.name(), err)
	}
	cfg, raw, err := s.readConfig(v1.Descriptor{Digest: id})
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", short(e.id()), err)
	}
	img := &Image{
		ID: e.id(), Digest: e.Digest.String(), Manifest: e.Descriptor, Config: cfg, RawConfig: raw,
		Layers: s.layers(cfg.RootFS.DiffIDs), Size: e.size(), Created: e.created(),
	}
	for _, other := range entries {
		if other.id() != e.id() {
			continue
		}
		if r := other.ref(); r.Tag != "" {
			img.Names = append(img.Names, Reference{Host: r.Host, Path: r.Path, Tag: r.Tag}.Familiar())
		}
		if r, err := ParseReference(other.repoDigest()); err == nil && !slices.Contains(img.RepoDigests, r.Familiar()) {
			img.RepoDigests = append(img.RepoDigests, r.Familiar())
		}
	}
	return img, nil
}

// unpacked reports whether all layers of img are directories.
func (i *Image) unpacked() bool {
	for _, l := range i.Layers {
		if _, err := os.Stat(l.Dir); err != nil {
			return false
		}
	}
	return true
}

// find returns the entry that name means.
func find(entries []entry, name string) (entry, error) {
	ref, refErr := ParseReference(name)
	if refErr == nil {
		if e, ok := findRef(entries, ref); ok {
			return e, nil
		}
	}
	prefix, isDigest := strings.CutPrefix(name, "sha256:")
	if prefix != "" && isHex(prefix) {
		return findID(entries, name, prefix, isDigest)
	}
	if refErr != nil {
		return entry{}, refErr
	}
	return entry{}, fmt.Errorf("%s: %w", ref.Tagged().Familiar(), ErrNotFound)
}

func findRef(entries []entry, ref Reference) (entry, bool) {
	for _, e := range entries {
		if ref.Digest == "" {
			if e.name() == ref.Tagged().String() {
				return e, true
			}
			continue
		}
		sameRepo := e.repoDigest() == ref.Name()+"@"+ref.Digest ||
			e.Digest.String() == ref.Digest && e.ref().Name() == ref.Name()
		if sameRepo && (ref.Tag == "" || e.ref().Tag == ref.Tag || e.ref().Tag == "") {
			return e, true
		}
	}
	return entry{}, false
}

func findID(entries []entry, name, prefix string, isDigest bool) (entry, error) {
	var found entry
	for _, e := range entries {
		matches := strings.HasPrefix(e.id(), "sha256:"+prefix) || isDigest && e.Digest.Hex == prefix
		if !matches {
			continue
		}
		if found.id() != "" && found.id() != e.id() {
			return entry{}, fmt.Errorf("%s: %w has an ID that starts so", name, ErrAmbiguous)
		}
		found = e
	}
	if found.id() == "" {
		return entry{}, fmt.Errorf("%s: %w", name, ErrNotFound)
	}
	return found, nil
}

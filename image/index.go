package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kist-containers/kist/internal/state"
)

// Annotations of the entries of index.json. All but the name are facts about
// immutable content, kept there so that listing reads one file.
const (
	noteName    = "org.opencontainers.image.ref.name"
	noteID      = "dev.kist.id"
	noteDigest  = "dev.kist.digest"
	noteSize    = "dev.kist.size"
	noteCreated = "dev.kist.created"
)

// An entry is one line of index.json: a name of an image, or an image without one.
type entry struct{ v1.Descriptor }

func (e entry) name() string { return e.Annotations[noteName] }

// ref parses the entry's name; the zero Reference when it has none.
func (e entry) ref() Reference {
	r, err := ParseReference(e.name())
	if err != nil {
		return Reference{}
	}
	return r
}

// id is the image's ID; "" for an index of several platforms.
func (e entry) id() string { return e.Annotations[noteID] }

func (e entry) size() int64 {
	n, _ := strconv.ParseInt(e.Annotations[noteSize], 10, 64)
	return n
}

func (e entry) created() time.Time {
	t, _ := time.Parse(time.RFC3339Nano, e.Annotations[noteCreated])
	return t
}

// repoDigest is NAME@DIGEST as the registry calls it, "" when it came from none.
func (e entry) repoDigest() string { return e.Annotations[noteDigest] }

// readIndex returns the entries of index.json; none when there is no store yet.
func (s *Store) readIndex() ([]entry, error) {
	var im v1.IndexManifest
	err := state.ReadJSON(s.imageDir("index.json"), &im)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	// What is not in it is removed as left over: an empty object must not count.
	if err == nil && im.SchemaVersion != 2 {
		return nil, fmt.Errorf("read %s: not an OCI image index (schemaVersion %d)", s.imageDir("index.json"), im.SchemaVersion)
	}
	entries := make([]entry, len(im.Manifests))
	for i, d := range im.Manifests {
		entries[i] = s.described(entry{d})
	}
	return entries, nil
}

// described adds the facts to an entry that another program wrote.
func (s *Store) described(e entry) entry {
	if e.id() != "" || e.MediaType.IsIndex() {
		return e
	}
	m, err := s.readManifest(e.Descriptor)
	if err != nil {
		return e
	}
	cfg, _, err := s.readConfig(m.Config)
	if err != nil {
		return e
	}
	return noted(e.Descriptor, e.name(), "", m.Config.Digest, cfg, s.sizeOf(cfg))
}

// noted returns the entry for an image.
func noted(d v1.Descriptor, name, repoDigest string, id v1.Hash, cfg *v1.ConfigFile, size int64) entry {
	notes := map[string]string{noteID: id.String(), noteSize: strconv.FormatInt(size, 10)}
	if !cfg.Created.IsZero() {
		notes[noteCreated] = cfg.Created.UTC().Format(time.RFC3339Nano)
	}
	if name != "" {
		notes[noteName] = name
	}
	if repoDigest != "" {
		notes[noteDigest] = repoDigest
	}
	platform := cfg.Platform()
	return entry{v1.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, Platform: platform, Annotations: notes}}
}

// update changes index.json under its lock. change returns the new entries.
func (s *Store) update(ctx context.Context, change func([]entry) ([]entry, error)) error {
	if err := s.prepare(); err != nil {
		return err
	}
	lock, err := state.AcquireLock(ctx, s.imageDir("index.lock"))
	if err != nil {
		return err
	}
	defer lock.Unlock()
	before, err := s.readIndex()
	if err != nil {
		return err
	}
	after, err := change(slices.Clone(before))
	if err != nil {
		return err
	}
	im := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{}}
	for _, e := range after {
		im.Manifests = append(im.Manifests, e.Descriptor)
	}
	if err := state.WriteJSON(s.imageDir("index.json"), im); err != nil {
		return fmt.Errorf("record images: %w", err)
	}
	return nil
}

// put makes e the image that its name means. An image that so loses its last
// name stays, without one, as docker's <none> images do.
func put(entries []entry, e entry) []entry {
	var lost *entry
	out := entries[:0]
	for _, old := range entries {
		switch {
		case e.name() != "" && old.name() == e.name():
			if old.Digest != e.Digest {
				lost = &old
			}
		case old.Digest == e.Digest && old.name() == "":
			// It has a name now.
		default:
			out = append(out, old)
		}
	}
	named := func(o entry) bool { return o.Digest == e.Digest }
	if e.name() != "" || !slices.ContainsFunc(out, named) {
		out = append(out, e)
	}
	if lost != nil && !slices.ContainsFunc(out, func(o entry) bool { return o.id() == lost.id() }) {
		out = append(out, unnamed(*lost))
	}
	return out
}

// unnamed is e without its name.
func unnamed(e entry) entry {
	notes := map[string]string{}
	for k, v := range e.Annotations {
		if k != noteName {
			notes[k] = v
		}
	}
	e.Annotations = notes
	return e
}

package image

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/kist-containers/kist/internal/ui"
)

// RemoveOptions are docker's.
type RemoveOptions struct {
	// Force removes all names of an ID, and names that stopped containers use.
	Force bool
}

// Removed is what a removal did, in docker's words.
type Removed struct {
	Untagged string `json:"Untagged,omitempty"`
	Deleted  string `json:"Deleted,omitempty"`
}

// Remove takes the name away and, with the last one, the image; an ID means the
// image with all its names, NAME@DIGEST only that it came from there. Layers go
// when nothing needs them. It is docker's rule what is refused: an image of a
// running container always, one of a stopped container and one of several
// repositories without Force.
func (s *Store) Remove(ctx context.Context, name string, o RemoveOptions) ([]Removed, error) {
	uses, err := s.uses()
	if err != nil {
		return nil, err
	}
	var done []Removed
	var id string
	err = s.update(ctx, func(entries []entry) ([]entry, error) {
		e, err := find(entries, name)
		if err != nil {
			return nil, err
		}
		id = cmp.Or(e.id(), e.Digest.String())
		if r, err := ParseReference(name); err == nil && r.Digest != "" && e.name() != "" {
			done = forgetDigest(entries, e)
			return entries, nil
		}
		victims, err := victimsOf(entries, e, name, o, uses)
		if err != nil {
			return nil, err
		}
		kept := slices.DeleteFunc(entries, func(x entry) bool { return contains(victims, x) })
		done = untaggedAll(victims, kept)
		if slices.ContainsFunc(kept, func(x entry) bool { return same(x, e) }) {
			return kept, nil
		}
		if used(uses, e.id()) {
			// A container still needs it: it stays, without a name.
			return append(kept, unnamed(e)), nil
		}
		done = append(done, Removed{Deleted: id})
		return kept, nil
	})
	if err != nil {
		return nil, err
	}
	s.removed(id, done)
	layers, err := s.collect(ctx)
	for _, l := range layers {
		done = append(done, Removed{Deleted: l})
	}
	return done, err
}

// removed notes what became of the image id.
func (s *Store) removed(id string, done []Removed) {
	for _, d := range done {
		action := "untag"
		if d.Deleted != "" {
			action = "delete"
		}
		s.event(id, action, cmp.Or(d.Untagged, d.Deleted))
	}
}

// forgetDigest removes from an image with a name only that e's repository knows
// it by a digest.
func forgetDigest(entries []entry, e entry) []Removed {
	var done []Removed
	for _, x := range entries {
		if same(x, e) && x.repoDigest() == e.repoDigest() {
			done = untaggedAll([]entry{unnamed(x)}, nil)
			delete(x.Annotations, noteDigest)
		}
	}
	return done
}

// untaggedAll says what names are gone with victims; a digest stays known while
// another name of its repository is kept.
func untaggedAll(victims, kept []entry) []Removed {
	var done []Removed
	for _, v := range victims {
		still := func(x entry) bool { return x.repoDigest() == v.repoDigest() }
		for _, r := range untagged(v) {
			if !slices.Contains(done, r) && !(strings.Contains(r.Untagged, "@") && slices.ContainsFunc(kept, still)) {
				done = append(done, r)
			}
		}
	}
	return done
}

func same(a, b entry) bool {
	return a.Digest == b.Digest || a.id() != "" && a.id() == b.id()
}

func contains(list []entry, e entry) bool {
	return slices.ContainsFunc(list, func(x entry) bool {
		return x.Digest == e.Digest && x.name() == e.name() && x.repoDigest() == e.repoDigest()
	})
}

func untagged(e entry) []Removed {
	var r []Removed
	if ref := e.ref(); ref.Tag != "" {
		r = append(r, Removed{Untagged: ref.Familiar()})
	}
	if ref, err := ParseReference(e.repoDigest()); err == nil {
		r = append(r, Removed{Untagged: ref.Familiar()})
	}
	return r
}

// used reports whether anybody needs the image; a list of images has no ID.
func used(uses []Use, id string) bool {
	return id != "" && slices.ContainsFunc(uses, func(u Use) bool { return u.ImageID == id })
}

// victimsOf are the entries that go with name.
func victimsOf(entries []entry, e entry, name string, o RemoveOptions, uses []Use) ([]entry, error) {
	var all []entry
	repos := map[string]bool{}
	for _, x := range entries {
		if same(x, e) {
			all = append(all, x)
			if r := x.ref(); r.Path != "" {
				repos[r.Name()] = true
			}
		}
	}
	byID := isID(e, name)
	victims := all
	if !byID && e.name() != "" {
		victims = []entry{e}
	}
	if byID && len(repos) > 1 && !o.Force {
		return nil, ui.Hint(fmt.Errorf("%s: %w: it has names in several repositories", name, ErrInUse), "kist rmi -f %s, or remove the names one by one", name)
	}
	if len(victims) < len(all) {
		return victims, nil
	}
	for _, u := range uses {
		if e.id() == "" || u.ImageID != e.id() {
			continue
		}
		if u.Running && (byID || !o.Force) || !o.Force {
			return nil, ui.Hint(fmt.Errorf("%s: %w by %s", name, ErrInUse, u.Holder), "remove that first, or use -f for one that is stopped")
		}
	}
	return victims, nil
}

// isID reports whether name means e by its ID rather than by a name.
func isID(e entry, name string) bool {
	if r, err := ParseReference(name); err == nil {
		if _, ok := findRef([]entry{e}, r); ok {
			return false
		}
	}
	return strings.HasPrefix(strings.TrimPrefix(e.id(), "sha256:"), strings.TrimPrefix(name, "sha256:")) ||
		e.Digest.String() == name
}

// Tag gives the image source another name.
func (s *Store) Tag(ctx context.Context, source, target string) error {
	r, err := ParseReference(target)
	if err != nil {
		return err
	}
	if r.Digest != "" {
		return fmt.Errorf("%w %q: a tag cannot have a digest", ErrInvalid, target)
	}
	var id string
	err = s.update(ctx, func(entries []entry) ([]entry, error) {
		e, err := find(entries, source)
		if err != nil {
			return nil, err
		}
		id = e.id()
		named := unnamed(e)
		named.Annotations[noteName] = r.Tagged().String()
		// The new name's repository knows the digest only if it is the same one.
		if d, err := ParseReference(e.repoDigest()); err != nil || d.Name() != r.Name() {
			delete(named.Annotations, noteDigest)
		}
		return put(entries, named), nil
	})
	if err == nil {
		s.event(id, "tag", r.Familiar())
	}
	return err
}

// Untag takes names away and keeps the image, also without any.
func (s *Store) Untag(ctx context.Context, image string, names []string) error {
	var id string
	var gone []Removed
	err := s.update(ctx, func(entries []entry) ([]entry, error) {
		e, err := find(entries, image)
		if err != nil {
			return nil, err
		}
		id = e.id()
		drop := func(x entry) bool { return same(x, e) && x.name() != "" }
		if len(names) > 0 {
			wanted := map[string]bool{}
			for _, n := range names {
				r, err := ParseReference(n)
				if err != nil {
					return nil, err
				}
				wanted[r.Tagged().String()] = true
			}
			drop = func(x entry) bool { return same(x, e) && wanted[x.name()] }
		}
		for _, x := range entries {
			if drop(x) {
				gone = append(gone, Removed{Untagged: x.ref().Familiar()})
			}
		}
		kept := slices.DeleteFunc(entries, drop)
		if !slices.ContainsFunc(kept, func(x entry) bool { return same(x, e) }) {
			kept = append(kept, unnamed(e))
		}
		return kept, nil
	})
	if err == nil {
		s.removed(id, gone)
	}
	return err
}

// uses are the owner's, and the images that are mounted.
func (s *Store) uses() ([]Use, error) {
	var uses []Use
	if mounts := s.Mounts(); len(mounts) > 0 {
		entries, err := s.readIndex()
		if err != nil {
			return nil, err
		}
		for id := range mounts {
			e, err := find(entries, id)
			if err != nil {
				continue // its image is gone; the mount does without
			}
			img, err := s.open(e, nil)
			if err != nil {
				return nil, err
			}
			uses = append(uses, Use{Holder: "image mount", ImageID: img.ID, ChainIDs: img.ChainIDs(), Running: true})
		}
	}
	if s.o.Uses == nil {
		return uses, nil
	}
	more, err := s.o.Uses()
	return append(uses, more...), err
}

package image

import (
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
// image with all its names. Layers go when nothing needs them. It is docker's
// rule what is refused: an image of a running container always, one of a stopped
// container and one of several repositories without Force.
func (s *Store) Remove(ctx context.Context, name string, o RemoveOptions) ([]Removed, error) {
	var done []Removed
	var removedID string
	uses, err := s.uses()
	if err != nil {
		return nil, err
	}
	err = s.update(ctx, func(entries []entry) ([]entry, error) {
		e, err := find(entries, name)
		if err != nil {
			return nil, err
		}
		var victims []entry
		if victims, err = victimsOf(entries, e, name, o, uses); err != nil {
			return nil, err
		}
		kept := slices.DeleteFunc(entries, func(x entry) bool { return contains(victims, x) })
		for _, v := range victims {
			done = append(done, untagged(v)...)
		}
		if !slices.ContainsFunc(kept, func(x entry) bool { return same(x, e) }) && !used(uses, e.id()) {
			removedID = e.id()
		} else if len(victims) > 0 && !slices.ContainsFunc(kept, func(x entry) bool { return same(x, e) }) {
			// A container still needs it: it stays, without a name.
			kept = append(kept, unnamed(e))
		}
		return kept, nil
	})
	if err != nil {
		return nil, err
	}
	if removedID != "" {
		done = append(done, Removed{Deleted: removedID})
	}
	layers, err := s.collect(ctx)
	for _, l := range layers {
		done = append(done, Removed{Deleted: l})
	}
	return done, err
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

func used(uses []Use, id string) bool {
	return slices.ContainsFunc(uses, func(u Use) bool { return u.ImageID == id })
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
		if u.ImageID != e.id() {
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
	return s.update(ctx, func(entries []entry) ([]entry, error) {
		e, err := find(entries, source)
		if err != nil {
			return nil, err
		}
		named := unnamed(e)
		named.Annotations[noteName] = r.Tagged().String()
		// The new name's repository knows the digest only if it is the same one.
		if d, err := ParseReference(e.repoDigest()); err != nil || d.Name() != r.Name() {
			delete(named.Annotations, noteDigest)
		}
		return put(entries, named), nil
	})
}

// Untag takes names away and keeps the image, also without any.
func (s *Store) Untag(ctx context.Context, image string, names []string) error {
	return s.update(ctx, func(entries []entry) ([]entry, error) {
		e, err := find(entries, image)
		if err != nil {
			return nil, err
		}
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
		kept := slices.DeleteFunc(entries, drop)
		if !slices.ContainsFunc(kept, func(x entry) bool { return same(x, e) }) {
			kept = append(kept, unnamed(e))
		}
		return kept, nil
	})
}

func (s *Store) uses() ([]Use, error) {
	if s.o.Uses == nil {
		return nil, nil
	}
	return s.o.Uses()
}

package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/kist-containers/kist/internal/state"
	"github.com/kist-containers/kist/internal/sys"
	"github.com/kist-containers/kist/internal/ui"
)

// Remove removes the volume name and all in it, unless somebody uses it
// (ErrInUse).
func (s *Store) Remove(ctx context.Context, name string) error {
	if _, err := s.Get(name); err != nil {
		return err
	}
	l, err := s.lock(ctx, name)
	if err != nil {
		return err
	}
	defer l.Unlock()
	v, err := s.Get(name)
	if err != nil {
		return err
	}
	uses, err := s.uses()
	if err != nil {
		return err
	}
	if by := uses[name]; len(by) > 0 {
		id := by[0][strings.LastIndexByte(by[0], ' ')+1:]
		return ui.Hint(fmt.Errorf("%s: %w by %s", name, ErrInUse, strings.Join(by, ", ")), "kist rm %s", strings.Trim(id, "()"))
	}
	return s.remove(ctx, v)
}

// remove removes a volume that nobody uses; the caller holds its lock.
func (s *Store) remove(ctx context.Context, v *Volume) error {
	if err := s.detach(ctx, v, ""); err != nil {
		return fmt.Errorf("%s: %w", v.Name, err)
	}
	below, err := sys.MountsBelow(s.dir(v.Name))
	if err != nil {
		return err
	}
	if len(below) > 0 {
		return ui.Hint(fmt.Errorf("%s: %w: something is mounted on %s", v.Name, ErrInUse, below[0]), "umount %s", below[0])
	}
	if err := s.driver(v).remove(ctx, v); err != nil {
		return fmt.Errorf("%s: %w", v.Name, err)
	}
	if err := state.Remove(s.dir(v.Name)); err != nil {
		return err
	}
	s.event(v, "destroy")
	if v.Anonymous {
		// Such a name is never given twice, so nobody makes this lock again.
		os.Remove(s.lockFile(v.Name))
	}
	return nil
}

// Pruned is what a prune removed.
type Pruned struct {
	Names     []string
	Reclaimed int64
}

// Prune removes the volumes that nobody uses and that pass the filters label,
// label!, until and anonymous: those without a name given by the user, or all.
// dry removes nothing.
func (s *Store) Prune(ctx context.Context, all, dry bool, f ui.Filters) (p Pruned, err error) {
	list, err := s.Filter(f)
	if err != nil {
		return p, err
	}
	if !dry {
		if err := s.Sweep(ctx); err != nil {
			return p, err
		}
	}
	var errs []error
	for _, e := range list {
		v := e.Volume
		if len(e.Holders) > 0 || !all && !v.Anonymous {
			continue
		}
		size := int64(0)
		if !s.driver(v).mounts(v) {
			size, _ = usage(v.Path)
		}
		if !dry {
			err := s.Remove(ctx, v.Name)
			if errors.Is(err, ErrInUse) || errors.Is(err, ErrNotFound) {
				continue // another command was faster
			}
			if err != nil {
				errs = append(errs, err)
				continue
			}
		}
		p.Names, p.Reclaimed = append(p.Names, v.Name), p.Reclaimed+size
	}
	return p, errors.Join(errs...)
}

// Sweep removes what killed commands left: drafts whose maker is gone, and
// half-removed volumes.
func (s *Store) Sweep(ctx context.Context) error {
	entries, err := os.ReadDir(s.dir())
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	}
	var errs []error
	for _, e := range entries {
		if !state.IsLitter(e.Name()) {
			continue
		}
		if name, draft := strings.CutPrefix(e.Name(), ".tmp-"); draft {
			l, err := state.TryLock(s.lockFile(name))
			if err != nil {
				continue // it is being made
			}
			defer l.Unlock()
		}
		below, err := sys.MountsBelow(s.dir(e.Name()))
		if err == nil && len(below) == 0 {
			err = os.RemoveAll(s.dir(e.Name()))
		}
		errs = append(errs, err)
	}
	return errors.Join(slices.DeleteFunc(errs, func(e error) bool { return e == nil })...)
}

package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kist-containers/kist/internal/state"
	"github.com/kist-containers/kist/internal/ui"
)

// Reloaded is what a reload found.
type Reloaded struct{ Added, Removed []string }

// Reload makes the volumes of plugins the same as those that the plugins have:
// those that others made there are added, and those that are gone forgotten,
// unless a container has them.
func (s *Store) Reload(ctx context.Context) (r Reloaded, err error) {
	known, err := s.List()
	if err != nil {
		return r, err
	}
	var errs []error
	for _, name := range s.plugins() {
		p := plugin{name: name, dirs: s.pluginDirs()}
		if p.check(ctx, nil) != nil {
			continue // one for something else, or one that has ended
		}
		theirs, err := p.list(ctx)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, s.adoptAll(ctx, p, theirs, &r), s.forgetGone(ctx, p, theirs, known, &r))
	}
	return r, errors.Join(errs...)
}

// plugins are the names of the plugins that there are.
func (s *Store) plugins() []string {
	var names []string
	for _, dir := range s.pluginDirs() {
		for _, pattern := range []string{"*.sock", "*/*.sock", "*.spec"} {
			files, _ := filepath.Glob(filepath.Join(dir, pattern))
			for _, f := range files {
				name := strings.TrimSuffix(filepath.Base(f), filepath.Ext(f))
				if !slices.Contains(names, name) {
					names = append(names, name)
				}
			}
		}
	}
	return names
}

// list are the names of the plugin's volumes, those that may be names here.
func (p plugin) list(ctx context.Context) ([]string, error) {
	a, err := p.call(ctx, "VolumeDriver.List", struct{}{})
	var names []string
	for _, v := range a.Volumes {
		if ValidName(v.Name) {
			names = append(names, v.Name)
		}
	}
	return names, err
}

// adopted is a plugin that has the volume already.
type adopted struct{ plugin }

func (adopted) create(context.Context, *Volume, string) error { return nil }

func (s *Store) adoptAll(ctx context.Context, p plugin, theirs []string, r *Reloaded) error {
	var errs []error
	for _, name := range theirs {
		if _, err := s.Get(name); err == nil {
			continue // known, or another driver's of the same name
		}
		if _, err := s.ensure(ctx, adopted{p}, Volume{Name: name, Driver: p.name}); err != nil {
			errs = append(errs, err)
			continue
		}
		r.Added = append(r.Added, name)
	}
	return errors.Join(errs...)
}

func (s *Store) forgetGone(ctx context.Context, p plugin, theirs []string, known []*Volume, r *Reloaded) error {
	uses, err := s.uses()
	if err != nil {
		return err
	}
	var errs []error
	for _, v := range known {
		if v.Driver != p.name || slices.Contains(theirs, v.Name) || len(uses[v.Name]) > 0 {
			continue
		}
		l, err := s.lock(ctx, v.Name)
		if err != nil {
			return err
		}
		if _, err := os.Lstat(s.runDir(v.Name)); err == nil {
			l.Unlock()
			continue // somebody has it mounted
		}
		err = state.Remove(s.dir(v.Name))
		l.Unlock()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		s.event(v, "destroy")
		r.Removed = append(r.Removed, v.Name)
	}
	return errors.Join(errs...)
}

// ReloadCmd is `kist volume reload`.
type ReloadCmd struct{}

// Run reloads and prints what has changed.
func (c *ReloadCmd) Run(ctx context.Context, s *Store, out *ui.Output) error {
	r, err := s.Reload(ctx)
	for title, names := range map[string][]string{"Added:": r.Added, "Removed:": r.Removed} {
		if len(names) > 0 {
			out.Print(title)
			out.Print(strings.Join(names, "\n"))
		}
	}
	if err != nil {
		return fmt.Errorf("volume reload: %w", err)
	}
	return nil
}

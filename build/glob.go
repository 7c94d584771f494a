package build

import (
	"context"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// hasWildcards reports whether a source is a pattern of filepath.Match.
func hasWildcards(p string) bool {
	for i := 0; i < len(p); i++ {
		switch p[i] {
		case '*', '?', '[':
			return true
		case '\\':
			i++
		}
	}
	return false
}

// glob lists the paths in s that pattern matches, in order. "**" stands for any
// number of directories when deep is set. A pattern without wildcards is itself,
// whether it exists or not.
func (s *source) glob(ctx context.Context, pattern string, deep bool) ([]string, error) {
	// Cleaning takes the way out of the root away; openat2 does so once more.
	pattern = strings.TrimPrefix(path.Join("/", pattern), "/")
	if !hasWildcards(pattern) {
		return []string{unescape(pattern)}, nil
	}
	if _, err := filepath.Match(pattern, ""); err != nil {
		return nil, &os.PathError{Op: "match", Path: pattern, Err: err}
	}
	found, err := s.globBelow(ctx, "", strings.Split(pattern, "/"), deep)
	slices.Sort(found)
	return slices.Compact(found), err
}

func unescape(p string) string {
	var b strings.Builder
	for i := 0; i < len(p); i++ {
		if p[i] == '\\' && i+1 < len(p) {
			i++
		}
		b.WriteByte(p[i])
	}
	return b.String()
}

// globBelow matches the components parts below the directory at.
func (s *source) globBelow(ctx context.Context, at string, parts []string, deep bool) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	if len(parts) == 0 {
		return []string{at}, nil
	}
	part, rest := parts[0], parts[1:]
	if !hasWildcards(part) {
		next := path.Join(at, unescape(part))
		if _, err := s.stat(next); err != nil {
			return nil, nil
		}
		return s.globBelow(ctx, next, rest, deep)
	}
	dir, err := s.open(cmpOr(at, "."), unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, nil // a file cannot hold a match
	}
	entries, err := dir.ReadDir(-1)
	dir.Close()
	if err != nil {
		return nil, err
	}
	if deep && part == "**" {
		return s.globDeep(ctx, at, parts, entries)
	}
	var found []string
	for _, e := range entries {
		p := path.Join(at, e.Name())
		if ok, _ := filepath.Match(part, e.Name()); !ok || len(rest) == 0 && s.ignore.excludes(p) && !e.IsDir() {
			continue
		}
		more, err := s.globBelow(ctx, p, rest, deep)
		if err != nil {
			return nil, err
		}
		found = append(found, more...)
	}
	return found, nil
}

// globDeep matches "**" and what follows it here and in each directory below.
func (s *source) globDeep(ctx context.Context, at string, parts []string, entries []os.DirEntry) ([]string, error) {
	found, err := s.globBelow(ctx, at, parts[1:], true)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		p := path.Join(at, e.Name())
		if len(parts) == 1 && !e.IsDir() && !s.ignore.excludes(p) {
			found = append(found, p)
		}
		if !e.IsDir() {
			continue
		}
		more, err := s.globBelow(ctx, p, parts, true)
		if err != nil {
			return nil, err
		}
		found = append(found, more...)
	}
	return found, nil
}

func cmpOr(a, b string) string {
	if a == "" {
		return b
	}
	return a
}

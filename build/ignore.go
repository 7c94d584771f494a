package build

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

// An ignore holds the patterns of a .dockerignore file. A nil ignore excludes
// nothing.
type ignore struct {
	m *patternmatcher.PatternMatcher
	// reincludes says that a "!" pattern may bring back what is below an
	// excluded directory, so that it has to be walked.
	reincludes bool
}

// parseIgnore reads patterns. A file with none gives nil.
func parseIgnore(name string, data []byte) (*ignore, error) {
	patterns, err := ignorefile.ReadAll(bufio.NewReader(bytes.NewReader(data)))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return newIgnore(name, patterns)
}

func newIgnore(name string, patterns []string) (*ignore, error) {
	if len(patterns) == 0 {
		return nil, nil
	}
	m, err := patternmatcher.New(patterns)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	i := &ignore{m: m, reincludes: m.Exclusions()}
	// The matcher compiles its patterns when it is used first; a bad one must
	// show before any work is done.
	if _, err := m.MatchesOrParentMatches("."); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return i, nil
}

// excludes reports whether p, relative to the context's root, is left out.
func (i *ignore) excludes(p string) bool {
	if i == nil || p == "." || p == "" {
		return false
	}
	match, err := i.m.MatchesOrParentMatches(p)
	return err == nil && match
}

// prunes reports whether an excluded directory needs no walk: nothing below it
// can be brought back by a "!" pattern.
func (i *ignore) prunes(dir string) bool {
	if !i.reincludes {
		return true
	}
	for _, p := range i.m.Patterns() {
		if !p.Exclusion() {
			continue
		}
		pattern := strings.TrimPrefix(p.String(), "!")
		if strings.ContainsAny(pattern, `*?[\`) || strings.HasPrefix(pattern+"/", dir+"/") || strings.HasPrefix(dir+"/", pattern+"/") {
			return false
		}
	}
	return true
}

// findIgnore reads the ignore file that goes with a Dockerfile: NAME.dockerignore
// beside it wins over podman's .containerignore and .dockerignore in the context. beside is "" when the
// Dockerfile has no place of its own.
func findIgnore(context *source, beside string) (*ignore, error) {
	if beside != "" {
		data, err := context.readNear(beside + ".dockerignore")
		if err == nil {
			return parseIgnore(path.Base(beside)+".dockerignore", data)
		}
		if !notFound(err) {
			return nil, err
		}
	}
	for _, name := range []string{".containerignore", ".dockerignore"} {
		data, err := context.read(name, maxDockerfile)
		if err == nil {
			return parseIgnore(name, data)
		}
		if !notFound(err) {
			return nil, err
		}
	}
	return nil, nil
}

// readNear reads a file that may lie outside. One that lies inside is opened there:
// no link of a stranger's leads it out, and no pipe holds it up.
func (s *source) readNear(file string) ([]byte, error) {
	abs, err := filepath.Abs(file)
	if err != nil {
		return nil, err
	}
	if rel, err := filepath.Rel(s.root.Name(), abs); err == nil && filepath.IsLocal(rel) {
		return s.read(rel, maxDockerfile)
	}
	return os.ReadFile(abs)
}

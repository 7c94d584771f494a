package layer

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A ChangeKind is docker's letter for what happened to a path.
type ChangeKind string

// The kinds of `docker diff`.
const (
	Added    ChangeKind = "A"
	Modified ChangeKind = "C"
	Deleted  ChangeKind = "D"
)

// A Change is one path that upper changes; Path is absolute.
type Change struct {
	Kind ChangeKind
	Path string
}

// Changes lists what upper, overlay's directory of changes, does to lowers (top
// first), in the order of the paths.
func Changes(upper string, lowers []string, rootless bool) ([]Change, error) {
	var list []Change
	err := filepath.WalkDir(upper, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == upper {
			return err
		}
		rel := p[len(upper):]
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return &os.PathError{Op: "lstat", Path: p, Err: err}
		}
		below := existsBelow(lowers, rel, rootless)
		switch {
		case isWhiteout(&st):
			if below {
				list = append(list, Change{Deleted, rel})
			}
			return nil
		case below:
			list = append(list, Change{Modified, rel})
		default:
			list = append(list, Change{Added, rel})
		}
		if d.IsDir() && below && opaquePath(p, rootless) {
			list = append(list, hiddenBelow(p, lowers, rel, rootless)...)
		}
		return nil
	})
	slices.SortStableFunc(list, func(a, b Change) int { return strings.Compare(a.Path, b.Path) })
	return list, err
}

// existsBelow reports whether lowers, stacked, show the path rel. It follows no
// link: a link in the middle is not a directory of the stack.
func existsBelow(lowers []string, rel string, rootless bool) bool {
	parts := strings.Split(strings.Trim(rel, "/"), "/")
	for _, lower := range lowers {
		p := lower
		opaque := false
		for i, part := range parts {
			p = filepath.Join(p, part)
			var st unix.Stat_t
			if unix.Lstat(p, &st) != nil {
				break
			}
			dir := st.Mode&unix.S_IFMT == unix.S_IFDIR
			switch {
			case isWhiteout(&st):
				return false
			case i == len(parts)-1:
				return true
			case !dir:
				return false
			}
			opaque = opaque || opaquePath(p, rootless)
		}
		if opaque {
			return false
		}
	}
	return false
}

func opaquePath(p string, rootless bool) bool {
	buf := make([]byte, 8)
	n, err := unix.Lgetxattr(p, overlayXattr(rootless, "opaque"), buf)
	return err == nil && n == 1 && buf[0] == 'y'
}

// hiddenBelow lists the names of lowers that an opaque directory of upper hides.
func hiddenBelow(dir string, lowers []string, rel string, rootless bool) []Change {
	names := map[string]bool{}
	for _, lower := range lowers {
		entries, err := os.ReadDir(filepath.Join(lower, rel))
		if err != nil {
			continue
		}
		for _, e := range entries {
			names[e.Name()] = true
		}
	}
	var list []Change
	for name := range names {
		p := filepath.Join(rel, name)
		if _, err := os.Lstat(filepath.Join(dir, name)); err != nil && existsBelow(lowers, p, rootless) {
			list = append(list, Change{Deleted, p})
		}
	}
	return list
}

package image

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/image/layer"
	"github.com/kist-containers/kist/internal/ui"
)

// DiffCmd is `kist image diff`.
type DiffCmd struct {
	Format string `help:"json or a template." placeholder:"FORMAT"`
	Image  string `arg:"" help:"Name or ID."`
	Other  string `arg:"" optional:"" help:"Image to compare with; without it, what the last layer changed."`
}

type diffRow struct{ Path, Kind string }

// Run prints the changed paths.
func (c *DiffCmd) Run(s *Store, out *ui.Output) error {
	changes, err := c.changes(s)
	if err != nil {
		return fmt.Errorf("image diff %s: %w", c.Image, err)
	}
	var rows []any
	for _, ch := range changes {
		rows = append(rows, diffRow{ui.Escape(ch.Path), string(ch.Kind)})
	}
	t := ui.Table{Default: "{{.Kind}} {{.Path}}", NoHeading: true}
	return t.Write(out.Out, c.Format, false, rows)
}

func (c *DiffCmd) changes(s *Store) ([]Change, error) {
	img, err := s.Resolve(c.Image)
	if err != nil {
		return nil, err
	}
	if dirs := img.LowerDirs(); c.Other == "" && len(dirs) > 0 {
		return s.Changes(dirs[0], dirs[1:])
	}
	other, err := s.Resolve(c.Other)
	if err != nil {
		return nil, err
	}
	before, err := s.looks(other)
	if err != nil {
		return nil, err
	}
	after, err := s.looks(img)
	if err != nil {
		return nil, err
	}
	return compare(before, after), nil
}

// A look is what of a file says that it is another one.
type look struct {
	mode, uid, gid uint32
	rdev           uint64
	size, sec, ns  int64
	target         string
}

// looks mounts the layers of img for a moment and looks at each file.
func (s *Store) looks(img *Image) (map[string]look, error) {
	found := map[string]look{}
	if len(img.Layers) == 0 {
		return found, nil
	}
	m, err := MountLayers(img.LowerDirs(), s.o.Rootless)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	root := fmt.Sprintf("/proc/self/fd/%d", m.Fd())
	return found, filepath.WalkDir(root+"/.", func(p string, d fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil {
			err = unix.Lstat(p, &st)
		}
		if err != nil || p == root+"/." {
			return err
		}
		l := look{mode: st.Mode, uid: st.Uid, gid: st.Gid, rdev: st.Rdev}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			l.size, l.sec, l.ns = st.Size, st.Mtim.Sec, st.Mtim.Nsec
		case unix.S_IFLNK:
			l.target, err = os.Readlink(p)
		}
		found[strings.TrimPrefix(p, root)] = l
		return err
	})
}

// compare lists what makes after of before.
func compare(before, after map[string]look) []Change {
	var list []Change
	for p, now := range after {
		if was, ok := before[p]; !ok {
			list = append(list, Change{Kind: layer.Added, Path: p})
		} else if was != now {
			list = append(list, Change{Kind: layer.Modified, Path: p})
		}
	}
	for p := range before {
		if _, ok := after[p]; !ok {
			list = append(list, Change{Kind: layer.Deleted, Path: p})
		}
	}
	slices.SortFunc(list, func(a, b Change) int { return strings.Compare(a.Path, b.Path) })
	return list
}

package volume

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/kist-containers/kist/internal/ui"
)

// filterKeys are docker's and podman's for listings.
var filterKeys = [...]string{"name", "driver", "label", "label!", "dangling", "anonymous", "opt", "scope", "since", "until", "after", "volume", "all"}

// An Entry is a volume with those who use it.
type Entry struct {
	*Volume
	Holders []string
}

// Filter returns the volumes that pass f: name (a part of it, or a regular
// expression), driver, label, label!, dangling, anonymous, opt, scope, until,
// since and after.
func (s *Store) Filter(f ui.Filters) ([]Entry, error) {
	all, err := s.List()
	if err != nil {
		return nil, err
	}
	uses, err := s.uses()
	if err != nil {
		return nil, err
	}
	p, err := s.predicate(f)
	if err != nil {
		return nil, err
	}
	list := []Entry{}
	for _, v := range all {
		if e := (Entry{v, uses[v.Name]}); p(e) {
			list = append(list, e)
		}
	}
	return list, nil
}

func (s *Store) predicate(f ui.Filters) (func(Entry) bool, error) {
	var names []*regexp.Regexp
	for _, n := range slices.Concat(f["name"], f["volume"]) {
		re, err := regexp.Compile(n)
		if err != nil {
			re = regexp.MustCompile(regexp.QuoteMeta(n))
		}
		names = append(names, re)
	}
	flags := map[string]*bool{"dangling": nil, "anonymous": nil}
	for key := range flags {
		for _, v := range f[key] {
			b, err := strconv.ParseBool(v)
			if err != nil {
				return nil, filterError(key, v, "want true or false")
			}
			flags[key] = &b
		}
	}
	from, to, err := s.times(f)
	if err != nil {
		return nil, err
	}
	is := func(key string, have bool) bool { return flags[key] == nil || *flags[key] == have }
	return func(e Entry) bool {
		return (len(names) == 0 || slices.ContainsFunc(names, func(re *regexp.Regexp) bool { return re.MatchString(e.Name) })) &&
			f.Match("driver", func(d string) bool { return d == e.Driver }) &&
			f.Match("scope", func(v string) bool { return v == "local" }) &&
			f.Match("opt", func(o string) bool { return hasOption(e.Options, o) }) &&
			f.MatchLabels("label", e.Labels) && f.ExcludeLabels("label!", e.Labels) &&
			is("dangling", len(e.Holders) == 0) && is("anonymous", e.Anonymous) &&
			(from.IsZero() || e.Created.After(from)) && (to.IsZero() || e.Created.Before(to))
	}, nil
}

func filterError(key, value, want string) error {
	return fmt.Errorf("--filter %s=%s: %s", key, value, want)
}

// times are the bounds of since (or after: another volume's name) and until.
func (s *Store) times(f ui.Filters) (from, to time.Time, err error) {
	for _, v := range slices.Concat(f["since"], f["after"]) {
		other, errName := s.Get(v)
		if errName == nil {
			from = other.Created
			continue
		}
		if from, err = ui.ParseTime(v, time.Now()); err != nil {
			return from, to, errName
		}
	}
	for _, v := range f["until"] {
		if to, err = ui.ParseTime(v, time.Now()); err != nil {
			return from, to, err
		}
	}
	return from, to, nil
}

func hasOption(options map[string]string, want string) bool {
	k, v, withValue := strings.Cut(want, "=")
	got, ok := options[k]
	return ok && (!withValue || got == v)
}

type inode struct{ dev, ino uint64 }

// usage is how many bytes of the disk the tree below dir holds. A file that goes
// meanwhile is not counted.
func usage(dir string) (total int64, err error) {
	seen := map[inode]bool{}
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			if os.IsNotExist(err) {
				return nil
			}
			return err
		}
		info, err := d.Info()
		if err != nil {
			return nil
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok || st.Nlink > 1 && !d.IsDir() && seen[inode{uint64(st.Dev), st.Ino}] {
			return nil
		}
		if st.Nlink > 1 && !d.IsDir() {
			seen[inode{uint64(st.Dev), st.Ino}] = true
		}
		if !d.IsDir() {
			total += info.Size()
		}
		return nil
	})
	return total, err
}

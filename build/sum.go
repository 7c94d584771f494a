package build

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/state"
)

// A sumCache remembers the digests of a context's files from build to build, by
// inode, size and times, as git's index does: a file whose inode was not
// touched is not read again.
//
// On disk it is a text file: a header, then a line "ino size mtime ctime sum
// path" for each file.
type sumCache struct {
	file  string
	start time.Time
	mu    sync.Mutex
	known map[string]string // path → "ino size mtime ctime sum"
	dirty bool
}

const sumHeader = "kist sums 1"

// openSums reads the cache of the context at dir. A file that does not parse
// counts as empty.
func openSums(cacheDir, dir string) *sumCache {
	c := &sumCache{
		file:  filepath.Join(cacheDir, digestOf("context", dir)[:32]),
		start: time.Now(), known: map[string]string{},
	}
	f, err := os.Open(c.file)
	if err != nil {
		return c
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	if !lines.Scan() || lines.Text() != sumHeader {
		return c
	}
	for lines.Scan() {
		facts, name, ok := cutAfter(lines.Text(), ' ', 5)
		if ok {
			c.known[name] = facts
		}
	}
	return c
}

// cutAfter splits s behind the n-th sep.
func cutAfter(s string, sep byte, n int) (before, after string, ok bool) {
	for i := range len(s) {
		if s[i] == sep {
			if n--; n == 0 {
				return s[:i], s[i+1:], true
			}
		}
	}
	return "", "", false
}

func stamp(st *unix.Stat_t) string {
	return fmt.Sprintf("%d %d %d %d ", st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano())
}

func (c *sumCache) get(it *item) (string, bool) {
	if c == nil {
		return "", false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.CutPrefix(c.known[it.path], stamp(&it.stat))
}

// racy is how old a change must be to be told from the next by its time alone.
const racy = 100 * time.Millisecond

func (c *sumCache) put(it *item) {
	if c == nil || strings.Contains(it.path, "\n") || c.start.Sub(time.Unix(it.stat.Ctim.Unix())) < racy {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known[it.path] = stamp(&it.stat) + it.sum
	c.dirty = true
}

// save writes the cache when it has learned something.
func (c *sumCache) save() error {
	if c == nil || !c.dirty {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(c.file), 0o700); err != nil {
		return err
	}
	c.dirty = false
	return state.WriteFileFrom(c.file, 0o600, func(w io.Writer) error {
		b := bufio.NewWriter(w)
		fmt.Fprintln(b, sumHeader)
		for _, name := range slices.Sorted(maps.Keys(c.known)) {
			fmt.Fprintf(b, "%s %s\n", c.known[name], name)
		}
		return b.Flush()
	})
}

// sum fills in the digests of the regular files among items, on all CPUs.
func (s *source) sum(ctx context.Context, items []item) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	var unknown []*item
	for i := range items {
		it := &items[i]
		if it.kind() != unix.S_IFREG {
			continue
		}
		var ok bool
		if it.sum, ok = s.sums.get(it); !ok {
			unknown = append(unknown, it)
		}
	}
	const batch = 64
	for some := range slices.Chunk(unknown, batch) {
		g.Go(func() error {
			for _, it := range some {
				if err := ctx.Err(); err != nil {
					return context.Cause(ctx)
				}
				if err := s.sumFile(it); err != nil {
					return err
				}
				s.sums.put(it)
			}
			return nil
		})
	}
	return g.Wait()
}

// sumFile reads one file. A link that took its place since the scan is refused.
func (s *source) sumFile(it *item) (err error) {
	f, err := s.open(it.path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK)
	if errors.Is(err, unix.ELOOP) {
		// The source itself may be a link, which COPY follows.
		f, err = s.open(it.path, unix.O_RDONLY|unix.O_NONBLOCK)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	attrs, err := readAttrs(f)
	if err != nil {
		return err
	}
	for _, a := range attrs {
		fmt.Fprintf(h, "\x00%q=%q", a.Name, a.Value)
	}
	it.sum = hex.EncodeToString(h.Sum(nil))
	return nil
}

// digestOf is the SHA-256, in hex, of parts, each with its length before it so
// that no two lists look the same.
func digestOf(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// digest is the identity of items as an image has them: names, modes, owners,
// content and links, but no times.
func (s *source) digest(items []item) string {
	h := sha256.New()
	for i := range items {
		it := &items[i]
		uid, gid := it.stat.Uid, it.stat.Gid
		if s.owned {
			uid, gid = 0, 0
		}
		rdev := it.stat.Rdev
		if k := it.kind(); k != unix.S_IFCHR && k != unix.S_IFBLK {
			rdev = 0
		}
		fmt.Fprintf(h, "%d:%s %o %d %d %d %q %s\n", len(it.rel), it.rel, it.stat.Mode, uid, gid, rdev, it.link, it.sum)
	}
	return hex.EncodeToString(h.Sum(nil))
}

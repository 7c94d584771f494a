package nameserver

import (
	"errors"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
)

// A zone keeps what the files of the sandbox's networks say. A question costs one
// stat(2) per network; a directory is read again when it changed, and of its files
// only those that did. So a container that joins wakes no name server.
type zone struct {
	config *Config

	mu       sync.Mutex
	record   stamp
	networks []*directory
	now      *table
}

// directory is a network's, as it was when it was read.
type directory struct {
	Network
	stamp stamp
	files map[string]*file
}

type file struct {
	stamp    stamp
	endpoint Endpoint
	ok       bool
}

// current is the table of this moment.
func (z *zone) current() *table {
	z.mu.Lock()
	defer z.mu.Unlock()
	changed := z.now == nil
	if s := stampOf(z.config.Record); s != z.record || z.now == nil {
		z.join()
		z.record, changed = keep(s), true
	}
	for _, d := range z.networks {
		if s := stampOf(d.Dir); s != d.stamp {
			d.read()
			d.stamp, changed = keep(s), true
		}
	}
	if changed {
		z.now = z.build()
	}
	return z.now
}

// keep is s if it may be trusted to differ from any later one; otherwise a stamp
// that never equals one, so that the next question reads again.
func keep(s stamp) stamp {
	if s.settled() {
		return s
	}
	return stamp{inode: ^uint64(0)}
}

// join learns which networks there are. On an error the old ones stay.
func (z *zone) join() {
	if z.config.Networks == nil {
		return
	}
	list, err := z.config.Networks()
	if err != nil {
		return
	}
	old := map[string]*directory{}
	for _, d := range z.networks {
		old[d.Dir] = d
	}
	z.networks = nil
	for _, n := range list {
		d := old[n.Dir]
		if d == nil {
			d = &directory{files: map[string]*file{}, stamp: stamp{inode: ^uint64(0)}}
		}
		d.Network = n
		z.networks = append(z.networks, d)
	}
}

// read brings the files up to date.
func (d *directory) read() {
	entries, err := os.ReadDir(d.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return
	}
	files := make(map[string]*file, len(entries))
	for _, e := range entries {
		name := e.Name()
		if !strings.HasSuffix(name, ".json") || name[0] == '.' {
			continue
		}
		path := filepath.Join(d.Dir, name)
		f, s := d.files[name], stampOf(path)
		if f == nil || f.stamp != s {
			f = &file{stamp: keep(s)}
			f.endpoint, f.ok = readEndpoint(path)
		}
		files[name] = f
	}
	d.files = files
}

func (z *zone) build() *table {
	t := &table{names: map[string]*host{}, reverse: map[netip.Addr]dnsmessage.Name{}, internal: len(z.networks) > 0}
	for _, d := range z.networks {
		t.add(d.Network, d.endpoints())
		t.internal = t.internal && d.Internal
	}
	if z.now != nil { // a change of one container is no new turn for all others
		for name, h := range z.now.names {
			if again := t.names[name]; again != nil {
				again.turn.Store(h.turn.Load())
			}
		}
	}
	return t
}

// endpoints are always in one order, for the sake of their turns.
func (d *directory) endpoints() []Endpoint {
	list := make([]Endpoint, 0, len(d.files))
	for _, name := range slices.Sorted(maps.Keys(d.files)) {
		if f := d.files[name]; f.ok {
			list = append(list, f.endpoint)
		}
	}
	return list
}

// stampOf is zero for what is not there.
func stampOf(path string) stamp {
	var st unix.Stat_t
	if path == "" || unix.Stat(path, &st) != nil {
		return stamp{}
	}
	return stamp{st.Mtim.Nano(), st.Ino}
}

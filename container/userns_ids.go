package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/kist-containers/kist/internal/state"
	"github.com/kist-containers/kist/internal/ui"
)

// autoUsers gives the container ids that no other has.
func (e *Engine) autoUsers(ctx context.Context, c *Config, options string) error {
	pool, err := e.autoPool()
	if err != nil {
		return err
	}
	size := pool.size
	s := &c.Spaces
	for _, o := range splitOptions(options) {
		key, value, _ := strings.Cut(o, "=")
		switch key {
		case "size":
			n, err := strconv.ParseUint(value, 10, 32)
			if err != nil || n == 0 || n > uint64(pool.last-pool.first) {
				return fmt.Errorf("size=%s: want a number of ids", value)
			}
			size = uint32(n)
		case "uidmapping", "gidmapping":
			m, err := parseIDMap(value)
			if err != nil {
				return err
			}
			if key == "uidmapping" {
				s.UIDs = append(s.UIDs, m)
			} else {
				s.GIDs = append(s.GIDs, m)
			}
		default:
			return fmt.Errorf("%s: want size=, uidmapping= or gidmapping=", key)
		}
	}
	start, err := e.claimIDs(ctx, c.ID, size, pool)
	if err != nil {
		return err
	}
	auto := IDMap{0, start, size}
	s.UIDs, s.GIDs = around(auto, s.UIDs), around(auto, s.GIDs)
	return nil
}

// An idPool is what containers get ranges of, those from first to before last, and
// how many a container gets unasked.
type idPool struct{ first, last, size uint32 }

// ownAutoIDs is how many of an ordinary user's subordinate ids a container gets;
// podman gives as many to an image whose accounts need no more.
const ownAutoIDs = 1024

// autoPool is the machine's, or what the user has of subordinate ids.
func (e *Engine) autoPool() (idPool, error) {
	if !e.Rootless {
		return idPool{firstAutoID, lastAutoID, autoIDs}, nil
	}
	last := uint32(lastAutoID)
	for _, file := range []string{"/proc/self/uid_map", "/proc/self/gid_map"} {
		list, err := readIDMap(file)
		if err != nil {
			return idPool{}, err
		}
		end := uint32(1)
		for _, m := range list {
			end = max(end, m.Inside+m.Size)
		}
		last = min(last, end)
	}
	if last <= 1 {
		return idPool{}, ui.Hint(errors.New("you have no subordinate ids to give"), "usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER")
	}
	return idPool{1, last, min(ownAutoIDs, last-1)}, nil
}

// around cuts given mappings out of the automatic one.
func around(auto IDMap, given []IDMap) []IDMap {
	slices.SortFunc(given, func(a, b IDMap) int { return int(int64(a.Inside) - int64(b.Inside)) })
	var all []IDMap
	for _, g := range given {
		if before := min(g.Inside, auto.Inside+auto.Size); before > auto.Inside {
			n := before - auto.Inside
			all = append(all, IDMap{auto.Inside, auto.Outside, n})
			auto = IDMap{auto.Inside + n, auto.Outside + n, auto.Size - n}
		}
		all = append(all, g)
		if end := g.Inside + g.Size; end > auto.Inside {
			skip := min(end-auto.Inside, auto.Size)
			auto = IDMap{auto.Inside + skip, auto.Outside + skip, auto.Size - skip}
		}
	}
	if auto.Size > 0 {
		all = append(all, auto)
	}
	return all
}

// claimIDs takes a free range of ids for a container. A range is a file named
// START-SIZE that holds the container's ID, as names are; see claim.
func (e *Engine) claimIDs(ctx context.Context, id string, size uint32, pool idPool) (uint32, error) {
	lock, err := state.AcquireLock(ctx, e.Roots.Lock("ids"))
	if err != nil {
		return 0, err
	}
	defer lock.Unlock()
	if err := os.MkdirAll(e.dataDir(".ids"), 0o700); err != nil {
		return 0, err
	}
	entries, err := os.ReadDir(e.dataDir(".ids"))
	if err != nil {
		return 0, err
	}
	var taken []IDMap
	for _, entry := range entries {
		if m, ok := rangeOf(entry.Name()); ok {
			taken = append(taken, m)
		}
	}
	start, ok := pool.firstFree(taken, size)
	if !ok {
		// Ranges of containers that a killed command never finished or removed.
		taken = slices.DeleteFunc(taken, func(m IDMap) bool { return e.freeStale(m) })
		if start, ok = pool.firstFree(taken, size); !ok {
			return 0, fmt.Errorf("no %d ids in a row are free", size)
		}
	}
	return start, os.WriteFile(e.dataDir(".ids", rangeName(start, size)), []byte(id), 0o600)
}

func rangeName(start, size uint32) string { return fmt.Sprintf("%d-%d", start, size) }

func rangeOf(name string) (IDMap, bool) {
	a, b, ok := strings.Cut(name, "-")
	start, errA := strconv.ParseUint(a, 10, 32)
	size, errB := strconv.ParseUint(b, 10, 32)
	return IDMap{0, uint32(start), uint32(size)}, ok && errA == nil && errB == nil
}

func (p idPool) firstFree(taken []IDMap, size uint32) (uint32, bool) {
	slices.SortFunc(taken, func(a, b IDMap) int { return int(int64(a.Outside) - int64(b.Outside)) })
	start := p.first
	for _, m := range taken {
		if m.Outside >= start && m.Outside-start >= size {
			break
		}
		start = max(start, m.Outside+m.Size)
	}
	return start, start <= p.last && size <= p.last-start
}

// freeStale gives a range back whose container is not there.
func (e *Engine) freeStale(m IDMap) bool {
	file := e.dataDir(".ids", rangeName(m.Outside, m.Size))
	data, err := os.ReadFile(file)
	if err != nil {
		return true
	}
	id := string(data)
	if !state.ValidName(id) || e.claimed(id) {
		return false
	}
	return os.Remove(file) == nil
}

// freeIDs gives a container's range back.
func (e *Engine) freeIDs(c *Config) {
	if !strings.HasPrefix(c.Spaces.User, "auto") {
		return
	}
	for _, m := range c.Spaces.UIDs {
		file := e.dataDir(".ids", rangeName(m.Outside, m.Size))
		if data, err := os.ReadFile(file); err == nil && string(data) == c.ID {
			os.Remove(file)
		}
	}
	// With mappings of its own the range is in pieces: look for the name.
	entries, _ := os.ReadDir(e.dataDir(".ids"))
	for _, entry := range entries {
		file := e.dataDir(".ids", entry.Name())
		if data, err := os.ReadFile(file); err == nil && string(data) == c.ID {
			os.Remove(file)
		}
	}
}

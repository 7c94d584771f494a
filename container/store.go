package container

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/kist-containers/kist/internal/state"
	"github.com/kist-containers/kist/internal/ui"
)

// shortID is docker's: what listings show of an ID.
func shortID(id string) string { return id[:min(12, len(id))] }

// newID returns 64 hexadecimal digits, of which the first twelve are not all
// decimal: such a thing would read as a number, a pid for example.
func newID() string {
	for {
		b := make([]byte, 32)
		rand.Read(b)
		id := hex.EncodeToString(b)
		if strings.Trim(id[:12], "0123456789") != "" {
			return id
		}
	}
}

// nameFile is where a name's container is written. The file is made exclusively,
// so of two commands one gets the name, and looking a name up reads one file
// whatever the number of containers.
func (e *Engine) nameFile(name string) string { return e.dataDir(".name", name) }

// claim takes name for id. A claim whose container was never finished is a
// killed command's and is taken over.
func (e *Engine) claim(ctx context.Context, name, id string) error {
	lock, err := state.AcquireLock(ctx, e.Roots.Lock("name"))
	if err != nil {
		return err
	}
	defer lock.Unlock()
	if holder := e.holder(name); holder != "" {
		return ui.Hint(fmt.Errorf("%w by %s", ErrConflict, shortID(holder)), "kist rm -f %s", name)
	}
	if err := os.MkdirAll(e.dataDir(".name"), 0o700); err != nil {
		return err
	}
	err = os.WriteFile(e.nameFile(name), []byte(id), 0o600)
	if err != nil {
		os.Remove(e.nameFile(name)) // no space left: it is there, and empty
	}
	return err
}

// holder returns the container that has the name and is there, or whose creation
// still runs.
func (e *Engine) holder(name string) string {
	data, err := os.ReadFile(e.nameFile(name))
	id := string(data)
	if err != nil || !state.ValidName(id) || !e.claimed(id) {
		return ""
	}
	return id
}

// claimed reports whether the container id is there or being created: its creator
// holds its lock while it lives.
func (e *Engine) claimed(id string) bool {
	if !e.unmade(id) {
		return true
	}
	l, err := state.TryLock(e.Roots.Lock("container-" + id))
	if err == nil {
		l.Unlock()
	}
	return errors.Is(err, state.ErrLocked)
}

// unclaim gives name back if it is id's.
func (e *Engine) unclaim(name, id string) {
	data, err := os.ReadFile(e.nameFile(name))
	if err == nil && string(data) == id {
		os.Remove(e.nameFile(name))
	}
}

// read reads the configuration of the container id. One that does not parse is a
// DamagedError.
func (e *Engine) read(id string) (*Config, error) {
	c := new(Config)
	err := state.ReadJSON(e.dataDir(id, configFile), c)
	if err != nil && e.unmade(id) {
		return nil, ErrNotFound
	}
	var unread *fs.PathError
	if err != nil && !errors.As(err, &unread) {
		return nil, &DamagedError{id, err}
	}
	if err == nil && c.ID != id {
		// Never go on with it: the directory of no ID is that of all containers.
		return nil, &DamagedError{id, fmt.Errorf("%s is of another container (%q)", e.dataDir(id, configFile), c.ID)}
	}
	return c, err
}

// A DamagedError is of a container whose configuration does not parse.
type DamagedError struct {
	ID  string
	Err error
}

func (e *DamagedError) Error() string { return "its record is damaged: " + e.Err.Error() }
func (e *DamagedError) Unwrap() error { return e.Err }

// warnDamaged tells of a container that no listing can show.
func (e *Engine) warnDamaged(err error) {
	var damaged *DamagedError
	if errors.As(err, &damaged) && e.Warn != nil {
		e.Warn("container %s is left out: its record is damaged (kist rm -f %[1]s removes it)", shortID(damaged.ID))
	}
}

// wreck is what is known of a container with a damaged record: enough to remove it.
func (e *Engine) wreck(id string) *Config {
	c := &Config{ID: id}
	names, _ := os.ReadDir(e.dataDir(".name"))
	for _, n := range names {
		if e.holder(n.Name()) == id {
			c.Name = n.Name()
		}
	}
	return c
}

// unmade reports whether the container id has no configuration. A power cut
// empties that of a container which was to go with its exit.
func (e *Engine) unmade(id string) bool {
	info, err := os.Stat(e.dataDir(id, configFile))
	return errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() == 0
}

// Lookup finds a container by name, ID or a unique prefix of an ID.
func (e *Engine) Lookup(name string) (*Config, error) {
	if !state.ValidName(name) {
		return nil, notFound()
	}
	if id := e.holder(name); id != "" {
		return e.found(id)
	}
	if len(name) == 64 {
		return e.found(name)
	}
	ids, err := e.ids()
	if err != nil {
		return nil, err
	}
	var match string
	for _, id := range ids {
		if !strings.HasPrefix(id, name) {
			continue
		}
		if match != "" {
			return nil, ErrAmbiguous
		}
		match = id
	}
	if match == "" {
		return nil, notFound()
	}
	return e.found(match)
}

func (e *Engine) found(id string) (*Config, error) {
	c, err := e.read(id)
	if errors.Is(err, ErrNotFound) {
		return nil, notFound()
	}
	var damaged *DamagedError
	if errors.As(err, &damaged) {
		return nil, ui.Hint(err, "kist rm -f %s", shortID(id))
	}
	return c, err
}

func notFound() error { return ui.Hint(ErrNotFound, "kist ps -a") }

// ids lists the containers' directories.
func (e *Engine) ids() ([]string, error) {
	d, err := os.Open(e.dataDir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(names, func(n string) bool { return len(n) != 64 }), nil
}

// all reads every container, on all CPUs: a listing of ten thousand is bound by
// opening and parsing files.
func (e *Engine) all() ([]*Config, error) {
	ids, err := e.ids()
	if err != nil {
		return nil, err
	}
	list := make([]*Config, len(ids))
	onAllCPUs(len(ids), func(i int) {
		c, err := e.read(ids[i])
		if err != nil {
			e.warnDamaged(err)
			return
		}
		list[i] = c
	})
	list = slices.DeleteFunc(list, func(c *Config) bool { return c == nil })
	slices.SortFunc(list, func(a, b *Config) int { return b.Created.Compare(a.Created) })
	return list, nil
}

// onAllCPUs calls f for each number below n.
func onAllCPUs(n int, f func(i int)) {
	var wg sync.WaitGroup
	workers := runtime.GOMAXPROCS(0)
	for w := range workers {
		wg.Go(func() {
			for i := w; i < n; i += workers {
				f(i)
			}
		})
	}
	wg.Wait()
}

// write stores the configuration.
func (e *Engine) write(c *Config) error {
	if c.AutoRemove {
		// A reboot ends it for good: see unmade.
		return state.WriteVolatileJSON(e.dataDir(c.ID, configFile), c)
	}
	return state.WriteJSON(e.dataDir(c.ID, configFile), c)
}

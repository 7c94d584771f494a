package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/kist-containers/kist/internal/state"
	"github.com/kist-containers/kist/internal/sys"
)

// Check looks for what crashes left and returns a line for each: runs whose
// monitor was killed, run directories of containers that are gone, half-made and
// half-removed containers, names that lead nowhere, and sandboxes that nobody has.
// repair heals them.
func (e *Engine) Check(ctx context.Context, repair bool) ([]string, error) {
	found, err := e.checkRuns(ctx, repair)
	litter, errLitter := e.checkLitter(repair)
	sandboxes, errNet := e.Networks.Check(ctx, repair)
	return slices.Concat(found, litter, sandboxes), errors.Join(err, errLitter, errNet)
}

func (e *Engine) checkRuns(ctx context.Context, repair bool) ([]string, error) {
	entries, err := os.ReadDir(e.runDir())
	if err != nil {
		return nil, ignoreMissing(err)
	}
	var found []string
	var errs []error
	for _, entry := range entries {
		id := entry.Name()
		if state.IsLitter(id) {
			continue
		}
		lock, err := state.TryLock(e.Roots.Lock("container-" + id))
		if err != nil {
			continue // a command is at it
		}
		lock.Unlock()
		f := e.facts(id)
		if f.MonitorAlive {
			continue
		}
		c, err := e.read(id)
		gone := errors.Is(err, ErrNotFound)
		if gone {
			c = &Config{ID: id, AutoRemove: true}
		}
		switch {
		case f.InitAlive && !gone:
			found = append(found, fmt.Sprintf("container %s: its monitor was killed; stop and start it to get one", shortID(id)))
			continue
		case f.InitAlive:
			found = append(found, fmt.Sprintf("container %s: removed, but its process %d runs", shortID(id), f.State.Pid))
		default:
			found = append(found, fmt.Sprintf("container %s: what its last run made is still there", shortID(id)))
		}
		if repair {
			errs = append(errs, e.heal(ctx, c, gone))
		}
	}
	return found, errors.Join(errs...)
}

func (e *Engine) heal(ctx context.Context, c *Config, gone bool) error {
	if !gone && e.facts(c.ID).State != nil {
		return e.reconcile(ctx, c)
	}
	lock, err := e.lock(ctx, c.ID)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	return e.cleanRun(ctx, c)
}

// checkLitter looks for what is half made or half removed.
func (e *Engine) checkLitter(repair bool) ([]string, error) {
	var found []string
	var errs []error
	dirs := []string{e.dataDir(), e.runDir(), e.runtime().Root, e.Roots.Run}
	filepath.WalkDir(filepath.Join(e.Roots.Run, "network"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	for _, dir := range dirs {
		f, err := checkTrash(dir, repair)
		found, errs = append(found, f...), append(errs, err)
	}
	f, err := e.checkHalfMade(repair)
	found, errs = append(found, f...), append(errs, err)
	f, err = e.checkMounts(repair)
	found, errs = append(found, f...), append(errs, err)
	f, err = e.checkNames(repair)
	return append(found, f...), errors.Join(append(errs, err)...)
}

// checkTrash looks for the rest of removals in dir.
func checkTrash(dir string, repair bool) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, ignoreMissing(err)
	}
	var found []string
	var errs []error
	for _, entry := range entries {
		if !state.IsLitter(entry.Name()) {
			continue
		}
		info, err := entry.Info()
		if err != nil || (!repair || info.Mode().IsRegular()) && time.Since(info.ModTime()) < time.Minute {
			continue // perhaps being removed, which two may do at once, or written
		}
		path := filepath.Join(dir, entry.Name())
		found = append(found, "rest of a removal "+path)
		if repair {
			errs = append(errs, sys.RemoveTree(path))
		}
	}
	return found, errors.Join(errs...)
}

// checkHalfMade looks for directories of containers that nobody is creating.
func (e *Engine) checkHalfMade(repair bool) ([]string, error) {
	entries, err := os.ReadDir(e.dataDir())
	if err != nil {
		return nil, ignoreMissing(err)
	}
	var found []string
	var errs []error
	for _, entry := range entries {
		id := entry.Name()
		if len(id) != 64 {
			continue
		}
		var damaged *DamagedError
		if _, err := e.read(id); errors.As(err, &damaged) {
			// Not repaired: its files may be all that somebody has.
			found = append(found, fmt.Sprintf("container %s: its record is damaged; its files are in %s, and kist rm -f %[1]s removes it", shortID(id), e.dataDir(id, upperDir)))
			continue
		}
		if e.claimed(id) {
			continue
		}
		found = append(found, "half-made container "+shortID(id))
		if repair {
			errs = append(errs, sys.RemoveTree(e.dataDir(id)))
		}
	}
	return found, errors.Join(errs...)
}

// checkNames looks for names of containers that are not there.
func (e *Engine) checkNames(repair bool) ([]string, error) {
	names, err := os.ReadDir(e.dataDir(".name"))
	if err != nil {
		return nil, ignoreMissing(err)
	}
	var found []string
	var errs []error
	for _, n := range names {
		if e.holder(n.Name()) != "" {
			continue
		}
		found = append(found, "name "+n.Name()+" of a container that is not there")
		if repair {
			errs = append(errs, os.Remove(e.nameFile(n.Name())))
		}
	}
	return found, errors.Join(errs...)
}

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// Restore starts what ran when the machine went down and what its policy brings
// back: always, and unless-stopped where no user had stopped it.
func (e *Engine) Restore(ctx context.Context) (started []string, err error) {
	list, err := e.all()
	if err != nil {
		return nil, err
	}
	var errs []error
	for i := len(list) - 1; i >= 0; i-- { // the oldest first: others may need it
		c := list[i]
		if !e.comesBack(c) {
			continue
		}
		if err := e.restoreOne(ctx, c); err != nil {
			errs = append(errs, fmt.Errorf("start %s: %w", c.Name, err))
			continue
		}
		started = append(started, c.Name)
	}
	return started, errors.Join(errs...)
}

// comesBack is the restart policy's word on a container after a boot.
func (e *Engine) comesBack(c *Config) bool {
	st := e.Status(c.ID)
	if st.Busy() || st.Word == StatusCreated {
		return false
	}
	switch c.Restart.Name {
	case "always":
		return true
	case "unless-stopped", "on-failure":
		// docker: on-failure comes back too when it ran as the machine went down.
		exit := e.facts(c.ID).Exit
		return st.Word == StatusExited && (st.FinishedAt.IsZero() || exit != nil && exit.Shutdown)
	}
	return false
}

func (e *Engine) restoreOne(ctx context.Context, c *Config) error {
	lock, err := e.lock(ctx, c.ID)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	if e.Status(c.ID).Busy() {
		return nil
	}
	return e.Start(ctx, c, nil, nil)
}

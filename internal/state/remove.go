package state

import (
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/kist-containers/kist/internal/sys"
)

// trashPrefix marks a renamed tree whose removal is under way. Names of objects
// start with a letter or a digit, so no object has it.
const trashPrefix = ".trash-"

// tempPrefix begins the name of a file that is being written.
const tempPrefix = ".tmp-"

// Discard makes path invisible by renaming it within its directory and returns
// its new place, for Purge to remove. It succeeds with "" when path is absent.
func Discard(path string) (string, error) {
	trash := filepath.Join(filepath.Dir(path), trashPrefix+rand.Text())
	err := os.Rename(path, trash)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return trash, nil
}

// Remove discards path and removes it, following no symbolic link. What is
// mounted below stays, and is an error: see sys.RemoveTree.
func Remove(path string) error {
	trash, err := Discard(path)
	if err != nil || trash == "" {
		return err
	}
	return sys.RemoveTree(trash)
}

// Purge removes the discarded trees and the temporary files that killed
// commands left in dir. The caller holds the lock under which WriteFile and
// Remove run in dir, so that it takes nothing from a living command.
func Purge(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	}
	var errs []error
	for _, e := range entries {
		if IsLitter(e.Name()) {
			errs = append(errs, sys.RemoveTree(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}

// stale is an age at which nobody still writes a temporary file.
const stale = time.Minute

// Sweep names the temporary files that killed commands left in dir, and with repair
// removes them. It needs no lock: it passes over those of the last minute.
func Sweep(dir string, repair bool) (found []string, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var errs []error
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), tempPrefix) || e.IsDir() {
			continue
		}
		if info, err := e.Info(); err != nil || time.Since(info.ModTime()) < stale {
			continue
		}
		path := filepath.Join(dir, e.Name())
		found = append(found, "temporary file "+path)
		if repair {
			errs = append(errs, os.Remove(path))
		}
	}
	return found, errors.Join(append(errs, err)...)
}

// IsLitter reports whether a directory entry is a temporary file or a discarded
// tree: something that listings pass over.
func IsLitter(name string) bool {
	return strings.HasPrefix(name, trashPrefix) || strings.HasPrefix(name, tempPrefix)
}

package state

import (
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/kist-containers/kist/internal/sys"
)

// trashPrefix marks a renamed tree whose removal is under way. Names of objects
// start with a letter or a digit, so no object has it.
const trashPrefix = ".trash-"

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

// IsLitter reports whether a directory entry is a temporary file or a discarded
// tree: something that listings pass over.
func IsLitter(name string) bool {
	return strings.HasPrefix(name, trashPrefix) || strings.HasPrefix(name, ".tmp-")
}

// Package state keeps kist's files on disk.
//
// It has the only function that writes a state file, the only lock, and the
// only way a tree is removed, so that three promises hold everywhere: a file is
// complete or absent, two commands never change one object at once, and a
// half-removed object is invisible.
//
// # Order of locks
//
// Every lock is a flock on a small file that is never renamed or removed while
// it may be held. A command that needs several takes them in this order, each
// level at most once unless noted, and holds none while it waits for a network
// peer, a user, or a container's process:
//
//  1. a container (<runroot>/lock/container-<id>); two containers: by id
//  2. a container name (<runroot>/lock/name)
//  3. the image index (<root>/image/index.lock), then a blob or layer being written
//  4. a volume (<root>/volume/.lock/<name>); several volumes: by name
//  5. a network (<root>/network/.lock/<id>); several networks: by id
//  6. the firewall (<runroot>/lock/firewall)
//  7. the copies of images with other owners (<runroot>/lock/shifted)
//  8. the host's ports (<runroot>/lock/ports)
package state

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Roots are the two trees of one kist installation. Two different pairs never
// see or disturb each other.
type Roots struct {
	// Data outlives a reboot: images, layers, containers, networks, volumes.
	Data string
	// Run is on a tmpfs and gone after a reboot, which is how a reboot is noticed.
	Run string
}

// Check refuses a root that cannot be a directory: in a file there is nothing to
// list, which would read as no containers at all.
func (r Roots) Check() error {
	for flag, dir := range map[string]string{"--root": r.Data, "--runroot": r.Run} {
		info, err := os.Stat(dir)
		if errors.Is(err, syscall.ENOTDIR) || err == nil && !info.IsDir() {
			return fmt.Errorf("%s %s: not a directory", flag, dir)
		}
	}
	return nil
}

// DefaultRoots returns /var/lib/kist and /run/kist for uid 0, and the XDG
// directories of everybody else. KIST_ROOT and KIST_RUNROOT replace either.
func DefaultRoots(uid int, getenv func(string) string) Roots {
	r := Roots{Data: "/var/lib/kist", Run: "/run/kist"}
	if uid != 0 {
		data := getenv("XDG_DATA_HOME")
		if data == "" {
			data = filepath.Join(getenv("HOME"), ".local/share")
		}
		run := getenv("XDG_RUNTIME_DIR")
		if run == "" {
			run = fmt.Sprintf("/tmp/kist-run-%d", uid)
		}
		r = Roots{Data: filepath.Join(data, "kist"), Run: filepath.Join(run, "kist")}
	}
	if d := getenv("KIST_ROOT"); d != "" {
		r.Data = d
	}
	if d := getenv("KIST_RUNROOT"); d != "" {
		r.Run = d
	}
	return r
}

// Dirs makes both trees' top directories: mode 0700, or 0711 where a mapped
// user must pass through to reach its own root file system.
func (r Roots) Dirs(mode os.FileMode) error {
	for _, d := range []string{r.Data, r.Run} {
		if !filepath.IsAbs(d) {
			return fmt.Errorf("root %q: not an absolute path", d)
		}
		if err := os.MkdirAll(d, mode); err != nil {
			return err
		}
	}
	return nil
}

// Lock returns the path of the lock file name in the volatile tree.
func (r Roots) Lock(name string) string { return filepath.Join(r.Run, "lock", name) }

// ValidName reports whether s may name an object and so a path element:
// [a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}.
func ValidName(s string) bool {
	if len(s) == 0 || len(s) > 128 || !alnum(s[0]) {
		return false
	}
	return strings.IndexFunc(s, func(r rune) bool {
		return r > 127 || !(alnum(byte(r)) || r == '_' || r == '.' || r == '-')
	}) < 0
}

func alnum(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

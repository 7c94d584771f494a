package runtime

import (
	"errors"
	"fmt"
	"os"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/sys"
)

// openSources opens what init could not: in a user namespace of its own it is
// nobody to the host, so a directory above the root file system or above a bind
// mount's source may be closed to it, and it cannot translate owners (nor can an init that runs in its own root); and a mount
// of another container's mount namespace can be copied only from there. The
// files, detached mounts, go to init, which takes them with take.
func openSources(spec *specs.Spec, rec *record, m *setup) (files []*os.File, err error) {
	defer func() {
		if err != nil {
			closeAll(files)
		}
	}()
	inUser := namespace(spec, specs.UserNamespace) != nil
	if inUser {
		root, err := sys.Clone(nil, rec.Rootfs, true, 0)
		if err != nil {
			return nil, fmt.Errorf("root file system: %w", err)
		}
		files, m.Root = append(files, root), true
	}
	for i := range spec.Mounts {
		mount := &spec.Mounts[i]
		if !isBind(mount) || !inUser && !ofOther(mount.Source) && len(mount.UIDMappings) == 0 {
			continue
		}
		f, err := openSource(spec, rec, mount)
		if err != nil {
			return files, fmt.Errorf("mount %s on %s: %w", mount.Source, mount.Destination, err)
		}
		files, m.Sources = append(files, f), append(m.Sources, i)
	}
	return files, nil
}

// ofOther reports whether path leads through another process's root.
func ofOther(path string) bool {
	rest, ok := strings.CutPrefix(path, "/proc/")
	pid, _, below := strings.Cut(rest, "/root/")
	return ok && below && strings.Trim(pid, "0123456789") == ""
}

func openSource(spec *specs.Spec, rec *record, m *specs.Mount) (*os.File, error) {
	plan, err := planOf(m.Options)
	if err != nil {
		return nil, err
	}
	var clone *os.File
	if ofOther(m.Source) {
		clone, err = cloneOfOther(m.Source, plan.recursive)
	} else {
		clone, err = sys.Clone(nil, absolute(rec.Bundle, m.Source), plan.recursive, 0)
	}
	if err != nil {
		return nil, err
	}
	if err := idmapped(clone, m, plan, spec); err != nil {
		clone.Close()
		return nil, err
	}
	return clone, nil
}

// cloneOfOther copies a mount of another process's mount namespace from within
// it. No link is followed there: the namespace is
// a container's.
func cloneOfOther(path string, recursive bool) (clone *os.File, err error) {
	rest := strings.TrimPrefix(path, "/proc/")
	pid, inside, _ := strings.Cut(rest, "/root/")
	ns, err := os.Open("/proc/" + pid + "/ns/mnt")
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	err = sys.InMounts(ns, func() error {
		at, err := openNoLinks("/" + inside)
		if err != nil {
			return err
		}
		defer at.Close()
		clone, err = sys.Clone(at, "", recursive, 0)
		return err
	})
	return clone, err
}

// take keeps what openSources sent.
func (p *initProcess) take(files []*os.File) {
	if p.Root {
		p.rootMount, files = files[0], files[1:]
	}
	p.sources = map[int]*os.File{}
	for _, i := range p.Sources {
		p.sources[i], files = files[0], files[1:]
	}
}

// attachPoints are directories that every host has and every user may enter.
// One of them gets the root file system on it, in this namespace alone, until
// the pivot: its own path may be closed to root of a user namespace.
var attachPoints = [...]string{"/mnt", "/etc", "/tmp"}

// openGiven attaches the root file system that the parent has opened.
func (p *initProcess) openGiven() (*os.File, error) {
	var errs error
	for _, path := range attachPoints {
		at, err := os.OpenFile(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = sys.Attach(p.rootMount, at)
			at.Close()
		}
		if err == nil {
			return p.rootMount, nil
		}
		errs = errors.Join(errs, err)
	}
	return nil, fmt.Errorf("root file system: %w", errs)
}

package container

import (
	"archive/tar"
	"io"
	"path"
	"strings"

	"github.com/kist-containers/kist/image"
)

// mountPoints are what kist makes in a root file system to mount its own things
// on. docker has them in a layer of their own below the writable one, so that
// neither diff nor commit shows them.
func mountPoint(p string) bool {
	switch strings.Trim(p, "/") {
	case "dev", "proc", "sys", "dev/console", "dev/pts", "dev/shm", "dev/mqueue",
		"etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab", "run/.containerenv", ".dockerenv":
		return true
	}
	return false
}

// withoutMountPoints drops what kist made, and directories that changed only
// thereby.
func withoutMountPoints(changes []image.Change) []image.Change {
	holds := map[string]int{} // a directory's changes that stay
	made := map[string]bool{} // a directory that holds what kist made
	for _, c := range changes {
		dir := path.Dir(c.Path)
		if mountPoint(c.Path) && c.Kind != "D" {
			made[dir] = true
			continue
		}
		for ; dir != "/" && dir != "."; dir = path.Dir(dir) {
			holds[dir]++
		}
	}
	var kept []image.Change
	for _, c := range changes {
		if c.Kind != "D" && (mountPoint(c.Path) || made[c.Path] && holds[c.Path] == 0) {
			continue
		}
		kept = append(kept, c)
	}
	return kept
}

// copyWithoutMountPoints copies a layer archive but for what kist made.
func copyWithoutMountPoints(w io.Writer, r io.Reader) error {
	in, out := tar.NewReader(r), tar.NewWriter(w)
	var etc *tar.Header // written only when something follows in it
	for {
		h, err := in.Next()
		if err == io.EOF {
			return out.Close()
		}
		if err != nil {
			return err
		}
		name := strings.Trim(h.Name, "/")
		if mountPoint(name) && h.Size == 0 {
			continue
		}
		if h.Typeflag == tar.TypeDir && (name == "etc" || name == "run") {
			etc = h
			continue
		}
		if etc != nil && strings.HasPrefix(name, strings.Trim(etc.Name, "/")+"/") {
			if err := out.WriteHeader(etc); err != nil {
				return err
			}
			etc = nil
		}
		if err := out.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.Copy(out, in); err != nil {
			return err
		}
	}
}

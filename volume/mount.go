// Package volume keeps named directories that outlive containers, and reads what
// the user writes of mounts. It knows nothing of containers.
//
// A volume is <root>/volume/<name>/: volume.json, its record, and _data, what
// containers see. The directory is built beside and renamed, so a volume is
// complete or absent. What a driver mounts is noted in <runroot>/volume/<name>
// before it is mounted, with those who asked for it, and unmounted with the last.
package volume

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kist-containers/kist/internal/ui"
)

// Kinds of mounts.
const (
	TypeBind   = "bind"
	TypeVolume = "volume"
	TypeTmpfs  = "tmpfs"
	TypeImage  = "image"
	TypeDevpts = "devpts"
)

// A Mount is one wish of -v, --mount or --tmpfs.
type Mount struct {
	// Type is bind, volume, tmpfs, image or devpts.
	Type string `json:"type"`
	// Source is a host path, a volume's name ("" for an anonymous one), an image,
	// or "".
	Source string `json:"source,omitempty"`
	// ImageID is the image that Source stood for at the container's creation.
	ImageID string `json:"imageID,omitempty"`
	// Target is absolute, in the container.
	Target   string `json:"target"`
	ReadOnly bool   `json:"readOnly,omitempty"`
	// Propagation is one of private, slave, shared and their r- forms; "" is rprivate.
	Propagation string `json:"propagation,omitempty"`
	// NonRecursive binds the directory without what is mounted below it.
	NonRecursive bool `json:"nonRecursive,omitempty"`
	// WritableBelow leaves what is mounted below a read-only bind writable.
	WritableBelow bool `json:"writableBelow,omitempty"`
	// CreateSource makes a missing host directory, as -v does.
	CreateSource bool `json:"createSource,omitempty"`
	// NoCopy leaves a new volume empty.
	NoCopy bool `json:"noCopy,omitempty"`
	// NoCreate refuses a volume that is not there.
	NoCreate bool `json:"noCreate,omitempty"`
	// Anonymous says that Source is a name made up for this container: the volume
	// goes with it.
	Anonymous bool `json:"anonymous,omitempty"`
	// Overlay shows the source below an overlay that is thrown away with the run.
	Overlay bool `json:"overlay,omitempty"`
	// Chown gives the source, and all in it, to the container's user.
	Chown bool `json:"chown,omitempty"`
	// Driver and DriverOpts make a missing volume.
	Driver     string            `json:"driver,omitempty"`
	DriverOpts map[string]string `json:"driverOpts,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
	// Subpath is a directory or file in the volume or image.
	Subpath string `json:"subpath,omitempty"`
	// IDMap translates the owners seen through the mount: by UIDs and GIDs, or by
	// the container's user namespace where those are empty.
	IDMap bool      `json:"idmap,omitempty"`
	UIDs  []IDRange `json:"uids,omitempty"`
	GIDs  []IDRange `json:"gids,omitempty"`
	// Size bounds a tmpfs in bytes, 0 for no bound; Mode is its mode, 0 for 1777.
	Size int64  `json:"size,omitempty"`
	Mode uint32 `json:"mode,omitempty"`
	// Options are further mount options: nosuid, uid=5.
	Options []string `json:"options,omitempty"`
}

var propagations = []string{"private", "rprivate", "slave", "rslave", "shared", "rshared"}

// attributes are mount options that any kind of mount takes.
var attributes = []string{"exec", "noexec", "suid", "nosuid", "dev", "nodev", "noatime", "relatime", "strictatime", "nodiratime"}

// target checks a path of the container.
func target(path string) (string, error) {
	switch {
	case path == "":
		return "", errors.New("no path in the container is given")
	case !filepath.IsAbs(path):
		return "", fmt.Errorf("%q: the path in the container must be absolute", path)
	case strings.ContainsRune(path, 0):
		return "", fmt.Errorf("%q: not a path", path)
	}
	clean := filepath.Clean(path)
	if clean == "/" {
		return "", errors.New("a mount cannot replace the container's root (/)")
	}
	return clean, nil
}

// absolute is a host path, relative ones to cwd.
func absolute(path, cwd string) string {
	if !filepath.IsAbs(path) {
		path = filepath.Join(cwd, path)
	}
	return filepath.Clean(path)
}

// hostPath checks a host path as the user wrote it.
func hostPath(path, cwd string) (string, error) {
	switch {
	case strings.HasPrefix(path, "~"):
		return "", ui.Hint(fmt.Errorf("%q: ~ is the shell's, and it was not expanded here", path), `write "$HOME" instead of ~`)
	case strings.ContainsRune(path, 0):
		return "", fmt.Errorf("%q: not a path", path)
	}
	return absolute(path, cwd), nil
}

// subpath checks a path in a volume or image.
func subpath(path string) (string, error) {
	if path == "" || filepath.IsAbs(path) || !filepath.IsLocal(path) || strings.ContainsRune(path, 0) {
		return "", fmt.Errorf("subpath %q: want a relative path that stays inside", path)
	}
	return filepath.Clean(path), nil
}

// Sort puts mounts into the order of their paths, so that one below another
// comes after it, and refuses two on one path.
func Sort(mounts []Mount) error {
	slices.SortStableFunc(mounts, func(a, b Mount) int {
		return strings.Compare(a.Target+"/", b.Target+"/")
	})
	for i := 1; i < len(mounts); i++ {
		if mounts[i].Target == mounts[i-1].Target {
			return fmt.Errorf("mount %s: two mounts on one path", mounts[i].Target)
		}
	}
	return nil
}

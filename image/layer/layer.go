// Package layer turns layer archives into directories that overlay can use as
// they are, and back: it unpacks, lists changes, and packs.
//
// Everything in an archive is hostile. Unpacking works on descriptors below the
// directory it was given: each parent is looked up with openat2(2) so that no
// link and no ".." leaves that directory, and new names are only ever created,
// never opened through.
package layer

import (
	"errors"
	"strings"
)

// Whiteouts in an archive; see the OCI image specification, layer.md.
const (
	whiteoutPrefix = ".wh."
	opaqueMarker   = ".wh..wh..opq"
	// aufsPrefix marks aufs's own bookkeeping, which no reader keeps.
	aufsPrefix = ".wh..wh."
)

// maxEntries bounds the entries of one layer. The largest images known have
// about a million.
const maxEntries = 8 << 20

// ErrTooLarge says that a layer holds more than was allowed.
var ErrTooLarge = errors.New("layer is larger than allowed")

// xattrs returns the name of overlay's attribute: trusted.overlay.opaque, or
// user.overlay.opaque where the mount has userxattr.
func overlayXattr(rootless bool, name string) string {
	if rootless {
		return "user.overlay." + name
	}
	return "trusted.overlay." + name
}

// keptXattr reports whether an attribute of an archive may reach the disk.
// Overlay's own would forge whiteouts and redirects.
func keptXattr(name string) bool {
	return !strings.HasPrefix(name, "trusted.overlay.") && !strings.HasPrefix(name, "user.overlay.")
}

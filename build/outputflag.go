package build

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/kist-containers/kist/image"
	"github.com/kist-containers/kist/internal/ui"
)

// An output is one --output.
type output struct {
	kind, dest string
	push       bool
	// names are given to the result besides those of --tag.
	names []string
	// dir writes an OCI layout as a directory, not as an archive.
	dir bool
}

func (o output) String() string { return o.kind }

func parseOutput(s string) (output, error) {
	if s == "-" {
		return output{kind: "tar", dest: "-"}, nil
	}
	if !strings.Contains(s, "=") {
		return output{kind: "local", dest: s}, nil
	}
	var o output
	for kv := range strings.SplitSeq(s, ",") {
		k, v, _ := strings.Cut(kv, "=")
		switch k {
		case "type":
			o.kind = v
		case "dest":
			o.dest = v
		case "push":
			o.push = v == "" || v == "true"
		case "name":
			o.names = append(o.names, v)
		case "tar":
			o.dir = v == "false"
		case "compression", "oci-mediatypes", "rewrite-timestamp", "unpack", "store":
			if want := asIs()[k]; v != "" && v != want {
				return o, fmt.Errorf("--output %s: kist has %s=%s only", s, k, want)
			}
		default:
			return o, fmt.Errorf("--output %s: no such key %q", s, k)
		}
	}
	for _, n := range o.names {
		if _, err := image.ParseReference(n); err != nil {
			return o, fmt.Errorf("--output %s: %w", s, err)
		}
	}
	if o.dir && (o.kind != "oci" || o.dest == "") {
		return o, fmt.Errorf("--output %s: tar=false goes with type=oci,dest=DIR", s)
	}
	switch o.kind {
	case "image", "docker", "oci", "registry":
	case "local", "tar":
		if o.dest == "" {
			return o, fmt.Errorf("--output %s: wants dest=PATH", s)
		}
	default:
		return o, fmt.Errorf("--output %s: type is image, docker, oci, local, tar or registry", s)
	}
	return o, nil
}

// asIs are BuildKit's keys for which kist has one answer: OCI types, the store's
// own layers, and with SOURCE_DATE_EPOCH all times.
func asIs() map[string]string {
	return map[string]string{"compression": "gzip", "oci-mediatypes": "true", "rewrite-timestamp": "true", "unpack": "true", "store": "true"}
}

// create opens the file that an output goes to, "-" for standard output.
func (o output) create(out *ui.Output) (io.WriteCloser, error) {
	if o.dest == "-" || o.dest == "" {
		if ui.IsTerminal(out.Out) {
			return nil, errors.New("standard output is a terminal: give dest=FILE")
		}
		return nopCloser{out.Out}, nil
	}
	return os.OpenFile(filepath.Clean(o.dest), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

package image

import (
	"fmt"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// DefaultHost serves the names that have no registry host.
const DefaultHost = "docker.io"

// A Reference names an image in a registry: HOST/PATH[:TAG][@DIGEST], every
// part in its full form.
type Reference struct {
	Host, Path string
	// Tag and Digest are "" where none was given.
	Tag, Digest string
}

// maxName is the longest HOST/PATH that docker takes.
const maxName = 255

// ParseReference reads a reference as docker does: without a host it is
// docker.io's, there a single name is library/NAME. It adds no tag.
func ParseReference(s string) (Reference, error) {
	r, why := parseReference(s)
	if why != "" {
		return Reference{}, fmt.Errorf("%w %.300q: %s", ErrInvalid, s, why)
	}
	return r, nil
}

func parseReference(s string) (r Reference, why string) {
	rest, digest, hasDigest := strings.Cut(s, "@")
	if hasDigest {
		if _, err := v1.NewHash(digest); err != nil {
			return r, "the digest is not sha256: and 64 hexadecimal digits"
		}
		r.Digest = digest
	}
	if i := strings.LastIndexByte(rest, ':'); i > strings.LastIndexByte(rest, '/') {
		rest, r.Tag = rest[:i], rest[i+1:]
		if !validTag(r.Tag) {
			return r, "the tag is not [A-Za-z0-9_][A-Za-z0-9._-]*, at most 128 long"
		}
	}
	r.Host, r.Path = splitHost(rest)
	switch {
	case r.Path == "":
		return r, "there is no name"
	case strings.ToLower(r.Path) != r.Path:
		return r, "the name must be lower case"
	case !validPath(r.Path):
		return r, "the name is not made of lower-case letters, digits and single separators"
	case !validHost(r.Host):
		return r, "the registry host is malformed"
	case len(r.Host)+1+len(r.Path) > maxName:
		return r, "the name is longer than 255 bytes"
	case len(rest) == 64 && isHex(rest):
		return r, "64 hexadecimal digits are an image's ID, not a name"
	}
	return r, ""
}

// splitHost tells a host from the first part of a path: it has a dot or a
// colon, or an upper-case letter, or is localhost.
func splitHost(s string) (host, path string) {
	first, rest, found := strings.Cut(s, "/")
	if !found || !strings.ContainsAny(first, ".:") && first != "localhost" && strings.ToLower(first) == first {
		host, path = DefaultHost, s
	} else {
		host, path = first, rest
	}
	if host == "index.docker.io" || host == "registry-1.docker.io" {
		host = DefaultHost
	}
	if host == DefaultHost && path != "" && !strings.Contains(path, "/") {
		path = "library/" + path
	}
	return host, path
}

// Name is HOST/PATH.
func (r Reference) Name() string { return r.Host + "/" + r.Path }

// String is the full form of the reference.
func (r Reference) String() string {
	s := r.Name()
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + r.Digest
	}
	return s
}

// FamiliarName is Name as docker shows it: without docker.io and library.
func (r Reference) FamiliarName() string {
	if r.Host != DefaultHost {
		return r.Name()
	}
	if short, ok := strings.CutPrefix(r.Path, "library/"); ok && !strings.Contains(short, "/") {
		return short
	}
	return r.Path
}

// Familiar is the reference as docker shows it.
func (r Reference) Familiar() string {
	return r.FamiliarName() + strings.TrimPrefix(r.String(), r.Name())
}

// Tagged is r with the tag latest when it has neither tag nor digest.
func (r Reference) Tagged() Reference {
	if r.Tag == "" && r.Digest == "" {
		r.Tag = "latest"
	}
	return r
}

// identifier is what a registry is asked for: the digest, else the tag.
func (r Reference) identifier() string {
	if r.Digest != "" {
		return r.Digest
	}
	return r.Tagged().Tag
}

func isHex(s string) bool { return strings.Trim(s, "0123456789abcdef") == "" }

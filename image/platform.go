package image

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kist-containers/kist/image/registry"
)

// ParsePlatform reads os[/arch[/variant]]; "" is this machine's.
func ParsePlatform(s string) (v1.Platform, error) {
	p := v1.Platform{OS: "linux", Architecture: runtime.GOARCH}
	if s == "" {
		return p, nil
	}
	parts := strings.Split(strings.ToLower(s), "/")
	if len(parts) > 3 || slices.Contains(parts, "") {
		return p, fmt.Errorf("platform %q: want os/arch or os/arch/variant", s)
	}
	if len(parts) == 1 {
		if slices.Contains([]string{"linux", "windows", "darwin", "freebsd"}, parts[0]) {
			p.OS = parts[0]
			return p, nil
		}
		parts = []string{"linux", parts[0]}
	}
	p.OS, p.Architecture = parts[0], parts[1]
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	return normalize(p), nil
}

// normalize replaces the names that uname and others use.
func normalize(p v1.Platform) v1.Platform {
	switch p.Architecture {
	case "x86_64", "x86-64":
		p.Architecture = "amd64"
	case "aarch64":
		p.Architecture = "arm64"
	case "i386", "i686":
		p.Architecture = "386"
	case "armhf":
		p.Architecture, p.Variant = "arm", "v7"
	case "armel":
		p.Architecture, p.Variant = "arm", "v6"
	}
	if p.Variant == defaultVariant(p.Architecture) {
		p.Variant = ""
	}
	return p
}

func defaultVariant(arch string) string {
	return map[string]string{"amd64": "v1", "arm64": "v8", "arm": "v7"}[arch]
}

// variants are those that a machine of variant v runs, best first.
func variants(arch, v string) []string {
	all := map[string][]string{
		"arm": {"v8", "v7", "v6", "v5"}, "amd64": {"v4", "v3", "v2", "v1"},
	}[arch]
	if v == "" {
		v = defaultVariant(arch)
	}
	if i := slices.Index(all, v); i >= 0 {
		return all[i:]
	}
	return []string{v}
}

// matchesPlatform reports whether an image for have is the one that is wanted.
// A variant counts only where one was asked for.
func matchesPlatform(have, want v1.Platform) bool {
	have = normalize(have)
	return have.OS == want.OS && have.Architecture == want.Architecture && (want.Variant == "" || have.Variant == want.Variant)
}

// checkPlatform refuses an image that is not for the platform asked for; ""
// takes any, and so does an image that says nothing.
func checkPlatform(cfg *v1.ConfigFile, platform string) error {
	if platform == "" || cfg.OS == "" && cfg.Architecture == "" {
		return nil
	}
	want, err := ParsePlatform(platform)
	if err != nil || matchesPlatform(*cfg.Platform(), want) {
		return err
	}
	return fmt.Errorf("the image is for %s, not %s", cfg.Platform(), want)
}

// choose picks the manifest of an index for platform p: the best variant that
// the machine runs, and the first of equals. Attestations are no images.
func choose(manifests []v1.Descriptor, p v1.Platform) (v1.Descriptor, error) {
	for _, variant := range variants(p.Architecture, p.Variant) {
		for _, d := range manifests {
			if d.Annotations["vnd.docker.reference.type"] != "" || d.Platform == nil {
				continue
			}
			q := normalize(*d.Platform)
			have := q.Variant
			if have == "" {
				have = defaultVariant(q.Architecture)
			}
			if q.OS == p.OS && q.Architecture == p.Architecture && have == variant {
				return d, nil
			}
		}
	}
	// An index that tells no platforms of its single image means that one.
	if len(manifests) == 1 && manifests[0].Platform == nil {
		return manifests[0], nil
	}
	return v1.Descriptor{}, fmt.Errorf("no image for %s (there are %s)", p, strings.Join(platforms(manifests), ", "))
}

// Platforms lists those that ref is there for: by its list in the store, by what
// its registry says, or as the one of an image that is no list. config nil is the
// machine's.
func (s *Store) Platforms(ctx context.Context, ref string, config *registry.Config) ([]v1.Platform, error) {
	if config == nil {
		config = defaultConfig()
	}
	data, d, err := s.document(ctx, config, ref)
	if err != nil {
		return nil, err
	}
	if !d.MediaType.IsIndex() {
		img, err := s.Ensure(ctx, ref, PullMissing, PullOptions{Registry: config})
		if err != nil {
			return nil, err
		}
		return []v1.Platform{*img.Config.Platform()}, nil
	}
	im, err := parseIndex(data, d.MediaType)
	if err != nil {
		return nil, err
	}
	var all []v1.Platform
	for _, m := range im.Manifests {
		if m.Platform != nil && m.Platform.OS != "unknown" {
			all = append(all, normalize(*m.Platform))
		}
	}
	return all, nil
}

func platforms(manifests []v1.Descriptor) []string {
	var have []string
	for _, d := range manifests {
		if d.Platform != nil && d.Platform.OS != "unknown" {
			have = append(have, d.Platform.String())
		}
	}
	return have
}

package build

import (
	"fmt"
	"runtime"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// parsePlatform reads os[/arch[/variant]] and normalises it as containerd does:
// x86_64 is amd64, aarch64 is arm64, arm means arm/v7.
func parsePlatform(s string) (v1.Platform, error) {
	parts := strings.Split(strings.ToLower(s), "/")
	if s == "local" || s == "" {
		return hostPlatform(), nil
	}
	if len(parts) == 1 && slices.Contains(architectures(), normalArch(parts[0])) {
		parts = append([]string{runtime.GOOS}, parts...)
	}
	if len(parts) > 3 || slices.Contains(parts, "") {
		return v1.Platform{}, fmt.Errorf("platform %q: want os[/arch[/variant]]", s)
	}
	p := v1.Platform{OS: parts[0], Architecture: runtime.GOARCH}
	if len(parts) > 1 {
		p.Architecture = normalArch(parts[1])
	}
	if len(parts) > 2 {
		p.Variant = parts[2]
	}
	switch {
	case p.OS != "linux":
		return p, fmt.Errorf("platform %q: kist builds for linux", s)
	case p.Architecture == "arm" && p.Variant == "":
		p.Variant = "v7"
	case p.Architecture == "arm64" && (p.Variant == "v8" || p.Variant == "8"):
		p.Variant = ""
	}
	return p, nil
}

func normalArch(arch string) string {
	switch arch {
	case "x86_64", "x86-64":
		return "amd64"
	case "aarch64":
		return "arm64"
	case "i386", "i686":
		return "386"
	case "armhf":
		return "arm"
	}
	return arch
}

func architectures() []string {
	return []string{"amd64", "arm64", "arm", "386", "ppc64le", "s390x", "riscv64", "loong64", "mips64le"}
}

func hostPlatform() v1.Platform { return v1.Platform{OS: "linux", Architecture: runtime.GOARCH} }

func platformName(p v1.Platform) string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

// platformArgs are the automatic arguments of the global scope.
func platformArgs(target v1.Platform, stage string) []variable {
	if stage == "" {
		stage = "default"
	}
	host := hostPlatform()
	return []variable{
		{"BUILDPLATFORM", platformName(host)}, {"BUILDOS", host.OS}, {"BUILDARCH", host.Architecture}, {"BUILDVARIANT", host.Variant},
		{"TARGETPLATFORM", platformName(target)}, {"TARGETOS", target.OS}, {"TARGETARCH", target.Architecture}, {"TARGETVARIANT", target.Variant},
		{"TARGETSTAGE", stage},
	}
}

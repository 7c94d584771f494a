package image

import (
	"strings"
	"testing"
)

func TestParseReference(t *testing.T) {
	digest := "sha256:" + strings.Repeat("a", 64)
	for in, want := range map[string]string{
		"busybox": "docker.io/library/busybox", "busybox:1": "docker.io/library/busybox:1",
		"user/app": "docker.io/user/app", "docker.io/busybox": "docker.io/library/busybox",
		"index.docker.io/a/b": "docker.io/a/b", "localhost/x": "localhost/x", "localhost:5000/x:y": "localhost:5000/x:y",
		"quay.io/a/b@" + digest: "quay.io/a/b@" + digest, "a:1@" + digest: "docker.io/library/a:1@" + digest,
		"[::1]:5000/a": "[::1]:5000/a", "a__b/c-.d": "", "a..b": "", "a_b.c--d": "docker.io/library/a_b.c--d", "Host/x": "Host/x",
		"a/b/c/d": "docker.io/a/b/c/d",
		"":        "", "A": "", "a:": "", "a:b c": "", "a@sha256:1": "", "a@md5:" + strings.Repeat("a", 32): "", "-a": "", "a/": "", "/a": "",
		"a//b": "", "a b": "", "a\n": "", "../a": "", "http://a/b": "", strings.Repeat("a", 64): "", "a:" + strings.Repeat("t", 129): "",
		strings.Repeat("a", 256): "", "x.y:port/a": "", "é": "",
	} {
		r, err := ParseReference(in)
		switch {
		case want == "" && err == nil:
			t.Errorf("ParseReference(%q) = %q, want an error", in, r)
		case want != "" && (err != nil || r.String() != want):
			t.Errorf("ParseReference(%q) = %q, %v; want %q", in, r, err, want)
		}
	}
	for in, want := range map[string]string{
		"docker.io/library/busybox:1": "busybox:1", "docker.io/user/app": "user/app", "quay.io/a/b": "quay.io/a/b",
		"docker.io/library/a/b": "library/a/b",
	} {
		if r, err := ParseReference(in); err != nil || r.Familiar() != want {
			t.Errorf("Familiar(%q) = %q, %v; want %q", in, r.Familiar(), err, want)
		}
	}
}

func TestPlatformChoice(t *testing.T) {
	for in, want := range map[string]string{
		"linux/amd64": "linux/amd64", "linux/x86_64": "linux/amd64", "linux/arm64/v8": "linux/arm64", "arm64/v8": "arm64/v8",
		"linux/arm/v6": "linux/arm/v6", "linux/armhf": "linux/arm", "aarch64": "linux/arm64", "windows/amd64": "windows/amd64",
	} {
		if p, err := ParsePlatform(in); err != nil || p.String() != want {
			t.Errorf("ParsePlatform(%q) = %q, %v; want %q", in, p, err, want)
		}
	}
	for _, bad := range []string{"linux/", "/", "a/b/c/d", "linux//v7"} {
		if p, err := ParsePlatform(bad); err == nil {
			t.Errorf("ParsePlatform(%q) = %q, want an error", bad, p)
		}
	}
}

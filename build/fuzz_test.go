package build

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// FuzzDockerfile holds that no text makes the parser, the planner or the
// expansion of words panic, and that errors name a line that exists.
func FuzzDockerfile(f *testing.F) {
	for _, path := range cases(f) {
		data, err := os.ReadFile(path)
		must(f, err)
		f.Add(bytes.TrimPrefix(data, []byte("-- Dockerfile --\n")))
	}
	f.Add([]byte("FROM a AS a\nFROM a\nCOPY --from=1 x y\nRUN <<E\n"))
	f.Add([]byte("# escape=`\n# check=skip=all;error=true\nARG A=${B:-${C}}\nFROM $A\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := ParseDockerfile("Dockerfile", data, "")
		if err != nil {
			return
		}
		d.lintStages()
		p, err := newPlan(d, "", v1.Platform{OS: "linux", Architecture: "amd64"}, map[string]string{"A": "1"}, nil)
		if err != nil {
			return
		}
		j := &job{plan: p, req: &Request{}}
		j.lintWords()
		p.unused()
	})
}

// FuzzIgnore holds that no ignore file panics, and that what it prunes it also
// excludes.
func FuzzIgnore(f *testing.F) {
	f.Add("*.log\n!keep\n", "a/b.log")
	f.Add("**/x\n!a/**\n[", "a/x")
	f.Fuzz(func(t *testing.T, text, name string) {
		i, err := parseIgnore("ignore", []byte(text))
		if err != nil || i == nil {
			return
		}
		if i.excludes(name) {
			i.prunes(name)
		}
	})
}

// FuzzUntar holds that no archive writes outside the directory it is unpacked in.
func FuzzUntar(f *testing.F) {
	f.Add([]byte(archiveOf(f, false, []string{"../../x:1", "a/b:2"})))
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "l", Linkname: "../.."})
	w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "l/outside", Size: 1})
	w.Write([]byte("x"))
	w.WriteHeader(&tar.Header{Typeflag: tar.TypeLink, Name: "h", Linkname: "../../etc/passwd"})
	w.Close()
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		top := t.TempDir()
		inside := filepath.Join(top, "in")
		must(t, os.Mkdir(inside, 0o755))
		root, err := os.Open(inside)
		must(t, err)
		defer root.Close()
		tr := &tree{root: root}
		defer tr.forget()
		x := untar{t: tr, dest: "/", flat: true, limit: 1 << 20}
		if x.all(tar.NewReader(bytes.NewReader(data))) == nil {
			tr.close()
		}
		entries, err := os.ReadDir(top)
		must(t, err)
		if len(entries) != 1 {
			t.Errorf("beside the root there is %v", entries)
		}
	})
}

func TestParseChmod(t *testing.T) {
	for _, c := range []struct {
		spec      string
		mode      uint32
		dir       bool
		want      uint32
		malformed bool
	}{
		{spec: "755", mode: 0o600, want: 0o755},
		{spec: "0", mode: 0o600, want: 0},
		{spec: "u+x", mode: 0o644, want: 0o744},
		{spec: "a=rX", mode: 0o644, want: 0o444},
		{spec: "a=rX", mode: 0o755, want: 0o555},
		{spec: "u=rwX,go=rX", mode: 0o600, dir: true, want: 0o755},
		{spec: "go-rwx", mode: 0o777, want: 0o700},
		{spec: "+t", mode: 0o777, want: 0o1777},
		{spec: "u+s", mode: 0o755, want: 0o4755},
		{spec: "g+w-x", mode: 0o755, want: 0o765},
		{spec: "999", malformed: true}, {spec: "17777", malformed: true}, {spec: "u", malformed: true},
		{spec: "u+q", malformed: true}, {spec: "u+x,", malformed: true},
	} {
		change, err := parseChmod(c.spec)
		if (err != nil) != c.malformed {
			t.Errorf("parseChmod(%q): %v", c.spec, err)
			continue
		}
		if err == nil && change(c.mode, c.dir) != c.want {
			t.Errorf("%s of %o is %o, want %o", c.spec, c.mode, change(c.mode, c.dir), c.want)
		}
	}
}

func TestParsePlatform(t *testing.T) {
	for in, want := range map[string]string{"linux/amd64": "linux/amd64", "linux/x86_64": "linux/amd64", "linux/aarch64": "linux/arm64", "linux/arm": "linux/arm/v7", "linux/arm64/v8": "linux/arm64", "arm64": "linux/arm64"} {
		if p, err := parsePlatform(in); err != nil || platformName(p) != want {
			t.Errorf("parsePlatform(%q) = %s, %v; want %s", in, platformName(p), err, want)
		}
	}
	for _, bad := range []string{"linux/", "/", "a/b/c/d", "windows/amd64"} {
		if p, err := parsePlatform(bad); err == nil {
			t.Errorf("parsePlatform(%q) = %s", bad, platformName(p))
		}
	}
}

func TestCheckFindsWhatBuildKitFinds(t *testing.T) {
	for rule, text := range map[string]string{
		"StageNameCasing":                 "FROM a AS Big\n",
		"FromAsCasing":                    "FROM a as b\n",
		"NoEmptyContinuation":             "FROM a\nRUN a \\\n\n  b\n",
		"ConsistentInstructionCasing":     "FROM a\nRUN a\nrun b\n",
		"DuplicateStageName":              "FROM a AS b\nFROM a AS b\n",
		"ReservedStageName":               "FROM a AS scratch\n",
		"JSONArgsRecommended":             "FROM a\nCMD a b\n",
		"MaintainerDeprecated":            "FROM a\nMAINTAINER me\n",
		"UndefinedArgInFrom":              "FROM a$NOPE\n",
		"WorkdirRelativePath":             "FROM a\nWORKDIR b\n",
		"UndefinedVar":                    "FROM scratch\nCOPY $NOPE /a\n",
		"MultipleInstructionsDisallowed":  "FROM a\nCMD [\"a\"]\nCMD [\"b\"]\n",
		"LegacyKeyValueFormat":            "FROM a\nENV a b\n",
		"RedundantTargetPlatform":         "FROM --platform=$TARGETPLATFORM a\n",
		"SecretsUsedInArgOrEnv":           "FROM a\nARG API_TOKEN\n",
		"FromPlatformFlagConstDisallowed": "FROM --platform=linux/amd64 a\n",
		"InvalidDefaultArgInFrom":         "ARG T\nFROM a:$T\n",
		"InvalidDefinitionDescription":    "# check=experimental=all\n# wrong\nARG N=1\nFROM a\n",
		"ExposeProtoCasing":               "FROM scratch\nEXPOSE 80/TCP\n",
		"ExposeInvalidFormat":             "FROM scratch\nEXPOSE 80:80\n",
	} {
		d, err := ParseDockerfile("Dockerfile", []byte(text), "")
		must(t, err)
		d.lintStages()
		p, err := newPlan(d, "", hostPlatform(), nil, nil)
		must(t, err)
		(&job{plan: p, req: &Request{}}).lintWords()
		found := false
		for _, w := range d.Warnings {
			found = found || w.Rule == rule
		}
		if !found {
			t.Errorf("%s is not found in %q: %v", rule, text, d.Warnings)
		}
	}
	quiet, err := ParseDockerfile("Dockerfile", []byte("# check=skip=JSONArgsRecommended\nFROM a\nCMD a\n"), "")
	must(t, err)
	quiet.lintStages()
	if len(quiet.Warnings) > 0 {
		t.Errorf("skipped rules warn: %v", quiet.Warnings)
	}
}

func TestLookupUser(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "etc"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "etc/passwd"), []byte("root:x:0:0::/root:\napp:x:5:6::/h:\n7:x:99:99::/:\n"), 0o644))
	must(t, os.WriteFile(filepath.Join(dir, "etc/group"), []byte("g:x:8:other,app\n"), 0o644))
	root, err := os.Open(dir)
	must(t, err)
	defer root.Close()
	for spec, want := range map[string][2]int{"": {0, 0}, "root": {0, 0}, "app": {5, 6}, "5": {5, 6}, "7": {7, 0}, "app:g": {5, 8}, "7:9": {7, 9}, "app:9": {5, 9}} {
		id, err := lookup(root, spec, func(int) int { return 0 })
		if err != nil || id.uid != want[0] || id.gid != want[1] {
			t.Errorf("lookup(%q) = %d:%d, %v; want %v", spec, id.uid, id.gid, err, want)
		}
	}
	for _, bad := range []string{"nobody", "app:nogroup", "4294967295", "-1", "0x0", " 5"} {
		if id, err := lookup(root, bad, func(int) int { return 0 }); err == nil {
			t.Errorf("lookup(%q) = %+v", bad, id)
		}
	}
	if id, _ := lookup(root, "app", func(int) int { return 0 }); strings.TrimSpace(id.home) != "/h" || len(id.groups) != 1 || id.groups[0] != 8 {
		t.Errorf("app is %+v", id)
	}
}

package build

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A multi-stage build with a real compiler: the toolchain comes from a context
// of its own, the compiler's cache from a cache mount, and the result has
// nothing but the program.
func TestRealGoProgram(t *testing.T) {
	goroot, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Skip("needs go")
	}
	k := newKit(t)
	k.req.Contexts = map[string]string{"sdk": strings.TrimSpace(string(goroot))}
	k.file("go.mod", "module hello\n")
	k.file("main.go", "package main\n\nvar version string\n\nfunc main() { println(\"hello\", version) }\n")
	k.dockerfile(`FROM base AS build
ARG VERSION=1
WORKDIR /src
COPY go.mod *.go ./
RUN --mount=from=sdk,target=/sdk --mount=type=cache,target=/root/.cache --mount=type=tmpfs,target=/tmp \
    CGO_ENABLED=0 /sdk/bin/go build -trimpath -ldflags "-s -w -X main.version=$VERSION" -o /hello .
FROM scratch AS program
COPY --from=build /hello /hello
ENTRYPOINT ["/hello"]
FROM base
RUN --mount=from=program,target=/p /p/hello 2> /said
`)
	k.req.Target = "program"
	res, log := k.build()
	if outcome(log) != "++++" {
		t.Errorf("the program is built again\n%s", log)
	}
	if files := k.files(res); strings.Count(files, "\n") != 1 || !strings.HasPrefix(files, "hello 100755 0:0 ") {
		t.Errorf("the image holds\n%s", files)
	}
	k.req.Target, k.req.Args = "", map[string]string{"VERSION": "2"}
	k.build()
	if got := k.content("/said"); got != "hello 2\n" {
		t.Errorf("the program says %q", got)
	}
	k.nothingLeft()
}

// apt needs users, groups, set-uid programs, renames and locks to work as on a
// machine of its own. Its packages come from a repository in the context.
func TestRealAptInstall(t *testing.T) {
	k := newKit(t)
	k.debian("apt", "mawk")
	k.repository("repo", "greet", "#!/bin/sh\necho greetings from $(dpkg-query -W -f '${Package} ${Version}' greet)\n")
	const text = `FROM debian
ENV DEBIAN_FRONTEND=noninteractive
RUN --mount=target=/repo,source=repo --mount=type=cache,target=/var/cache/apt,sharing=locked <<EOF
set -e
echo 'deb [trusted=yes] file:/repo ./' > /etc/apt/sources.list
apt-get update
apt-get install -y --no-install-recommends greet
rm -rf /var/lib/apt/lists/*
EOF
RUN greet > /said && setpriv --reuid=nobody --regid=nogroup --init-groups id >> /said
`
	k.req.Tags = []string{"result"}
	k.dockerfile(text)
	want := "greetings from greet 1.0\nuid=65534(nobody) gid=65534(nogroup) groups=65534(nogroup)\n"
	if got := k.content("/said"); got != want {
		t.Errorf("the image says %q, want %q", got, want)
	}
	if _, log := k.build(); outcome(log) != "++" {
		t.Errorf("built again, its steps are %s, want ++\n%s", outcome(log), log)
	}
	k.nothingLeft()
}

func TestRealPythonProgram(t *testing.T) {
	k := newKit(t)
	k.debian("python3-minimal")
	k.file("hello.py", "import sys\nprint('hello from', sys.argv[0])\n")
	k.file("cat.py", "print('cat')\n")
	k.req.Tags = []string{"result"}
	res, _ := k.dockerfile("FROM debian\nRUN ln -s python3 /usr/bin/python\nWORKDIR /app\nCOPY ./*.py .\nENTRYPOINT [\"python\"]\nCMD [\"cat.py\"]\n")
	if cfg := string(res.Images[0].config); !strings.Contains(cfg, `"Entrypoint":["python"]`) || !strings.Contains(cfg, `"Cmd":["cat.py"]`) {
		t.Errorf("configuration %s", cfg)
	}
	k.dockerfile("FROM result\nRUN python hello.py > /said && python cat.py >> /said\n")
	if got := k.content("/said"); got != "hello from hello.py\ncat\n" {
		t.Errorf("the programs say %q", got)
	}
}

// content is a file of the image that the last build gave.
func (k *kit) content(path string) string {
	k.t.Helper()
	res, _ := k.build()
	v, err := k.b.openView(res.Images[0].layers, k.t.TempDir(), false)
	must(k.t, err)
	defer v.Close()
	data, err := (&source{name: "result", root: v.Root}).read(path, 1<<20)
	must(k.t, err)
	return string(data)
}

// debian builds the image debian of this machine's own packages: the essential
// ones, extra, and what they depend on.
func (k *kit) debian(extra ...string) {
	k.t.Helper()
	for _, prog := range []string{"dpkg-query", "dpkg-deb", "tar"} {
		if _, err := exec.LookPath(prog); err != nil {
			k.t.Skip("needs a Debian machine: no " + prog)
		}
	}
	packages := k.packages(extra)
	old := k.dir
	k.dir = k.t.TempDir()
	status := k.output("dpkg-query", append([]string{"-s"}, packages...)...)
	k.file("add/var/lib/dpkg/status", status)
	k.file("add/etc/passwd", k.output("cat", "/usr/share/base-passwd/passwd.master")+"_apt:*:42:65534::/nonexistent:/usr/sbin/nologin\n")
	k.file("add/etc/group", k.output("cat", "/usr/share/base-passwd/group.master"))
	k.file("list", strings.Join(k.packageFiles(packages), "\n")+"\n")
	k.output("tar", "-C", "/", "--no-recursion", "-cf", filepath.Join(k.dir, "root.tar"), "-T", filepath.Join(k.dir, "list"))
	k.req.Tags = []string{"debian"}
	k.dockerfile("FROM scratch\nADD root.tar /\nCOPY add /\nRUN ldconfig && mkdir -p /tmp /var/tmp /var/lib/apt/lists/partial /var/cache/apt/archives/partial && chmod 1777 /tmp /var/tmp && ls -l /bin\n")
	k.dir, k.req = old, Request{}
}

func (k *kit) output(name string, args ...string) string {
	k.t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.Output()
	if err != nil {
		k.t.Fatalf("%s: %v", name, err)
	}
	return string(out)
}

// packages are the essential packages and extra, with their dependencies.
func (k *kit) packages(extra []string) []string {
	k.t.Helper()
	needs := map[string]string{}
	todo := slices.Clone(extra)
	for line := range strings.Lines(k.output("dpkg-query", "-W", "-f", "${Package}\t${Essential}\t${db:Status-Status}\t${Pre-Depends}, ${Depends}\n")) {
		f := strings.Split(strings.TrimSpace(line), "\t")
		if len(f) < 4 || f[2] != "installed" {
			continue
		}
		needs[f[0]] = f[3]
		if f[1] == "yes" {
			todo = append(todo, f[0])
		}
	}
	for _, name := range extra {
		if _, ok := needs[name]; !ok {
			k.t.Skip("needs the package " + name)
		}
	}
	seen := map[string]bool{}
	for len(todo) > 0 {
		name := todo[0]
		todo = todo[1:]
		if _, installed := needs[name]; !installed || seen[name] {
			continue
		}
		seen[name] = true
		for word := range strings.FieldsFuncSeq(needs[name], func(r rune) bool { return r == ',' || r == '|' }) {
			dep, _, _ := strings.Cut(strings.TrimSpace(word), " ")
			dep, _, _ = strings.Cut(dep, ":")
			todo = append(todo, dep)
		}
	}
	names := []string{}
	for name := range seen {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// packageFiles are the files of packages by their real places, without manuals
// and translations.
func (k *kit) packageFiles(packages []string) []string {
	k.t.Helper()
	files := []string{"bin", "sbin", "lib", "lib64"}
	listed := strings.Fields(k.output("dpkg", append([]string{"-L"}, packages...)...))
	for _, name := range packages {
		info, _ := filepath.Glob("/var/lib/dpkg/info/" + name + "[.:]*")
		listed = append(listed, info...)
	}
	for _, f := range listed {
		dir, err := filepath.EvalSymlinks(filepath.Dir(f))
		if err != nil || f == "/." || strings.HasPrefix(f, "/usr/share/doc") || strings.HasPrefix(f, "/usr/share/man") || strings.HasPrefix(f, "/usr/share/locale") {
			continue
		}
		f = filepath.Join(dir, filepath.Base(f))
		if _, err := os.Lstat(f); err == nil {
			files = append(files, strings.TrimPrefix(f, "/"))
		}
	}
	// Directories before what is in them, and the links last.
	slices.Sort(files[4:])
	return slices.Compact(append(files[4:], files[:4]...))
}

// repository makes an apt repository with one package that has one program.
func (k *kit) repository(dir, name, program string) {
	k.t.Helper()
	tree := k.t.TempDir()
	control := "Package: " + name + "\nVersion: 1.0\nArchitecture: all\nMaintainer: t <t@example.org>\nDescription: test\n"
	for path, file := range map[string]struct {
		data string
		mode os.FileMode
	}{"DEBIAN/control": {control, 0o644}, "usr/bin/" + name: {program, 0o755}, "DEBIAN/postinst": {"#!/bin/sh\nset -e\nchown nobody /usr/share/" + name + "\n", 0o755}, "usr/share/" + name: {"x", 0o644}} {
		k.write(filepath.Join(tree, path), file.data, file.mode)
	}
	k.output("chmod", "-R", "go+rX", tree)
	deb := filepath.Join(k.dir, dir, name+".deb")
	must(k.t, os.MkdirAll(filepath.Dir(deb), 0o755))
	k.output("dpkg-deb", "--root-owner-group", "-b", tree, deb)
	data, err := os.ReadFile(deb)
	must(k.t, err)
	k.output("chmod", "-R", "go+rX", filepath.Dir(deb))
	k.file(filepath.Join(dir, "Packages"), control+fmt.Sprintf("Filename: ./%s.deb\nSize: %d\nSHA256: %x\n", name, len(data), sha256.Sum256(data)))
}

package build

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/tools/txtar"

	"github.com/kist-containers/kist/container/runtime"
	"github.com/kist-containers/kist/image"
	"github.com/kist-containers/kist/internal/reexec"
	"github.com/kist-containers/kist/internal/state"
	"github.com/kist-containers/kist/internal/ui"
)

func TestMain(m *testing.M) {
	reexec.Dispatch(slices.Concat(runtime.Roles(), image.Roles(), Roles(), []reexec.Role{{Name: victimRole, Main: victimMain}}))
	if strings.HasPrefix(os.Args[0], "kist-") {
		// Running the tests in its place would start it again, without end.
		fmt.Fprintln(os.Stderr, os.Args[0]+": not a role of this test binary")
		os.Exit(2)
	}
	unix.Umask(0o077) // as main does
	status := m.Run()
	// The parent of all cgroups here; kist keeps parents, which may be the user's.
	left, _ := filepath.Glob("/sys/fs/cgroup/*/kist-build-test")
	for _, dir := range append(left, "/sys/fs/cgroup/kist-build-test") {
		os.Remove(dir)
	}
	os.Exit(status)
}

// A kit is a store of its own with an image named base: busybox and two users.
type kit struct {
	t   testing.TB
	b   *Builder
	dir string // the build context
	req Request
}

func newKit(t testing.TB) *kit {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if _, err := os.Stat("/bin/busybox"); err != nil {
		t.Skip("needs /bin/busybox")
	}
	top := t.TempDir()
	roots := state.Roots{Data: filepath.Join(top, "root"), Run: filepath.Join(top, "run")}
	must(t, roots.Dirs(0o700))
	t.Cleanup(func() { waitForReapers(roots) })
	k := &kit{t: t}
	store := image.Open(roots, image.Options{Uses: func() ([]image.Use, error) { return k.b.Uses() }})
	k.b = Open(roots, store, Options{CgroupParent: "/kist-build-test"})
	k.makeBase(filepath.Join(top, "base"))
	k.dir = filepath.Join(top, "context")
	must(t, os.Mkdir(k.dir, 0o755))
	return k
}

// waitForReapers keeps the test's directory until nobody removes layers in it:
// one that comes late would make it again.
func waitForReapers(r state.Roots) {
	dir := "\x00" + filepath.Join(r.Data, "layer") + "\x00"
	running := func() bool {
		procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		return slices.ContainsFunc(procs, func(p string) bool {
			words, err := os.ReadFile(p)
			return err == nil && strings.Contains(string(words), dir)
		})
	}
	for deadline := time.Now().Add(time.Minute); running() && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// makeBase builds the image base, with the same digest on every machine that has
// the same busybox.
func (k *kit) makeBase(dir string) {
	for _, d := range []string{"rootfs/bin", "rootfs/etc", "rootfs/tmp", "rootfs/root"} {
		must(k.t, os.MkdirAll(filepath.Join(dir, d), 0o755))
		must(k.t, os.Chmod(filepath.Join(dir, d), 0o755))
	}
	busybox, err := os.ReadFile("/bin/busybox")
	must(k.t, err)
	k.write(filepath.Join(dir, "rootfs/bin/busybox"), string(busybox), 0o755)
	for _, a := range strings.Fields("sh ls cat echo mkdir rm cp mv touch chmod chown stat id env sleep true false test seq wc grep find readlink ln head pwd tar md5sum printf dd mknod rmdir date") {
		must(k.t, os.Symlink("busybox", filepath.Join(dir, "rootfs/bin", a)))
	}
	k.write(filepath.Join(dir, "rootfs/etc/passwd"), "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n", 0o644)
	k.write(filepath.Join(dir, "rootfs/etc/group"), "root:x:0:\napp:x:1000:\nextra:x:2000:app\n", 0o644)
	k.write(filepath.Join(dir, "Dockerfile"), "FROM scratch\nCOPY rootfs /\nENV PATH=/bin\nCMD [\"sh\"]\n", 0o644)
	old := k.dir
	k.dir = dir
	k.req.Tags = []string{"base"}
	k.build()
	k.dir, k.req = old, Request{}
}

func (k *kit) write(path, data string, mode os.FileMode) {
	k.t.Helper()
	must(k.t, os.MkdirAll(filepath.Dir(path), 0o755))
	for d := filepath.Dir(path); strings.HasPrefix(d, k.dir) && k.dir != "" && d != k.dir; d = filepath.Dir(d) {
		must(k.t, os.Chmod(d, 0o755))
	}
	must(k.t, os.WriteFile(path, []byte(data), mode))
	must(k.t, os.Chmod(path, mode))
}

// file writes a file of the context.
func (k *kit) file(name, data string) { k.t.Helper(); k.write(filepath.Join(k.dir, name), data, 0o644) }

// try builds the context and returns what the steps said.
func (k *kit) try() (*Result, string, error) {
	k.t.Helper()
	k.req.Context = k.dir
	if k.req.Pull == "" {
		k.req.Pull = "never"
	}
	r, w, err := os.Pipe()
	must(k.t, err)
	read := make(chan string)
	go func() {
		var b bytes.Buffer
		b.ReadFrom(r)
		read <- b.String()
	}()
	req := k.req
	res, err := k.b.Build(k.t.Context(), &req, newDisplay(progressPlain, &ui.Output{Err: w}))
	w.Close()
	return res, <-read, err
}

func (k *kit) build() (*Result, string) {
	k.t.Helper()
	res, log, err := k.try()
	if err != nil {
		k.t.Fatalf("build: %v\n%s", err, log)
	}
	return res, log
}

// dockerfile builds this text.
func (k *kit) dockerfile(text string) (*Result, string) {
	k.t.Helper()
	k.file("Dockerfile", text)
	return k.build()
}

// unpackCase writes the files of a case into the context and does its setup.
func (k *kit) unpackCase(path string) {
	k.t.Helper()
	a, err := txtar.ParseFile(path)
	must(k.t, err)
	for _, f := range a.Files {
		if f.Name == ".setup" {
			for line := range strings.Lines(string(f.Data)) {
				k.setup(strings.Fields(line))
			}
			continue
		}
		k.file(f.Name, string(f.Data))
	}
}

func (k *kit) setup(words []string) {
	k.t.Helper()
	in := func(p string) string { return filepath.Join(k.dir, p) }
	switch words[0] {
	case "chmod":
		mode, err := strconv.ParseUint(words[1], 8, 32)
		must(k.t, err)
		must(k.t, os.Chmod(in(words[2]), os.FileMode(mode)))
	case "ln":
		must(k.t, os.Symlink(words[1], in(words[2])))
	case "mkdir":
		must(k.t, os.MkdirAll(in(words[1]), 0o755))
		for d := in(words[1]); d != k.dir; d = filepath.Dir(d) {
			must(k.t, os.Chmod(d, 0o755))
		}
	case "tar":
		k.file(words[1], archiveOf(k.t, strings.HasSuffix(words[1], "gz"), words[2:]))
	default:
		k.t.Fatalf("setup %s: unknown", words[0])
	}
}

func archiveOf(t testing.TB, zip bool, files []string) string {
	var plain, zipped bytes.Buffer
	w := tar.NewWriter(&plain)
	for _, f := range files {
		name, data, _ := strings.Cut(f, ":")
		must(t, w.WriteHeader(&tar.Header{Name: name, Mode: 0o640, Uid: 7, Gid: 8, Size: int64(len(data)), Typeflag: tar.TypeReg}))
		w.Write([]byte(data))
	}
	must(t, w.Close())
	if !zip {
		return plain.String()
	}
	z := gzip.NewWriter(&zipped)
	z.Write(plain.Bytes())
	must(t, z.Close())
	return zipped.String()
}

// files lists the image's files that base does not have in the same way.
func (k *kit) files(res *Result) string {
	k.t.Helper()
	dir := k.t.TempDir()
	v, err := k.b.openView(res.Images[0].layers, dir, false)
	must(k.t, err)
	defer v.Close()
	return listing(k.t, v.Root)
}

// listing shows a tree: kind, mode, owner, content, links, attributes. What a
// runtime puts into every container is left out.
func listing(t testing.TB, root *os.File) string {
	t.Helper()
	s := &source{name: "result", root: root}
	items, err := s.scan(context.Background(), ".", nil)
	must(t, err)
	must(t, s.sum(context.Background(), items))
	var lines []string
	for _, it := range items[1:] {
		if strings.HasPrefix(it.rel, "bin/") || slices.Contains(strings.Fields("bin root proc sys dev run"), it.rel) {
			continue
		}
		// buildah leaves its mount points of these behind.
		if it.stat.Size == 0 && slices.Contains(strings.Fields("etc/hosts etc/hostname etc/resolv.conf"), it.rel) {
			continue
		}
		what := fmt.Sprintf("%s %06o %d:%d", it.rel, it.stat.Mode, it.stat.Uid, it.stat.Gid)
		switch {
		case it.link != "":
			what += " -> " + it.link
		case it.sum != "":
			what += fmt.Sprintf(" %d %.12s links=%d", it.stat.Size, it.sum, it.stat.Nlink)
		}
		lines = append(lines, what)
	}
	return strings.Join(lines, "\n") + "\n"
}

// openTest opens a builder on existing directories.
func openTest(data, run string) *Builder {
	roots := state.Roots{Data: data, Run: run}
	return Open(roots, image.Open(roots, image.Options{}), Options{CgroupParent: "/kist-build-test"})
}

// silent is a logger that says nothing.
func silent() *log.Logger { return log.New(io.Discard, "", 0) }

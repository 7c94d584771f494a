package image

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	kreg "github.com/kist-containers/kist/image/registry"
)

// dockerRegistry starts Debian's registry on a port of its own.
func dockerRegistry(t *testing.T) string {
	t.Helper()
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Skip("needs docker-registry")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	dir := t.TempDir()
	config := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s/data}}\nhttp: {addr: %s}\n", dir, addr)
	os.WriteFile(dir+"/config.yml", []byte(config), 0o600)
	cmd := exec.Command(program, "serve", dir+"/config.yml")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	for range 500 {
		if resp, err := http.Get("http://" + addr + "/v2/"); err == nil {
			resp.Body.Close()
			return addr
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("docker-registry does not answer")
	return ""
}

// entries of two layers with everything that an archive can say.
func richLayers(t *testing.T) [][]byte {
	at := time.Unix(1_600_000_000, 123456789)
	hdr := func(kind byte, name string, mode int64) *tar.Header {
		return &tar.Header{Typeflag: kind, Name: name, Mode: mode, ModTime: at, Format: tar.FormatPAX}
	}
	base, top := newTar(), newTar()
	for _, d := range []string{"./", "etc/", "usr/", "usr/bin/", "var/", "var/lib/", "dev/", "old/", "tmp/"} {
		base.add(hdr(tar.TypeDir, d, 0o755), "")
	}
	sudo := hdr(tar.TypeReg, "usr/bin/sudo", 0o4711)
	base.add(sudo, "suid")
	ping := hdr(tar.TypeReg, "usr/bin/ping", 0o755)
	ping.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"}
	base.add(ping, "caps")
	owned := hdr(tar.TypeReg, "var/lib/owned", 0o640)
	owned.Uid, owned.Gid = 1234, 4321
	base.add(owned, strings.Repeat("x", 100_000))
	same := hdr(tar.TypeLink, "var/lib/same", 0o640)
	same.Linkname = "var/lib/owned"
	base.add(same, "")
	sh := hdr(tar.TypeSymlink, "usr/bin/sh", 0o777)
	sh.Linkname = "../../bin/dash"
	base.add(sh, "")
	null := hdr(tar.TypeChar, "dev/null", 0o666)
	null.Devmajor, null.Devminor = 1, 3
	base.add(null, "")
	base.add(hdr(tar.TypeFifo, "dev/fifo", 0o600), "")
	base.add(hdr(tar.TypeReg, "etc/"+strings.Repeat("long", 60), 0o644), "long")
	base.add(hdr(tar.TypeReg, "etc/removed", 0o644), "r")
	base.add(hdr(tar.TypeReg, "etc/ümläut", 0o644), "u")
	base.add(hdr(tar.TypeReg, "old/file", 0o644), "o")
	base.add(hdr(tar.TypeReg, "zeros", 0o644), strings.Repeat("\x00", 1<<20))
	sticky := hdr(tar.TypeDir, "tmp/", 0o1777)
	base.add(sticky, "")
	top.add(hdr(tar.TypeDir, "etc/", 0o750), "")
	top.add(hdr(tar.TypeReg, "etc/.wh.removed", 0o600), "")
	top.add(hdr(tar.TypeReg, "etc/added", 0o600), "a")
	top.add(hdr(tar.TypeDir, "old/", 0o700), "")
	top.add(hdr(tar.TypeReg, "old/.wh..wh..opq", 0o600), "")
	top.add(hdr(tar.TypeReg, "old/new", 0o644), "n")
	top.add(hdr(tar.TypeReg, "var/lib/implied", 0o644), "i")
	return [][]byte{base.bytes(t), top.bytes(t)}
}

type tarBuilder struct {
	b bytes.Buffer
	w *tar.Writer
}

func newTar() *tarBuilder {
	t := &tarBuilder{}
	t.w = tar.NewWriter(&t.b)
	return t
}

func (b *tarBuilder) add(h *tar.Header, body string) {
	h.Size = int64(len(body))
	b.w.WriteHeader(h)
	io.WriteString(b.w, body)
}

func (b *tarBuilder) bytes(t *testing.T) []byte {
	if err := b.w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.b.Bytes()
}

// describeTree lists a tree with all that must be equal.
func describeTree(t *testing.T, root string) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		st := unix.Stat_t{}
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		line := fmt.Sprintf("%q mode %o owner %d:%d rdev %x mtime %d.%09d", rel, st.Mode, st.Uid, st.Gid, st.Rdev, st.Mtim.Sec, st.Mtim.Nsec)
		switch {
		case d.Type().IsRegular():
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" links %d sha256 %x", st.Nlink, sha256.Sum256(data))
			buf := make([]byte, 64)
			if n, err := unix.Lgetxattr(p, "security.capability", buf); err == nil {
				line += fmt.Sprintf(" caps %x", buf[:n])
			}
		case d.Type()&fs.ModeSymlink != 0:
			target, _ := os.Readlink(p)
			line += " -> " + target
		}
		list = append(list, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestTreeIsUmocis(t *testing.T) { compareWithUmoci(t, richLayers(t)...) }

// TestRealTreeIsUmocis takes files of this machine, which is most often a Debian.
func TestRealTreeIsUmocis(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	var layers [][]byte
	for _, paths := range []string{
		"--no-recursion ./ usr usr/bin usr/bin/mount usr/bin/ping usr/bin/su var var/lib --recursion etc",
		"--no-recursion ./ usr usr/share var var/lib var/lib/dpkg var/lib/dpkg/info --recursion usr/share/perl5 var/lib/dpkg/alternatives",
	} {
		args := "-C / --xattrs --xattrs-include=* --numeric-owner --format=pax --ignore-failed-read --warning=none -cf - " + paths
		// Its status tells of files that changed or are not here; what came counts.
		data, _ := exec.Command("tar", strings.Fields(args)...).Output()
		if len(data) < 100_000 {
			t.Skip("needs tar and Debian's directories")
		}
		layers = append(layers, data)
	}
	compareWithUmoci(t, layers...)
}

// imageOf makes an image of layers in a store of its own and pushes it to name.
func imageOf(t *testing.T, name string, layers ...[]byte) {
	t.Helper()
	ctx := context.Background()
	from := newStore(t)
	cfg := &v1.ConfigFile{OS: "linux", Architecture: "amd64", RootFS: v1.RootFS{Type: "layers"}}
	var descs []v1.Descriptor
	parent := ""
	for _, data := range layers {
		l, d, err := from.AddLayer(ctx, parent, bytes.NewReader(data), LayerOptions{})
		if err != nil {
			t.Fatal(err)
		}
		h, _ := v1.NewHash(l.DiffID)
		cfg.RootFS.DiffIDs = append(cfg.RootFS.DiffIDs, h)
		cfg.History = append(cfg.History, v1.History{CreatedBy: "test"})
		descs = append(descs, d)
		parent = l.ChainID
	}
	if _, err := from.AddImage(ctx, cfg, descs, []string{name}); err != nil {
		t.Fatal(err)
	}
	if _, err := from.Push(ctx, name, PushOptions{Registry: &kreg.Config{}}); err != nil {
		t.Fatal(err)
	}
}

// compareWithUmoci pushes an image to a real registry, pulls it, and compares
// the mounted layers with what umoci unpacks from the store, which is a layout.
func compareWithUmoci(t *testing.T, layers ...[]byte) {
	s := newStore(t)
	if _, err := exec.LookPath("umoci"); err != nil {
		t.Skip("needs umoci")
	}
	name := dockerRegistry(t) + "/rich:1"
	imageOf(t, name, layers...)
	img := mustPull(t, s, name)
	bundle := t.TempDir() + "/bundle"
	out, err := exec.Command("umoci", "unpack", "--image", s.imageDir()+":"+name, bundle).CombinedOutput()
	if err != nil {
		t.Fatalf("umoci: %v: %s", err, out)
	}
	m, err := MountLayers(img.LowerDirs(), false)
	if err != nil {
		t.Skipf("needs overlay mounts: %v", err)
	}
	defer m.Close()
	got := describeTree(t, fmt.Sprintf("/proc/self/fd/%d/.", m.Fd()))
	want := describeTree(t, bundle+"/rootfs/.")
	for _, line := range missing(want, got) {
		t.Errorf("umoci has, kist has not: %s", line)
	}
	for _, line := range missing(got, want) {
		t.Errorf("kist has, umoci has not: %s", line)
	}
	if _, err := exec.LookPath("skopeo"); err == nil {
		out, err := exec.Command("skopeo", "inspect", "oci:"+s.imageDir()+":"+name).CombinedOutput()
		if err != nil || !strings.Contains(string(out), img.Digest) {
			t.Errorf("skopeo: %v: %s", err, out)
		}
	}
	checkUsage(t, s, img)
}

// missing are the lines of a that b has not.
func missing(a, b []string) []string {
	has := map[string]bool{}
	for _, line := range b {
		has[line] = true
	}
	return slices.DeleteFunc(slices.Clone(a), func(line string) bool { return has[line] })
}

// checkUsage compares what the store says it takes with du, to 2 %.
func checkUsage(t *testing.T, s *Store, img *Image) {
	t.Helper()
	u, err := s.Usage()
	if err != nil || u.Images != 1 {
		t.Fatalf("usage = %+v, %v", u, err)
	}
	du := treeBlocks(s.layerDir()) + treeBlocks(s.imageDir())
	if abs(du-u.Disk)*100 > du*2 {
		t.Errorf("usage says %d bytes, du %d", u.Disk, du)
	}
	if one := u.PerImage[img.ID]; one.Unique != one.Size || abs(du-one.Size) > max(64<<10, du/50) {
		t.Errorf("usage says %+v of the only image, du %d", one, du)
	}
}

func abs(n int64) int64 { return max(n, -n) }

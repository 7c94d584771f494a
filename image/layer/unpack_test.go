package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
	"golang.org/x/sys/unix"
)

// needRoot skips what only the superuser may do: owners, devices, whiteouts.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

type file struct {
	hdr  tar.Header
	body string
}

func dir(name string, mode int64) file {
	return file{hdr: tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode, ModTime: time.Unix(1000, 0)}}
}

func reg(name, body string) file {
	return file{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, ModTime: time.Unix(2000, 5), Format: tar.FormatPAX}, body}
}

func link(kind byte, name, target string) file {
	return file{hdr: tar.Header{Typeflag: kind, Name: name, Linkname: target, Mode: 0o777}}
}

func archiveOf(t testing.TB, files ...file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		f.hdr.Size = int64(len(f.body))
		if err := w.WriteHeader(&f.hdr); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, f.body)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// unpackTo unpacks files as one layer in a new directory.
func unpackTo(t testing.TB, files ...file) (string, Result, error) {
	t.Helper()
	d := filepath.Join(t.TempDir(), "layer")
	if err := os.Mkdir(d, 0o755); err != nil {
		t.Fatal(err)
	}
	res, err := Apply(context.Background(), d, bytes.NewReader(archiveOf(t, files...)), Options{})
	return d, res, err
}

func mustUnpack(t testing.TB, files ...file) (string, Result) {
	t.Helper()
	d, res, err := unpackTo(t, files...)
	if err != nil {
		t.Fatal(err)
	}
	return d, res
}

func stat(t testing.TB, path string) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatalf("lstat %s: %v", path, err)
	}
	return st
}

func TestUnpackKeepsAttributes(t *testing.T) {
	needRoot(t)
	suid := reg("bin/su", "x")
	suid.hdr.Mode, suid.hdr.Uid, suid.hdr.Gid = 0o4755, 12, 34
	suid.hdr.PAXRecords = map[string]string{"SCHILY.xattr.user.colour": "red", "SCHILY.xattr.trusted.overlay.opaque": "y", "SCHILY.xattr.user.overlay.redirect": "/etc"}
	long := strings.Repeat("n", 255) + "/" + strings.Repeat("m", 255)
	d, res := mustUnpack(t, dir("./", 0o700), dir("bin/", 0o2755), suid, reg(long, "deep"),
		link(tar.TypeSymlink, "bin/sh", "/nowhere"), link(tar.TypeLink, "bin/hard", "bin/su"),
		file{hdr: tar.Header{Typeflag: tar.TypeChar, Name: "null", Mode: 0o666, Devmajor: 1, Devminor: 3}},
		file{hdr: tar.Header{Typeflag: tar.TypeFifo, Name: "fifo", Mode: 0o600}})
	st := stat(t, d+"/bin/su")
	if st.Mode != unix.S_IFREG|0o4755 || st.Uid != 12 || st.Gid != 34 || st.Mtim != (unix.Timespec{Sec: 2000, Nsec: 5}) || st.Nlink != 2 {
		t.Errorf("bin/su = %+v", st)
	}
	if st := stat(t, d+"/bin"); st.Mode != unix.S_IFDIR|0o2755 || st.Mtim.Sec != 1000 {
		t.Errorf("bin = mode %o, mtime %d", st.Mode, st.Mtim.Sec)
	}
	if st := stat(t, d); st.Mode != unix.S_IFDIR|0o700 {
		t.Errorf("root has mode %o, want 700", st.Mode)
	}
	if st := stat(t, d+"/null"); st.Rdev != unix.Mkdev(1, 3) || st.Mode&0o777 != 0o666 {
		t.Errorf("null = %+v", st)
	}
	buf := make([]byte, 16)
	if n, err := unix.Getxattr(d+"/bin/su", "user.colour", buf); err != nil || string(buf[:n]) != "red" {
		t.Errorf("user.colour = %q, %v", buf[:max(n, 0)], err)
	}
	for _, name := range []string{"trusted.overlay.opaque", "user.overlay.redirect"} {
		if _, err := unix.Getxattr(d+"/bin/su", name, buf); err == nil {
			t.Errorf("an archive set overlay's own attribute %s", name)
		}
	}
	if target, err := os.Readlink(d + "/bin/sh"); err != nil || target != "/nowhere" {
		t.Errorf("bin/sh -> %q, %v", target, err)
	}
	if res.Size != 5 {
		t.Errorf("size = %d, want 5", res.Size)
	}
}

func TestWhiteoutsBecomeOverlays(t *testing.T) {
	needRoot(t)
	d, _ := mustUnpack(t, dir("a/", 0o755), reg("a/.wh.gone", ""), dir("b/", 0o755), reg("b/.wh..wh..opq", ""), reg("b/new", "n"),
		reg("c/keep", "k"), reg("c/.wh.keep", ""), reg(".wh.d", ""), dir("d/", 0o755), reg("d/x", "x"), reg(".wh..wh.plnk", ""))
	if st := stat(t, d+"/a/gone"); !isWhiteout(&st) {
		t.Errorf("a/gone = %+v, want device 0:0", st)
	}
	for _, p := range []string{"/b", "/d"} {
		if !opaquePath(d+p, false) {
			t.Errorf("%s is not opaque", p)
		}
	}
	if _, err := os.Stat(d + "/c/keep"); err != nil {
		t.Error("a whiteout removed a file of its own layer:", err)
	}
	if entries, _ := os.ReadDir(d); len(entries) != 4 {
		t.Errorf("root has %v, want a b c d", entries)
	}
}

func TestAdoptTakesAttributesFromBelow(t *testing.T) {
	needRoot(t)
	etc := dir("etc/", 0o750)
	etc.hdr.Uid = 7
	base, _ := mustUnpack(t, dir("./", 0o711), etc, reg("etc/a", "a"), dir("var/", 0o755))
	top, res := mustUnpack(t, reg("etc/b", "b"), reg("new/c", "c"))
	if err := Adopt(top, res, []string{base}, false); err != nil {
		t.Fatal(err)
	}
	if st := stat(t, top+"/etc"); st.Mode&0o7777 != 0o750 || st.Uid != 7 || st.Mtim.Sec != 1000 {
		t.Errorf("etc = mode %o uid %d mtime %d, want those of the layer below", st.Mode, st.Uid, st.Mtim.Sec)
	}
	if st := stat(t, top); st.Mode&0o7777 != 0o711 {
		t.Errorf("root = mode %o, want 711", st.Mode)
	}
	if st := stat(t, top+"/new"); st.Mode&0o7777 != 0o755 {
		t.Errorf("new = mode %o, want 755", st.Mode)
	}
	hide, res := mustUnpack(t, reg(".wh..wh..opq", ""), dir("var/", 0o755))
	if err := Adopt(hide, res, []string{base}, false); err != nil {
		t.Fatal(err)
	}
	if st := stat(t, hide+"/etc"); !isWhiteout(&st) || !opaquePath(hide+"/var", false) {
		t.Error("an opaque root does not hide what is below")
	}
}

// outside is a directory beside the layer that no archive may touch.
func outside(t *testing.T) (string, func()) {
	d := t.TempDir()
	os.WriteFile(d+"/victim", []byte("safe"), 0o600)
	return d, func() {
		data, err := os.ReadFile(d + "/victim")
		entries, _ := os.ReadDir(d)
		if err != nil || string(data) != "safe" || len(entries) != 1 {
			t.Errorf("the archive reached outside: %q, %v, %v", data, err, entries)
		}
	}
}

func TestHostileArchivesStayInside(t *testing.T) {
	needRoot(t)
	os.Remove("/tmp/kist-evil") // of a run that has failed
	for name, files := range map[string]func(out string) []file{
		"dotdot":            func(out string) []file { return []file{reg("../../../../../../../.."+out+"/x", "x")} },
		"absolute":          func(out string) []file { return []file{reg(out+"/x", "x")} },
		"symlink parent":    func(out string) []file { return []file{link(tar.TypeSymlink, "l", out), reg("l/x", "x")} },
		"symlink overwrite": func(out string) []file { return []file{link(tar.TypeSymlink, "l", out+"/victim"), reg("l", "evil")} },
		"symlink to dir, then dir": func(out string) []file {
			return []file{link(tar.TypeSymlink, "l", out), dir("l/", 0o777), reg("l/x", "x")}
		},
		"hard link out":    func(out string) []file { return []file{link(tar.TypeLink, "h", out+"/victim"), reg("h", "evil")} },
		"hard link dotdot": func(out string) []file { return []file{link(tar.TypeLink, "h", "../../../../../.."+out+"/victim")} },
		"hard link by link": func(out string) []file {
			return []file{link(tar.TypeSymlink, "l", out), link(tar.TypeLink, "h", "l/victim")}
		},
		"whiteout by link": func(out string) []file { return []file{link(tar.TypeSymlink, "l", out), reg("l/.wh.victim", "")} },
		"chmod by link": func(out string) []file {
			return []file{link(tar.TypeSymlink, "l", out+"/victim"), link(tar.TypeLink, "m", "l"), reg("m", "evil")}
		},
		"relative link up": func(out string) []file {
			return []file{link(tar.TypeSymlink, "a", "../../../../../../../../../.."+out), reg("a/x", "x")}
		},
		"proc": func(string) []file {
			return []file{link(tar.TypeSymlink, "p", "/proc/self/root"), reg("p/tmp/kist-evil", "x")}
		},
		"whiteout dotdot": func(string) []file { return []file{reg(".wh...", "")} },
		"whiteout dot":    func(string) []file { return []file{reg(".wh..", "")} },
	} {
		t.Run(name, func(t *testing.T) {
			out, check := outside(t)
			_, _, err := unpackTo(t, files(out)...)
			t.Log(err)
			check()
			if _, err := os.Lstat("/tmp/kist-evil"); err == nil {
				t.Error("reached /tmp")
			}
		})
	}
}

func TestBadArchivesAreRefused(t *testing.T) {
	needRoot(t)
	for name, files := range map[string][]file{
		"root is a file":         {reg("./", "x"), {hdr: tar.Header{Typeflag: tar.TypeSymlink, Name: "./", Linkname: "x"}}},
		"device 0:0":             {{hdr: tar.Header{Typeflag: tar.TypeChar, Name: "w"}}},
		"file as directory":      {reg("f", "x"), reg("f/g", "y")},
		"hard link to itself":    {link(tar.TypeLink, "f", "f")},
		"hard link to nothing":   {link(tar.TypeLink, "f", "g")},
		"hard link to directory": {dir("d/", 0o755), link(tar.TypeLink, "f", "d")},
		"name too long":          {reg(strings.Repeat("x", 256), "x")},
		"link without target":    {link(tar.TypeSymlink, "l", "")},
		"whiteout of nothing":    {reg(".wh.", "")},
		"link loop":              {link(tar.TypeSymlink, "l", "l"), reg("l/x", "x")},
	} {
		if name == "root is a file" {
			files = files[1:]
		}
		if _, _, err := unpackTo(t, files...); err == nil {
			t.Errorf("%s: accepted", name)
		} else if strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v has several lines", name, err)
		}
	}
}

func TestLaterEntriesReplaceEarlier(t *testing.T) {
	needRoot(t)
	d, _ := mustUnpack(t, reg("f", "1"), reg("f", "2"), dir("d/", 0o755), reg("d/x", "x"), reg("d", "file"),
		link(tar.TypeSymlink, "s", "f"), dir("s/", 0o755), reg("s/y", "y"))
	for p, want := range map[string]string{"f": "2", "d": "file", "s/y": "y"} {
		if got, err := os.ReadFile(filepath.Join(d, p)); err != nil || string(got) != want {
			t.Errorf("%s = %q, %v; want %q", p, got, err, want)
		}
	}
}

func TestZerosBecomeHoles(t *testing.T) {
	needRoot(t)
	body := strings.Repeat("\x00", 8<<20) + "end"
	d, res := mustUnpack(t, reg("f", body))
	got, err := os.ReadFile(d + "/f")
	if err != nil || string(got) != body {
		t.Fatal("content differs", err)
	}
	if st := stat(t, d+"/f"); st.Blocks*512 > 1<<20 || res.Disk > 1<<20 {
		t.Errorf("file takes %d bytes, counted %d; want a hole", st.Blocks*512, res.Disk)
	}
}

func TestCompressionsAndDigest(t *testing.T) {
	needRoot(t)
	plain := archiveOf(t, dir("./", 0o755), reg("f", strings.Repeat("hello ", 100000)))
	want := fmt.Sprintf("sha256:%x", sha256.Sum256(plain))
	var gz, zs bytes.Buffer
	g := gzip.NewWriter(&gz)
	g.Write(plain)
	g.Close()
	z, _ := zstd.NewWriter(&zs)
	z.Write(plain)
	z.Close()
	// zstd:chunked ends in a frame to be skipped, estargz is of many members.
	chunked := append(bytes.Clone(zs.Bytes()), "\x50\x2a\x4d\x18\x04\x00\x00\x00toc!"...)
	var members bytes.Buffer
	for part := range slices.Chunk(plain, 100_000) {
		g := gzip.NewWriter(&members)
		g.Write(part)
		g.Close()
	}
	for name, data := range map[string][]byte{"none": plain, "gzip": gz.Bytes(), "zstd": zs.Bytes(), "zstd:chunked": chunked, "estargz": members.Bytes()} {
		d := t.TempDir()
		res, err := Apply(context.Background(), d, bytes.NewReader(data), Options{})
		if err != nil || res.DiffID != want {
			t.Errorf("%s: diffID %s, %v; want %s", name, res.DiffID, err, want)
		}
		if name == "none" {
			continue
		}
		if _, err := Apply(context.Background(), t.TempDir(), bytes.NewReader(data[:len(data)/2]), Options{}); err == nil {
			t.Errorf("%s: half an archive is accepted", name)
		}
	}
}

func TestBombsAreStopped(t *testing.T) {
	needRoot(t)
	zeros := make([]byte, 64<<20)
	var gz, zs, x bytes.Buffer
	g := gzip.NewWriter(&gz)
	g.Write(zeros)
	g.Close()
	z, _ := zstd.NewWriter(&zs)
	z.Write(zeros)
	z.Close()
	w, _ := xz.NewWriter(&x)
	w.Write(zeros)
	w.Close()
	for name, bomb := range map[string]*bytes.Buffer{"gzip": &gz, "zstd": &zs, "xz": &x} {
		r, _, err := decompressBounded(bomb, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, r); !errors.Is(err, ErrTooLarge) || n > 16<<20 {
			t.Errorf("%s: %d bytes, %v; want ErrTooLarge", name, n, err)
		}
	}
}

func TestSparseBombIsStopped(t *testing.T) {
	needRoot(t)
	// A header of GNU tar, whose one hole is 2^60 bytes long.
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "s", Mode: 0o600, Format: tar.FormatGNU})
	raw := b.Bytes()[:512]
	raw[156] = tar.TypeGNUSparse
	binary.BigEndian.PutUint64(raw[483+4:], 1<<60)
	raw[483] = 0x80
	copy(raw[148:156], "        ")
	sum := 0
	for _, c := range raw {
		sum += int(c)
	}
	copy(raw[148:156], fmt.Sprintf("%06o\x00 ", sum))
	_, err := Apply(context.Background(), t.TempDir(), io.MultiReader(bytes.NewReader(raw), bytes.NewReader(make([]byte, 1024))), Options{})
	if !errors.Is(err, ErrTooLarge) {
		t.Errorf("err = %v, want ErrTooLarge", err)
	}
}

func TestCancelEndsUnpacking(t *testing.T) {
	needRoot(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := Apply(ctx, t.TempDir(), bytes.NewReader(archiveOf(t, reg("f", "x"))), Options{})
	if err == nil {
		t.Error("a cancelled unpack succeeds")
	}
}

func TestDiffOfUpperUnpacksAgain(t *testing.T) {
	needRoot(t)
	base, _ := mustUnpack(t, dir("./", 0o755), dir("etc/", 0o755), reg("etc/old", "1"), reg("etc/gone", "2"), dir("d/", 0o755), reg("d/x", "3"))
	upper, _ := mustUnpack(t, dir("./", 0o755), dir("etc/", 0o700), reg("etc/old", "new"), reg("etc/.wh.gone", ""), reg("etc/added", "a"),
		link(tar.TypeLink, "etc/hard", "etc/added"), dir("d/", 0o755), reg("d/.wh..wh..opq", ""), reg("d/y", "4"))
	var b bytes.Buffer
	res, err := WriteDiff(context.Background(), &b, upper, []string{base}, DiffOptions{})
	if err != nil {
		t.Fatal(err)
	}
	again := t.TempDir()
	got, err := Apply(context.Background(), again, bytes.NewReader(b.Bytes()), Options{})
	if err != nil || got.Size != res.Size {
		t.Fatalf("apply = %+v, %v; packed %+v", got, err, res)
	}
	if st := stat(t, again+"/etc/gone"); !isWhiteout(&st) || !opaquePath(again+"/d", false) {
		t.Error("whiteout or opaque mark lost")
	}
	if a, b := stat(t, again+"/etc/hard"), stat(t, again+"/etc/added"); a.Ino != b.Ino {
		t.Error("hard link lost")
	}
	var text []string
	changes, err := Changes(upper, []string{base}, false)
	for _, c := range changes {
		text = append(text, string(c.Kind)+" "+c.Path)
	}
	want := "C /d,D /d/x,A /d/y,C /etc,A /etc/added,D /etc/gone,A /etc/hard,C /etc/old"
	if s := strings.Join(text, ","); err != nil || s != want {
		t.Errorf("changes = %s, %v; want %s", s, err, want)
	}
}

// FuzzUnpack feeds archives of any content: nothing may be made outside the
// directory, and nothing may panic.
func FuzzUnpack(f *testing.F) {
	os.Remove("/tmp/kist-evil") // of a run that has failed
	needRoot(f)
	f.Add(archiveOf(f, dir("a/", 0o755), reg("a/b", "x"), link(tar.TypeSymlink, "l", "../.."), reg("l/x", "y")))
	f.Add(archiveOf(f, reg(".wh.x", ""), reg("a/.wh..wh..opq", ""), link(tar.TypeLink, "h", "a")))
	f.Add(archiveOf(f, link(tar.TypeSymlink, "d", "/"), reg("d/tmp/kist-evil", "x"), dir("d", 0o777)))
	f.Fuzz(func(t *testing.T, data []byte) {
		base := t.TempDir()
		d := base + "/in"
		os.Mkdir(d, 0o755)
		res, err := Apply(context.Background(), d, bytes.NewReader(data), Options{})
		if err == nil {
			Adopt(d, res, nil, false)
		}
		if entries, _ := os.ReadDir(base); len(entries) != 1 {
			t.Fatalf("outside the layer: %v", entries)
		}
		if _, err := os.Lstat("/tmp/kist-evil"); err == nil {
			t.Fatal("reached /tmp")
		}
	})
}

func BenchmarkUnpack(b *testing.B) {
	needRoot(b)
	var files []file
	for i := range 2000 {
		if i%50 == 0 {
			files = append(files, dir(fmt.Sprintf("d%d/", i/50), 0o755))
		}
		files = append(files, reg(fmt.Sprintf("d%d/f%d", i/50, i), strings.Repeat("x", 16<<10)))
	}
	data := archiveOf(b, files...)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		d, err := os.MkdirTemp(b.TempDir(), "")
		if err != nil {
			b.Fatal(err)
		}
		if _, err := Apply(context.Background(), d, bytes.NewReader(data), Options{}); err != nil {
			b.Fatal(err)
		}
	}
}

package volume

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/rootless"
	"github.com/kist-containers/kist/internal/ui"
)

func TestCopyUpKeepsEverything(t *testing.T) {
	needRoot(t)
	root, top := tree(t, 3)
	when := time.Date(2001, 2, 3, 4, 5, 6, 789, time.UTC)
	one := filepath.Join(top, "one")
	for _, err := range []error{
		os.Chown(one, 1234, 4321), os.Chmod(one, 0o4755), os.Link(one, filepath.Join(top, "sub", "two")),
		os.Symlink("/etc/passwd", filepath.Join(top, "link")), os.Lchown(filepath.Join(top, "link"), 7, 8),
		unix.Mkfifo(filepath.Join(top, "pipe"), 0o620), unix.Setxattr(one, "user.note", []byte("here"), 0),
		os.Truncate(filepath.Join(top, "sub", "f0"), 1<<30), // nothing but a hole
		os.Chown(top, 55, 66), os.Chmod(top, 0o2775),
		os.Chtimes(one, when, when), os.Chtimes(filepath.Join(top, "sub"), when, when), os.Chtimes(top, when, when),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	s, ctx := newStore(t), context.Background()
	v := must[*Volume](t)(s.Ensure(ctx, Volume{Name: "data"}))
	if err := s.CopyUp(ctx, "data", v.Path, root, "/tree"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{".", "one", "link", "pipe", "sub", "sub/two", "sub/f0", "sub/f2"} {
		var a, b unix.Stat_t
		unix.Lstat(filepath.Join(top, name), &a)
		if err := unix.Lstat(filepath.Join(v.Path, name), &b); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if a.Mode != b.Mode || a.Uid != b.Uid || a.Gid != b.Gid || a.Mtim != b.Mtim || a.Nlink != b.Nlink || name != "." && name != "sub" && a.Size != b.Size {
			t.Errorf("%s: %+v, want %+v", name, b, a)
		}
		if name == "sub/f0" && b.Blocks > 64 {
			t.Errorf("the hole of %s was filled: %d blocks", name, b.Blocks)
		}
	}
	note := make([]byte, 10)
	if n, err := unix.Getxattr(filepath.Join(v.Path, "one"), "user.note", note); err != nil || string(note[:n]) != "here" {
		t.Errorf("xattr: %q, %v", note[:max(n, 0)], err)
	}
	// Once only: what the user removed does not come back.
	os.Remove(filepath.Join(v.Path, "one"))
	if err := s.CopyUp(ctx, "data", v.Path, root, "/tree"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(v.Path, "one")); err == nil {
		t.Error("the volume was filled again")
	}
}

// TestLinksLeadNoCopyOutside: links of an image at, above and below the volume's
// path.
func TestLinksLeadNoCopyOutside(t *testing.T) {
	outside := t.TempDir()
	os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o600)
	image := t.TempDir()
	os.Mkdir(filepath.Join(image, "dir"), 0o755)
	os.Symlink(outside, filepath.Join(image, "abs"))
	os.Symlink("../../../../../../../.."+outside, filepath.Join(image, "rel"))
	os.Symlink(outside, filepath.Join(image, "dir", "below"))
	os.Symlink("/proc/self/root"+outside, filepath.Join(image, "magic"))
	root := must[*os.File](t)(os.Open(image))
	defer root.Close()
	s, ctx := newStore(t), context.Background()
	for _, path := range []string{"/abs", "/rel", "/magic", "/dir", "/dir/below", "/abs/..", "/../../" + outside} {
		name := "v" + strings.Map(func(r rune) rune {
			if r == '/' || r == '.' {
				return '_'
			}
			return r
		}, path[:min(len(path), 20)])
		v := must[*Volume](t)(s.Ensure(ctx, Volume{Name: name}))
		s.CopyUp(ctx, name, v.Path, root, path)
		filepath.WalkDir(v.Path, func(p string, d os.DirEntry, err error) error {
			if d != nil && d.Type().IsRegular() {
				t.Errorf("%s: copied %s", path, p)
			}
			return nil
		})
	}
}

func TestOwnerErrorNamesBothUIDsAndTheCure(t *testing.T) {
	err := rootless.OwnerError("/data", 70000, 5, unix.EINVAL)
	text := ui.ErrorText(err)
	for _, want := range []string{"give /data to uid 70000, gid 5", "not possible for uid ", "\nhint: ", "/etc/subuid", "usermod --add-subuids"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q lacks %q", text, want)
		}
	}
	if err := Chown("/etc", 1, 1); err == nil {
		t.Error("U gave /etc away")
	}
}

// TestRemoveFollowsNoLink: a volume whose content, or directory, is a link.
func TestRemoveFollowsNoLink(t *testing.T) {
	outside := t.TempDir()
	keep := filepath.Join(outside, "keep")
	os.WriteFile(keep, nil, 0o600)
	s, ctx := newStore(t), context.Background()
	v := must[*Volume](t)(s.Ensure(ctx, Volume{Name: "data"}))
	os.Symlink(outside, filepath.Join(v.Path, "link"))
	if err := Chown(v.Path, os.Getuid(), os.Getgid()); err != nil {
		t.Error(err)
	}
	if err := s.Remove(ctx, "data"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(keep); err != nil {
		t.Errorf("the link was followed: %v", err)
	}
}

func TestMergeFollowsNoLink(t *testing.T) {
	outside, from, to := t.TempDir(), t.TempDir(), t.TempDir()
	os.Mkdir(filepath.Join(from, "dir"), 0o755)
	os.WriteFile(filepath.Join(from, "dir", "new"), nil, 0o600)
	os.Symlink(outside, filepath.Join(to, "dir"))
	if err := merge(from, to); err == nil {
		t.Error("a directory replaced a link")
	}
	if entries, _ := os.ReadDir(outside); len(entries) != 0 {
		t.Errorf("written outside: %v", entries)
	}
}

func TestRemoveKeepsWhatIsMounted(t *testing.T) {
	needRoot(t)
	s, ctx := newStore(t), context.Background()
	v := must[*Volume](t)(s.Ensure(ctx, Volume{Name: "data"}))
	at := filepath.Join(v.Path, "mnt")
	os.Mkdir(at, 0o755)
	if err := unix.Mount("kist-test", at, "tmpfs", 0, ""); err != nil {
		t.Skip("needs mount:", err)
	}
	t.Cleanup(func() { unix.Unmount(at, unix.MNT_DETACH) })
	if err := s.Remove(ctx, "data"); err == nil || !strings.Contains(err.Error(), "something is mounted on") {
		t.Errorf("Remove = %v", err)
	}
}

func BenchmarkCopyTree(b *testing.B) {
	from, err := os.Open("/usr/share/doc")
	if err != nil {
		b.Skip("needs /usr/share/doc")
	}
	defer from.Close()
	for b.Loop() {
		dir := b.TempDir()
		if err := copyInto(filepath.Join(dir, "copy"), from); err != nil {
			b.Fatal(err)
		}
		from.Seek(0, 0)
	}
}

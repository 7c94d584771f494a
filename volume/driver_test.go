package volume

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/sys"
)

func TestLocalOptions(t *testing.T) {
	for _, bad := range []map[string]string{
		{"nokey": "1"}, {"type": "tmpfs"}, {"device": "/dev/sda"}, {"type": "none", "device": "/tmp"},
		{"o": "ro"}, {"o": "bind", "device": "relative"}, {"o": "size=lots"}, {"size": "-1"}, {"type": "a/b", "device": "x"},
		{"type": "tmpfs", "device": "tmpfs", "size": "1m"},
	} {
		if w, err := readWish(bad); err == nil {
			t.Errorf("readWish(%v) = %+v, want an error", bad, w)
		}
	}
}

// TestTmpfsIsSharedAndGoesWithTheLast mounts for two holders.
func TestTmpfsIsSharedAndGoesWithTheLast(t *testing.T) {
	needRoot(t)
	s, ctx := newStore(t), context.Background()
	must[*Volume](t)(s.Ensure(ctx, Volume{Name: "ram", Options: map[string]string{"type": "tmpfs", "device": "tmpfs", "o": "size=1m,mode=0700"}}))
	dir, err := s.Attach(ctx, "ram", "one")
	if errors.Is(err, unix.EPERM) {
		t.Skip("needs mount:", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sys.UnmountAll(dir) })
	os.WriteFile(filepath.Join(dir, "f"), nil, 0o600)
	again := must[string](t)(s.Attach(ctx, "ram", "two"))
	if again != dir || !sys.Mounted(dir) {
		t.Errorf("second holder: %s, want %s", again, dir)
	}
	var st unix.Statfs_t
	if unix.Statfs(dir, &st); st.Blocks*uint64(st.Bsize) != 1<<20 {
		t.Errorf("size: %d", st.Blocks*uint64(st.Bsize))
	}
	if err := s.Detach(ctx, "ram", "one"); err != nil || !sys.Mounted(dir) {
		t.Errorf("after the first: %v, mounted: %v", err, sys.Mounted(dir))
	}
	if _, err := os.Lstat(filepath.Join(dir, "f")); err != nil {
		t.Error(err)
	}
	if err := s.Detach(ctx, "ram", "two"); err != nil || sys.Mounted(dir) {
		t.Errorf("after the last: %v, mounted: %v", err, sys.Mounted(dir))
	}
	if err := s.Detach(ctx, "ram", "two"); err != nil {
		t.Errorf("once more: %v", err)
	}
	if _, err := os.Lstat(s.runDir("ram")); err == nil {
		t.Error("notes are left")
	}
}

func TestBindVolume(t *testing.T) {
	s, ctx := newStore(t), context.Background()
	dir := t.TempDir()
	must[*Volume](t)(s.Ensure(ctx, Volume{Name: "host", Options: map[string]string{"type": "none", "o": "bind", "device": dir}}))
	os.WriteFile(filepath.Join(dir, "keep"), nil, 0o600)
	if got := must[string](t)(s.Attach(ctx, "host", "x")); got != dir {
		t.Errorf("Attach = %s, want %s", got, dir)
	}
	if err := s.Remove(ctx, "host"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "keep")); err != nil {
		t.Error("the host's directory was emptied")
	}
}

func TestFailedMountLeavesNothing(t *testing.T) {
	needRoot(t)
	s, ctx := newStore(t), context.Background()
	must[*Volume](t)(s.Ensure(ctx, Volume{Name: "bad", Options: map[string]string{"type": "nosuchfs", "device": "x", "o": "ro"}}))
	_, err := s.Attach(ctx, "bad", "one")
	if err == nil || !strings.HasPrefix(err.Error(), `volume bad: mount x on a volume: type nosuchfs, options "ro": `) {
		t.Errorf("Attach = %v", err)
	}
	if _, err := os.Lstat(s.runDir("bad")); err == nil {
		t.Error("notes are left")
	}
}

// image makes an ext4 file system in a file.
func image(t *testing.T, options ...string) string {
	t.Helper()
	needRoot(t)
	if _, err := exec.LookPath("mkfs.ext4"); err != nil {
		t.Skip("needs mkfs.ext4")
	}
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 32<<20); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", append(options, "-q", path)...).CombinedOutput(); err != nil {
		t.Skipf("needs mkfs.ext4 %v: %s", options, out)
	}
	return path
}

func TestFileSystemImage(t *testing.T) {
	path := image(t)
	s, ctx := newStore(t), context.Background()
	must[*Volume](t)(s.Ensure(ctx, Volume{Name: "disk", Options: map[string]string{"type": "ext4", "device": path}}))
	dir, err := s.Attach(ctx, "disk", "one")
	if err != nil {
		t.Skip("needs loop devices and ext4:", err)
	}
	t.Cleanup(func() { sys.UnmountAll(dir) })
	root, _ := tree(t, 2)
	if err := s.CopyUp(ctx, "disk", dir, root, "/tree"); err != nil {
		t.Fatal(err)
	}
	if err := s.Detach(ctx, "disk", "one"); err != nil {
		t.Fatal(err)
	}
	dir = must[string](t)(s.Attach(ctx, "disk", "two"))
	if data, err := os.ReadFile(filepath.Join(dir, "one")); string(data) != "content" {
		t.Errorf("after another mount: %q, %v", data, err)
	}
	if err := s.Remove(ctx, "disk"); err != nil {
		t.Fatal(err)
	}
	if sys.Mounted(dir) {
		t.Error("still mounted")
	}
}

func TestSizeLimit(t *testing.T) {
	path := image(t, "-I", "256", "-O", "quota,project", "-E", "quotatype=prjquota")
	disk, err := attachLoop(path, false)
	if err != nil {
		t.Skip("needs loop devices:", err)
	}
	defer disk.Close()
	s, ctx := newStore(t), context.Background()
	if err := os.MkdirAll(s.roots.Data, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(disk.Name(), s.roots.Data, "ext4", 0, "prjquota"); err != nil {
		t.Skip("needs ext4 with project quotas:", err)
	}
	t.Cleanup(func() { sys.UnmountAll(s.roots.Data) })
	v := must[*Volume](t)(s.Ensure(ctx, Volume{Name: "small", Options: map[string]string{"size": "1m"}}))
	err = os.WriteFile(filepath.Join(v.Path, "big"), make([]byte, 4<<20), 0o600)
	if os.Geteuid() == 0 && err == nil {
		t.Error("4 MiB went into a volume of 1 MiB")
	}
	must[*Volume](t)(s.Ensure(ctx, Volume{Name: "large"}))
	if err := os.WriteFile(filepath.Join(s.dir("large", dataDir), "big"), make([]byte, 4<<20), 0o600); err != nil {
		t.Errorf("another volume is bounded too: %v", err)
	}
}

func TestSizeLimitNeedsQuotas(t *testing.T) {
	needRoot(t)
	s := newStore(t)
	os.MkdirAll(s.roots.Data, 0o755)
	if err := unix.Mount("kist-test", s.roots.Data, "tmpfs", 0, ""); err != nil {
		t.Skip("needs mount:", err)
	}
	t.Cleanup(func() { sys.UnmountAll(s.roots.Data) })
	_, err := s.Ensure(context.Background(), Volume{Name: "small", Options: map[string]string{"o": "size=1m"}})
	if err == nil || !strings.Contains(err.Error(), "project quotas") {
		t.Errorf("Ensure = %v", err)
	}
	if entries, _ := os.ReadDir(s.dir()); len(entries) != 1 { // .lock
		t.Errorf("left: %v", entries)
	}
}

// newPlugin starts the plugin toy and returns its directory.
func newPlugin(t *testing.T) (*Store, string) {
	s := newStore(t)
	// Short, because the path of a socket has only 107 bytes.
	run := must[string](t)(os.MkdirTemp("", "kist"))
	t.Cleanup(func() { os.RemoveAll(run) })
	s.roots.Run = run
	plugins := s.pluginDirs()[0]
	os.MkdirAll(plugins, 0o755)
	helper(t, "plugin", plugins)
	socket := filepath.Join(plugins, "toy.sock")
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		// The name is there before the plugin listens.
		if c, err := net.Dial("unix", socket); err == nil {
			c.Close()
			break
		}
		if time.Now().After(end) {
			t.Fatal("the plugin does not listen")
		}
	}
	return s, plugins
}

func TestPluginProcess(t *testing.T) {
	ctx := context.Background()
	s, plugins := newPlugin(t)
	must[*Volume](t)(s.Ensure(ctx, Volume{Name: "far", Driver: "toy", Options: map[string]string{"a": "b"}}))
	_, err := s.Ensure(ctx, Volume{Name: "no", Driver: "toy", Options: map[string]string{"fail": "please"}})
	if err == nil || err.Error() != "volume no: driver toy: Create: told to fail: please" {
		t.Errorf("a refusal: %v", err)
	}
	dir := must[string](t)(s.Attach(ctx, "far", "one"))
	if again := must[string](t)(s.Attach(ctx, "far", "two")); dir != filepath.Join(plugins, "vol-far") || again != dir {
		t.Errorf("Attach = %s, then %s", dir, again)
	}
	for _, holder := range []string{"one", "two"} {
		if err := s.Detach(ctx, "far", holder); err != nil {
			t.Error(err)
		}
	}
	if err := s.Remove(ctx, "far"); err != nil {
		t.Error(err)
	}
	calls := must[[]byte](t)(os.ReadFile(filepath.Join(plugins, "calls")))
	want := "Plugin.Activate \nVolumeDriver.Create far\nPlugin.Activate \nVolumeDriver.Create no\nVolumeDriver.Mount far\nVolumeDriver.Unmount far\nVolumeDriver.Remove far\n"
	if string(calls) != want {
		t.Errorf("calls:\n%swant:\n%s", calls, want)
	}
	if list := must[[]*Volume](t)(s.List()); len(list) != 0 {
		t.Errorf("left: %v", list)
	}
}

func TestReloadLearnsFromPlugins(t *testing.T) {
	ctx := context.Background()
	s, plugins := newPlugin(t)
	must[*Volume](t)(s.Ensure(ctx, Volume{Name: "mine"}))
	must[*Volume](t)(s.Ensure(ctx, Volume{Name: "gone", Driver: "toy"}))
	must[*Volume](t)(s.Ensure(ctx, Volume{Name: "used", Driver: "toy"}))
	s.o.Uses = func() ([]Use, error) { return []Use{{"container web", "used"}}, nil }
	os.Remove(filepath.Join(plugins, "vol-gone"))
	os.Remove(filepath.Join(plugins, "vol-used"))
	for _, name := range []string{"theirs", "mine"} {
		os.Mkdir(filepath.Join(plugins, "vol-"+name), 0o755)
	}
	r := must[Reloaded](t)(s.Reload(ctx))
	if !slices.Equal(r.Added, []string{"theirs"}) || !slices.Equal(r.Removed, []string{"gone"}) {
		t.Errorf("Reload = %+v", r)
	}
	if r := must[Reloaded](t)(s.Reload(ctx)); len(r.Added)+len(r.Removed) > 0 {
		t.Errorf("again: %+v", r)
	}
	if v := must[*Volume](t)(s.Get("theirs")); v.Driver != "toy" {
		t.Errorf("driver %s", v.Driver)
	}
	if v := must[*Volume](t)(s.Get("mine")); v.Driver != localDriver {
		t.Errorf("mine has driver %s now", v.Driver)
	}
}

func FuzzPluginAnswer(f *testing.F) {
	for _, s := range []string{`{"Err":""}`, `{"Mountpoint":"/x","Err":"no"}`, ``, `[]`, `{"Implements":[1]}`, `{"Mountpoint":{}}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if a, err := decodeAnswer(strings.NewReader(s)); err != nil && (a.Mountpoint != "" || a.Err != "") {
			t.Errorf("%q: an error and %+v", s, a)
		}
	})
}

package sys

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRemoveTree(t *testing.T) {
	outside, tree := t.TempDir(), filepath.Join(t.TempDir(), "tree")
	os.WriteFile(filepath.Join(outside, "f"), nil, 0o600)
	for i := range 3000 {
		dir := filepath.Join(tree, fmt.Sprint(i%7), fmt.Sprint(i%3))
		os.MkdirAll(dir, 0o700)
		os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), nil, 0o600)
	}
	if err := os.Symlink(outside, filepath.Join(tree, "link")); err != nil {
		t.Fatal(err)
	}
	for range 2 { // also what is not there
		if err := RemoveTree(tree); err != nil {
			t.Fatal(err)
		}
	}
	if err := RemoveTree(filepath.Join(tree, "x", "y")); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(tree); err == nil {
		t.Error("the tree is left")
	}
	if _, err := os.Stat(filepath.Join(outside, "f")); err != nil {
		t.Error(err)
	}
}

func TestRemoveTreeEndsAtMounts(t *testing.T) {
	runtime.LockOSThread() // for good: its mounts are its own
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		t.Skip("needs CAP_SYS_ADMIN")
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	outside, tree := t.TempDir(), filepath.Join(t.TempDir(), "tree")
	file := filepath.Join(outside, "f")
	os.WriteFile(file, nil, 0o600)
	for _, at := range []string{"a/dir", "a/z"} {
		os.MkdirAll(filepath.Join(tree, at), 0o700)
	}
	os.WriteFile(filepath.Join(tree, "file"), nil, 0o600)
	for from, at := range map[string]string{outside: "a/dir", file: "file"} {
		// Of the same file system, so that only the mount tells.
		if err := unix.Mount(from, filepath.Join(tree, at), "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		defer unix.Unmount(filepath.Join(tree, at), unix.MNT_DETACH)
	}
	if err := RemoveTree(tree); !errors.Is(err, ErrMounted) {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(tree, "a/z")); err == nil {
		t.Error("what is beside a mount is left")
	}
}

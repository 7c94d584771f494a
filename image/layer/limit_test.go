package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"
)

func TestNamesAboveTheLayerAreRefused(t *testing.T) {
	for _, name := range []string{"..", "../a", "a/../b", "a/..", "/../a"} {
		_, _, err := unpackTo(t, file{hdr: tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}})
		if err == nil || !strings.Contains(err.Error(), "name leaves the layer") {
			t.Errorf("%q: %v, want a refusal", name, err)
		}
	}
}

func TestEntriesAreLimited(t *testing.T) {
	root, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	u := newUnpacker(root, Options{})
	defer u.dirs.close()
	u.res.Files = maxEntries - 1
	err = u.unpack(context.Background(), bytes.NewReader(archiveOf(t, reg("last", ""), reg("excess", ""))))
	if !errors.Is(err, ErrTooLarge) {
		t.Errorf("err = %v, want ErrTooLarge", err)
	}
	if _, err := os.Lstat(root.Name() + "/last"); err != nil {
		t.Errorf("the last entry allowed: %v", err)
	}
}

package image

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

// HelloName is the image that needs no registry: this very binary.
const HelloName = "hello"

// helloLabel tells which binary an image was made of.
const helloLabel = "dev.kist.binary"

func isHello(name string) bool {
	r, err := ParseReference(name)
	return err == nil && r.Digest == "" && r.Tagged().String() == DefaultHost+"/library/"+HelloName+":latest"
}

// makeHello returns the image whose only file is the running binary, made anew
// when the binary is another one.
func (s *Store) makeHello(ctx context.Context) (*Image, error) {
	exe, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	defer exe.Close()
	st, err := exe.Stat()
	if err != nil {
		return nil, err
	}
	mark := binaryMark(st)
	if img, err := s.Resolve(HelloName); err == nil && img.unpacked() && img.Config.Config.Labels[helloLabel] == mark {
		return img, nil
	}
	pin, err := s.pinned(ctx)
	if err != nil {
		return nil, err
	}
	defer s.unpin(pin)
	return s.buildHello(ctx, exe, st, mark)
}

func binaryMark(st os.FileInfo) string {
	inode := uint64(0)
	if sys, ok := st.Sys().(*unix.Stat_t); ok {
		inode = sys.Ino
	}
	return fmt.Sprintf("%d-%d-%d", st.Size(), st.ModTime().UnixNano(), inode)
}

func (s *Store) buildHello(ctx context.Context, exe *os.File, st os.FileInfo, mark string) (*Image, error) {
	pr, pw := io.Pipe()
	go func() { pw.CloseWithError(helloArchive(pw, exe, st)) }()
	// Compressing would take longer than all the rest of the first run.
	l, d, err := s.AddLayer(ctx, "", pr, LayerOptions{Uncompressed: true})
	pr.CloseWithError(errUnpackEnded)
	if err != nil {
		return nil, fmt.Errorf("make image %s: %w", HelloName, err)
	}
	diffID, err := v1.NewHash(l.DiffID)
	if err != nil {
		return nil, err
	}
	created := v1.Time{Time: st.ModTime().UTC().Truncate(time.Second)}
	return s.AddImage(ctx, &v1.ConfigFile{
		Architecture: runtime.GOARCH, OS: "linux", Created: created,
		Config: v1.Config{
			Cmd: []string{"/kist", "hello"}, Env: []string{"PATH=/"}, WorkingDir: "/",
			Labels: map[string]string{helloLabel: mark},
		},
		RootFS:  v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{diffID}},
		History: []v1.History{{Created: created, CreatedBy: "kist", Comment: "this binary"}},
	}, []v1.Descriptor{d}, []string{HelloName})
}

func helloArchive(w io.Writer, exe io.Reader, st os.FileInfo) error {
	tw := tar.NewWriter(w)
	err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "kist", Mode: 0o755, Size: st.Size(), ModTime: st.ModTime()})
	if err != nil {
		return err
	}
	if _, err := io.Copy(tw, exe); err != nil {
		return err
	}
	return tw.Close()
}

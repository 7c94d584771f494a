package container

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/sys"
)

// rootAt opens a directory, given as a descriptor, as a root that no link leads
// out of.
func rootAt(dir *os.File) (*os.Root, error) {
	return os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", dir.Fd()))
}

// pack writes the entry base of root, with all below it, as a tar stream in
// which it is called name. No link is followed.
func pack(ctx context.Context, w io.Writer, root *os.Root, base, name string, who *owners) error {
	t := &packer{tar.NewWriter(w), root, who, map[[2]uint64]string{}}
	// Not left to WalkDir, which follows a link that it begins with.
	if info, err := root.Lstat(base); err != nil || !info.IsDir() {
		if err == nil {
			err = t.entry(base, name)
		}
		return closed(t.Writer, err)
	}
	skip := kernelView(root)
	err := fs.WalkDir(root.FS(), base, func(p string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if errors.Is(err, fs.ErrNotExist) && p != base {
			return nil // a running container removed it meanwhile
		}
		if err != nil {
			return err
		}
		inside := path.Join(name, strings.TrimPrefix(strings.TrimPrefix(p, base), "/"))
		if base == "." {
			inside = path.Join(name, p)
		}
		err = t.entry(p, inside)
		if errors.Is(err, fs.ErrNotExist) && p != base {
			return nil
		}
		if err == nil && d.IsDir() && p != base && skip(p) {
			return fs.SkipDir
		}
		return err
	})
	return closed(t.Writer, err)
}

// A packer writes files below root, who being whose files they are.
type packer struct {
	*tar.Writer
	root *os.Root
	who  *owners
	// links are the first names of files with several.
	links map[[2]uint64]string
}

// closed ends an archive unless it is a broken one, which must not look whole.
func closed(t *tar.Writer, err error) error {
	if err != nil {
		return err
	}
	return t.Close()
}

// kernelView returns a function that tells the directories where the kernel shows
// itself as files: they are nothing to copy.
func kernelView(root *os.Root) func(dir string) bool {
	return func(dir string) bool {
		f, err := root.Open(dir)
		if err != nil {
			return false
		}
		defer f.Close()
		var st unix.Statfs_t
		if unix.Fstatfs(int(f.Fd()), &st) != nil {
			return false
		}
		switch st.Type {
		case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.DEVPTS_SUPER_MAGIC:
			return true
		}
		return false
	}
}

func (t *packer) entry(p, name string) error {
	root := t.root
	info, err := root.Lstat(p)
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSocket != 0 {
		return nil // tar has none; docker leaves them out too
	}
	target := ""
	if info.Mode()&fs.ModeSymlink != 0 {
		if target, err = root.Readlink(p); err != nil {
			return err
		}
	}
	h, err := tar.FileInfoHeader(info, target)
	if err != nil {
		return err
	}
	h.Name, h.Format = name, tar.FormatPAX
	if info.IsDir() {
		h.Name += "/"
	}
	h.Uname, h.Gname = "", ""
	uid, gid := t.who.inside(uint32(h.Uid), uint32(h.Gid))
	h.Uid, h.Gid = int(uid), int(gid)
	h.AccessTime, h.ChangeTime = time.Time{}, time.Time{}
	if st, ok := info.Sys().(*unixStat); ok && st.Nlink > 1 && info.Mode().IsRegular() {
		key := [2]uint64{uint64(st.Dev), st.Ino}
		if first, seen := t.links[key]; seen {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
		} else {
			t.links[key] = name
		}
	}
	if err := t.WriteHeader(h); err != nil || h.Typeflag != tar.TypeReg {
		return err
	}
	f, err := openRegular(root, p)
	if err != nil {
		return err
	}
	defer f.Close()
	// A file that grows meanwhile is cut, one that shrinks is an error of tar's.
	_, err = io.Copy(t, io.LimitReader(f, h.Size))
	return err
}

// openRegular opens what was a regular file when it was looked at: a container
// that runs may have put a device or a FIFO in its place.
func openRegular(root *os.Root, p string) (*os.File, error) {
	f, err := root.OpenFile(p, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return sys.ReopenRegular(f)
}

// unpackOptions say whose the files become.
type unpackOptions struct {
	// Owner keeps the archive's owners; else the files are the caller's.
	Owner bool
	// Replace lets a file stand for a directory and the other way round.
	Replace bool
	// Who says whose files they are where they go.
	Who *owners
}

// unpack extracts a tar stream below root; nothing of it can leave root.
func unpack(ctx context.Context, r io.Reader, root *os.Root, o unpackOptions) error {
	return o.Who.asRoot(func() error { return unpackAll(ctx, r, root, o) })
}

func unpackAll(ctx context.Context, r io.Reader, root *os.Root, o unpackOptions) error {
	t := tar.NewReader(r)
	var dirs []*tar.Header
	for ctx.Err() == nil {
		h, err := t.Next()
		if err == io.EOF {
			return finishDirs(root, dirs, o)
		}
		if err != nil {
			return fmt.Errorf("read archive: %w", err)
		}
		h.Name = strings.TrimPrefix(path.Clean("/"+h.Name), "/")
		if h.Name == "" {
			continue
		}
		if err := unpackEntry(t, h, root, o); err != nil {
			return fmt.Errorf("unpack %s: %w", h.Name, err)
		}
		if h.Typeflag == tar.TypeDir {
			dirs = append(dirs, h)
		}
	}
	return ctx.Err()
}

// makeParents makes the directories that an archive leaves out, for everybody to
// go through: Mkdir's mode is cut by the umask.
func makeParents(root *os.Root, dir string) error {
	if _, err := root.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := makeParents(root, path.Dir(dir)); err != nil {
		return err
	}
	if err := root.Mkdir(dir, 0o755); err != nil {
		return err
	}
	return root.Chmod(dir, 0o755)
}

func unpackEntry(t *tar.Reader, h *tar.Header, root *os.Root, o unpackOptions) error {
	if err := makeParents(root, path.Dir(h.Name)); err != nil {
		return err
	}
	if err := makeRoom(h, root, o); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		if err := root.Mkdir(h.Name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		return nil // mode and times come last: entries below change them
	case tar.TypeReg:
		if err := unpackFile(t, h, root); err != nil {
			return err
		}
	case tar.TypeSymlink:
		if err := root.Symlink(h.Linkname, h.Name); err != nil {
			return err
		}
	case tar.TypeLink:
		return root.Link(strings.TrimPrefix(path.Clean("/"+h.Linkname), "/"), h.Name)
	case tar.TypeFifo, tar.TypeChar, tar.TypeBlock:
		if err := makeNode(h, root); err != nil {
			return err
		}
	default:
		return nil
	}
	return settle(h, root, o)
}

// makeRoom removes what stands in the way: a file, a link, and nothing more
// unless Replace says so.
func makeRoom(h *tar.Header, root *os.Root, o unpackOptions) error {
	info, err := root.Lstat(h.Name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	switch {
	case info.IsDir() && h.Typeflag == tar.TypeDir:
		return nil
	case info.IsDir() && !o.Replace:
		return errors.New("cannot replace a directory by a file")
	case !info.IsDir() && h.Typeflag == tar.TypeDir && !o.Replace:
		return errors.New("cannot replace a file by a directory")
	}
	return root.RemoveAll(h.Name)
}

func unpackFile(r io.Reader, h *tar.Header, root *os.Root) (err error) {
	f, err := root.OpenFile(h.Name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = io.Copy(f, r)
	return err
}

// makeNode makes a device or a fifo in a directory that was looked up inside root.
func makeNode(h *tar.Header, root *os.Root) error {
	dir, err := root.Open(path.Dir(h.Name))
	if err != nil {
		return err
	}
	defer dir.Close()
	kinds := map[byte]uint32{tar.TypeFifo: unix.S_IFIFO, tar.TypeChar: unix.S_IFCHR, tar.TypeBlock: unix.S_IFBLK}
	return unix.Mknodat(int(dir.Fd()), path.Base(h.Name), kinds[h.Typeflag]|0o600, int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))))
}

// settle sets owner, then mode (chown clears the set-uid bits), then times.
func settle(h *tar.Header, root *os.Root, o unpackOptions) error {
	if o.Owner {
		uid, gid := o.Who.outside(uint32(h.Uid), uint32(h.Gid))
		if err := root.Lchown(h.Name, int(uid), int(gid)); err != nil {
			return err
		}
	}
	if h.Typeflag == tar.TypeSymlink {
		return nil
	}
	if err := root.Chmod(h.Name, h.FileInfo().Mode()&(fs.ModePerm|fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky)); err != nil {
		return err
	}
	return root.Chtimes(h.Name, h.ModTime, h.ModTime)
}

// finishDirs gives directories their attributes, the deepest first.
func finishDirs(root *os.Root, dirs []*tar.Header, o unpackOptions) error {
	for i := len(dirs) - 1; i >= 0; i-- {
		if err := settle(dirs[i], root, o); err != nil {
			return fmt.Errorf("unpack %s: %w", dirs[i].Name, err)
		}
	}
	return nil
}

// statInRoot looks a path up with root as "/", the last link followed or not.
func statInRoot(root *os.File, p string, follow bool) (fs.FileInfo, error) {
	flags := unix.O_PATH
	if !follow {
		flags |= unix.O_NOFOLLOW
	}
	f, err := sys.OpenInRoot(root, p, flags, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Stat()
}

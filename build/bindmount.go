package build

import (
	"context"
	"errors"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/container/monitor"
	"github.com/kist-containers/kist/internal/sys"
)

// copyTo copies what the mount names into dir.
func (m *runMount) copyTo(ctx context.Context, dir string) error {
	root, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	cs := &copyStep{verb: "COPY", from: m.src, dest: "/", into: true}
	if err := cs.gather(ctx, []string{cmpOr(m.Source, "/")}); err != nil {
		return err
	}
	t := &tree{root: root}
	defer t.forget()
	if err := cs.apply(ctx, t, nil); err != nil {
		return err
	}
	if m.isFile {
		m.host = filepath.Join(dir, path.Base(m.Source))
	}
	return os.Chmod(dir, 0o755)
}

// bindSource mounts what a bind mount reads on at: looked up with its own root
// as "/", so that no link of a stage or a context leads to the host.
func (m *runMount) bindSource(c *runContainer, at string) error {
	top := at + ".tree"
	if err := os.Mkdir(top, 0o755); err != nil {
		return err
	}
	fs := monitor.RootFS{UserXattr: c.job.b.o.Rootless}
	switch {
	case m.host != "":
		fs.Lowers = []string{m.host}
	case m.id == "":
		fs.Lowers = []string{m.src.root.Name()}
	default:
		st, err := c.job.stateOf(c.stageRun, m.From)
		if err != nil {
			return err
		}
		fs.Lowers = lowers(st.layers)
	}
	if !m.ReadOnly {
		fs.Upper, fs.Work = at+".upper", at+".work"
		if err := errors.Join(makeDir(fs.Upper, 0o755), os.Mkdir(fs.Work, 0o700)); err != nil {
			return err
		}
	} else if len(fs.Lowers) == 1 {
		fs.Dir, fs.Lowers = fs.Lowers[0], nil
	}
	if len(fs.Lowers) == 0 && fs.Dir == "" {
		return os.MkdirAll(at, 0o755) // scratch
	}
	if err := monitor.Mount(fs, top); err != nil {
		return err
	}
	root, err := os.Open(top)
	if err != nil {
		return err
	}
	defer root.Close()
	source := path.Join("/", m.Source)
	if m.host != "" {
		source = "/"
	}
	return bindOn(source, root, at, m.isFile)
}

// bindOn binds the file or directory p of root (nil: of the host) on at, which
// it makes.
func bindOn(p string, root *os.File, at string, file bool) (err error) {
	var f *os.File
	if root == nil {
		f, err = os.OpenFile(p, unix.O_PATH|unix.O_NOFOLLOW, 0)
	} else {
		f, err = sys.OpenInRoot(root, p, unix.O_PATH, 0)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	clone, err := sys.Clone(f, "", false, 0)
	if err != nil {
		return err
	}
	defer clone.Close()
	if file {
		err = os.WriteFile(at, nil, 0o600)
	} else {
		err = os.MkdirAll(at, 0o755)
	}
	if err != nil {
		return err
	}
	target, err := os.OpenFile(at, unix.O_PATH, 0)
	if err != nil {
		return err
	}
	defer target.Close()
	return sys.Attach(clone, target)
}

// stateOf is the stage or image that a mount reads; it is built already.
func (j *job) stateOf(r *stageRun, from string) (*stageState, error) {
	ctx := context.Background()
	dep, err := j.plan.named(r.stage, from, sortedKeys(j.req.Contexts))
	switch {
	case err != nil:
		return nil, err
	case dep != nil:
		return j.stage(ctx, dep)
	case from == scratch:
		return start(r.stage.platform), nil
	}
	return j.extra.image(ctx, j, from, r.stage.platform)
}

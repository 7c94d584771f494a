package build

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/ui"
)

// copyCommand is COPY.
func (r *stageRun) copyCommand(ctx context.Context, c *instructions.CopyCommand) error {
	cs, err := r.newCopy("COPY", c.SourcesAndDest, c.Chown, c.Chmod, c.ExcludePatterns)
	if err != nil {
		return err
	}
	for _, p := range c.SourcePaths {
		if isURL(p) || isGit(p) {
			return fmt.Errorf("COPY %s: COPY takes no URL; ADD does", p)
		}
	}
	if err := numericOwner(c.Link, c.Chown); err != nil {
		return err
	}
	cs.parents = c.Parents
	var id string
	if cs.from, id, err = r.source(ctx, c.From); err != nil {
		return err
	}
	st := &step{text: c.String(), history: cs.history(c.SourcesAndDest, c.Chown, c.Chmod), free: c.Link}
	if id != "" {
		st.quick = digestOf("copy", id, fmt.Sprint(c.SourcePaths, c.SourceContents, c.Parents, c.ExcludePatterns), cs.key())
	}
	st.what = func(ctx context.Context) (string, error) {
		if err := cs.gather(ctx, c.SourcePaths); err != nil {
			return "", err
		}
		cs.inlines(c.SourceContents)
		return cs.key(), nil
	}
	st.do = func(ctx context.Context, w *workspace) error { return r.write(ctx, cs, w) }
	return r.step(ctx, st)
}

// addCommand is ADD: COPY that also unpacks archives and fetches URLs.
func (r *stageRun) addCommand(ctx context.Context, c *instructions.AddCommand) error {
	cs, err := r.newCopy("ADD", c.SourcesAndDest, c.Chown, c.Chmod, c.ExcludePatterns)
	if err != nil {
		return err
	}
	if c.Checksum != "" && (len(c.SourcePaths) != 1 || !isURL(c.SourcePaths[0]) && !isGit(c.SourcePaths[0])) {
		return errors.New("ADD --checksum: wants exactly one source, a URL or a git repository")
	}
	if err := numericOwner(c.Link, c.Chown); err != nil {
		return err
	}
	cs.from = &r.job.ctx.source
	st := &step{text: c.String(), history: cs.history(c.SourcesAndDest, c.Chown, c.Chmod), free: c.Link}
	var cleanup []func()
	defer func() {
		for _, f := range cleanup {
			f()
		}
	}()
	st.what = func(ctx context.Context) (string, error) {
		for _, p := range c.SourcePaths {
			f, err := r.addSource(ctx, cs, c, p)
			if f != nil {
				cleanup = append(cleanup, f)
			}
			if err != nil {
				return "", err
			}
		}
		cs.inlines(c.SourceContents)
		return cs.key(), nil
	}
	st.do = func(ctx context.Context, w *workspace) error { return r.write(ctx, cs, w) }
	return r.step(ctx, st)
}

// addSource gathers one source of ADD and returns what to close afterwards.
func (r *stageRun) addSource(ctx context.Context, cs *copyStep, c *instructions.AddCommand, p string) (func(), error) {
	switch {
	case isGit(p):
		return r.addGit(ctx, cs, c, p)
	case isURL(p):
		return r.addURL(ctx, cs, c, p)
	}
	mark := len(cs.groups)
	if err := cs.gather(ctx, []string{p}); err != nil {
		return nil, err
	}
	if c.Unpack != nil && !*c.Unpack {
		return nil, nil
	}
	for i := mark; i < len(cs.groups); i++ {
		g := &cs.groups[i]
		g.unpack = g.items[0].kind() == unix.S_IFREG && cs.from.isArchive(g.items[0].path)
	}
	return nil, nil
}

func (r *stageRun) addGit(ctx context.Context, cs *copyStep, c *instructions.AddCommand, where string) (func(), error) {
	g, err := parseGit(where)
	if err != nil {
		return nil, err
	}
	_, remote, found := strings.Cut(g.remote, "://")
	if !found {
		remote = g.remote
	}
	asked := "git://" + remote + "#" + g.ref
	if id, _, err := r.job.req.policy.judge(asked); err != nil || id != asked {
		return nil, cmp.Or(err, fmt.Errorf("source policy: %s: kist converts no repositories", asked))
	}
	dir, remove, err := r.job.b.scratch()
	if err != nil {
		return nil, err
	}
	commit, err := g.clone(ctx, dir, c.KeepGitDir != nil && *c.KeepGitDir)
	if err != nil {
		return remove, err
	}
	if c.Checksum != "" && !strings.HasPrefix(commit, c.Checksum) {
		return remove, fmt.Errorf("ADD %s: the commit is %s, not %s", where, commit, c.Checksum)
	}
	r.job.extra.read(redacted(where), "sha1", commit)
	root, err := os.Open(dir)
	if err != nil {
		return remove, err
	}
	src := &source{name: where, root: root, owned: true}
	was := cs.from
	cs.from = src
	err = cs.add(ctx, strings.TrimPrefix(path.Join("/", g.dir), "/"), "")
	cs.from = was
	return func() { root.Close(); remove() }, err
}

func (r *stageRun) addURL(ctx context.Context, cs *copyStep, c *instructions.AddCommand, where string) (func(), error) {
	name, err := urlName(where)
	if err != nil && cs.into {
		return nil, err
	}
	where, pinned, err := r.job.req.policy.judge(where)
	if err != nil {
		return nil, err
	}
	if !isURL(where) {
		return nil, fmt.Errorf("source policy: %s: not a URL", where)
	}
	f, err := r.job.b.fetch(ctx, where)
	if err != nil {
		return nil, err
	}
	if pinned != "" && pinned != "sha256:"+f.SHA256 {
		return nil, fmt.Errorf("ADD %s: its digest is sha256:%s, and the source policy wants %s", where, f.SHA256, pinned)
	}
	if c.Checksum != "" && c.Checksum != "sha256:"+f.SHA256 {
		return nil, fmt.Errorf("ADD %s: its digest is sha256:%s, not %s", where, f.SHA256, c.Checksum)
	}
	r.job.extra.read(redacted(where), "sha256", f.SHA256)
	root, err := os.Open(filepath.Dir(f.path))
	if err != nil {
		return nil, err
	}
	src := &source{name: where, root: root, owned: true}
	items, err := src.scan(ctx, filepath.Base(f.path), nil)
	if err != nil {
		return func() { root.Close() }, err
	}
	items[0].sum = f.SHA256
	items[0].stat.Mtim = unix.NsecToTimespec(f.LastModified.UnixNano())
	if f.LastModified.IsZero() {
		items[0].stat.Mtim = unix.Timespec{}
	}
	unpack := c.Unpack != nil && *c.Unpack
	// docker: a file from a URL is its owner's alone.
	cs.groups = append(cs.groups, group{src: src, items: items, rel: name, unpack: unpack, fixed: 0o600})
	return func() { root.Close() }, nil
}

// newCopy checks and prepares what COPY and ADD have in common.
func (r *stageRun) newCopy(verb string, p instructions.SourcesAndDest, chown, mode string, exclude []string) (*copyStep, error) {
	cs := &copyStep{verb: verb, chown: chown, modeStr: mode, dest: r.abs(p.DestPath)}
	last := path.Base(p.DestPath)
	cs.into = strings.HasSuffix(p.DestPath, "/") || last == "." || last == ".."
	if len(p.SourcePaths)+len(p.SourceContents) > 1 && !cs.into {
		return nil, fmt.Errorf("%s: with more than one source the destination must end with a / (%s/)", verb, p.DestPath)
	}
	var err error
	if cs.mode, err = parseChmod(mode); err != nil {
		return nil, err
	}
	cs.exclude, err = newIgnore("--exclude", exclude)
	return cs, err
}

// inlines adds the heredocs.
func (c *copyStep) inlines(contents []instructions.SourceContent) {
	for _, h := range contents {
		data := []byte(h.Data)
		if data == nil {
			data = []byte{}
		}
		c.groups = append(c.groups, group{data: data, rel: path.Base(h.Path)})
	}
}

func (c *copyStep) history(p instructions.SourcesAndDest, chown, mode string) string {
	words := []string{c.verb}
	if c.parents {
		words = append(words, "--parents")
	}
	if chown != "" {
		words = append(words, "--chown="+chown)
	}
	if mode != "" {
		words = append(words, "--chmod="+mode)
	}
	words = append(words, p.SourcePaths...)
	for _, h := range p.SourceContents {
		words = append(words, "<<"+h.Path)
	}
	return strings.Join(append(words, p.DestPath), " ")
}

// write does the step in a view of the stage.
func (r *stageRun) write(ctx context.Context, cs *copyStep, w *workspace) error {
	var owner *identity
	if cs.chown != "" {
		id, err := ownerOf(w, cs.chown)
		if err != nil {
			return fmt.Errorf("--chown=%s: %w", cs.chown, err)
		}
		owner = &id
	}
	t := &tree{root: w.view.Root, epoch: r.job.req.Epoch}
	defer t.forget()
	return cs.apply(ctx, t, owner)
}

// numericOwner refuses names where no passwd is read: a layer of --link is the
// same on every base.
func numericOwner(link bool, chown string) error {
	if link && strings.Trim(chown, "0123456789:") != "" {
		return ui.Hint(fmt.Errorf("--chown=%s with --link: names mean nothing without the base", chown), "give numbers: --chown=UID:GID")
	}
	return nil
}

// ownerOf looks up who is to own files. docker: a bare number is the group too.
func ownerOf(w *workspace, spec string) (identity, error) {
	id, err := lookup(w.view.Root, spec, func(uid int) int { return uid })
	if allDigits(spec) {
		id.gid = id.uid
	}
	return id, err
}

// workdirStep is WORKDIR: the directory is made where it is missing, as USER's.
func (r *stageRun) workdirStep(ctx context.Context, c *instructions.WorkdirCommand) error {
	dir := r.abs(c.Path)
	r.config.Config.WorkingDir = dir
	user := r.config.Config.User
	return r.step(ctx, &step{
		text: "WORKDIR " + c.Path, history: "WORKDIR " + dir, optional: true,
		what: func(context.Context) (string, error) { return digestOf("workdir", dir, user), nil },
		do: func(ctx context.Context, w *workspace) error {
			id, err := ownerOf(w, user)
			if err != nil {
				return fmt.Errorf("the owner: %w", err)
			}
			t := &tree{root: w.view.Root, epoch: r.job.req.Epoch}
			defer t.forget()
			return errors.Join(t.mkdirAll(dir, id.uid, id.gid), t.close())
		},
	})
}

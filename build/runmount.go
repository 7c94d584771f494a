package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/container/monitor"
	"github.com/kist-containers/kist/internal/state"
	"github.com/kist-containers/kist/internal/sys"
)

// A runMount is one --mount of a RUN, or the script of a heredoc.
type runMount struct {
	*instructions.Mount
	kind   string
	target string
	isFile bool
	// key is the mount's part in the step's key, without what it reads.
	key string
	// src and id are where a bind mount or the first content of a cache comes
	// from; st is the stage or image behind it, nil for a context.
	src *source
	id  string
	st  *stageState
	// data is a script or a secret; host the directory of a cache, the file to
	// bind, or the socket of an agent.
	data []byte
	host string
}

// newMount checks one --mount.
func (r *stageRun) newMount(ctx context.Context, s *runStep, m *instructions.Mount) (*runMount, error) {
	rm := &runMount{Mount: m, kind: string(m.Type), target: m.Target}
	var err error
	switch m.Type {
	case instructions.MountTypeSecret:
		return rm, r.secret(s, rm)
	case instructions.MountTypeSSH:
		return rm, r.ssh(s, rm)
	}
	rm.target = path.Clean(r.abs(m.Target))
	if rm.target == "/" {
		return nil, fmt.Errorf("RUN --mount: the target / is the root file system itself")
	}
	rm.key = digestOf(rm.kind, rm.target, m.From, path.Join("/", m.Source), m.CacheID, string(m.CacheSharing),
		fmt.Sprint(m.ReadOnly, m.SizeLimit, ids(m.UID), ids(m.GID), ids(m.Mode)))
	if m.Type == instructions.MountTypeBind || m.Type == instructions.MountTypeCache && m.From != "" {
		if rm.src, rm.id, err = r.source(ctx, m.From); err != nil {
			return nil, err
		}
		st, err := rm.src.stat(cmpOr(strings.TrimPrefix(path.Join("/", m.Source), "/"), "."))
		if err != nil {
			return nil, rm.src.missing(m.Source)
		}
		rm.isFile = st.Mode&unix.S_IFMT != unix.S_IFDIR
	}
	return rm, nil
}

func ids(n *uint64) string {
	if n == nil {
		return "-"
	}
	return fmt.Sprint(*n)
}

func idOr(n *uint64, other int) int {
	if n == nil {
		return other
	}
	return int(*n)
}

// secret finds a secret. Only that it is asked for is in the key, not what it is.
func (r *stageRun) secret(s *runStep, m *runMount) error {
	id := m.CacheID
	if id == "" {
		id = path.Base(cmpOr(m.Target, m.Source))
	}
	if id == "" || id == "." || id == "/" {
		return errors.New("RUN --mount=type=secret: wants an id or a target")
	}
	m.key = digestOf("secret", id, m.Target, fmt.Sprint(m.Required, m.Env != nil, ids(m.UID), ids(m.GID), ids(m.Mode)))
	m.isFile = true
	if m.target = m.Target; m.target == "" {
		m.target = "/run/secrets/" + path.Base(id)
	}
	m.target = r.abs(m.target)
	given, ok := r.job.req.Secrets[id]
	if !ok {
		m.kind = "absent"
		m.target = "/dev/null"
		if m.Required {
			return fmt.Errorf("secret %s: required, and --secret id=%s was not given", id, id)
		}
		return nil
	}
	var err error
	if m.data, err = given.read(); err != nil {
		return fmt.Errorf("--secret id=%s: %w", id, err)
	}
	if m.Env != nil {
		s.hidden = append(s.hidden, cmpOr(*m.Env, id)+"="+string(m.data))
		if m.Target == "" {
			m.kind = "absent"
			m.target = "/dev/null"
		}
	}
	return nil
}

// maxSecret is BuildKit's bound.
const maxSecret = 500 << 10

func (s Secret) read() ([]byte, error) {
	if s.Env != "" {
		v, ok := os.LookupEnv(s.Env)
		if !ok {
			return nil, fmt.Errorf("$%s is not set", s.Env)
		}
		return []byte(v), nil
	}
	f, err := os.Open(s.File)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err == nil && len(data) > maxSecret {
		err = fmt.Errorf("%s: larger than 500 KiB", s.File)
	}
	return data, err
}

// ssh finds an agent's socket.
func (r *stageRun) ssh(s *runStep, m *runMount) error {
	id := cmpOr(m.CacheID, "default")
	n := 0
	for _, other := range s.mounts {
		if other.kind == "ssh" {
			n++
		}
	}
	if m.target = m.Target; m.target == "" {
		m.target = fmt.Sprintf("/run/buildkit/ssh_agent.%d", n)
	}
	m.target, m.isFile = r.abs(m.target), true
	m.key = digestOf("ssh", id, m.target, fmt.Sprint(m.Required, ids(m.UID), ids(m.GID), ids(m.Mode)))
	socket, ok := r.job.req.SSH[id]
	if !ok {
		m.kind, m.target = "absent", "/dev/null"
		if m.Required {
			return fmt.Errorf("ssh %s: required, and --ssh %s was not given", id, id)
		}
		return nil
	}
	m.host = socket
	if n == 0 {
		s.hidden = append(s.hidden, "SSH_AUTH_SOCK="+m.target)
	}
	return nil
}

// identity is the mount's part in the step's key.
func (m *runMount) identity(ctx context.Context) (string, error) {
	if m.src == nil || m.id != "" {
		return digestOf(m.key, m.id), nil
	}
	items, err := m.src.scan(ctx, cmpOr(strings.TrimPrefix(path.Join("/", m.Source), "/"), "."), nil)
	if err != nil {
		return "", err
	}
	if err := m.src.sum(ctx, items); err != nil {
		return "", err
	}
	return digestOf(m.key, m.src.digest(items)), nil
}

// prepare does what needs no mounts.
func (m *runMount) prepare(ctx context.Context, c *runContainer) error {
	switch m.kind {
	case "cache":
		return m.prepareCache(ctx, c)
	case "bind":
		if m.src.ignore == nil || m.id != "" {
			return nil
		}
		// What .dockerignore leaves out must not be seen, so a copy is mounted.
		dir, err := os.MkdirTemp(c.w.dir, "context-")
		if err != nil {
			return err
		}
		m.host = dir
		return m.copyTo(ctx, dir)
	case "script":
		m.host = filepath.Join(c.w.dir, "etc", "script-"+path.Base(m.target))
		return errors.Join(os.WriteFile(m.host, m.data, 0o755), os.Chmod(m.host, 0o755))
	case "ssh":
		return m.proxy(c)
	}
	return nil
}

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

// proxy listens for the step where the caller's own agent cannot be reached by
// other users, and hands connections on to it.
func (m *runMount) proxy(c *runContainer) error {
	// Relative to the working directory of nobody: the address of a socket has at
	// most 108 bytes, which a deep root would exceed.
	dir, err := os.MkdirTemp("", "kist-ssh-")
	if err != nil {
		return err
	}
	c.undone = append(c.undone, func() error { return os.RemoveAll(dir) })
	agent := m.host
	m.host = filepath.Join(dir, "agent")
	l, err := net.Listen("unix", m.host)
	if err != nil {
		return err
	}
	c.undone = append(c.undone, l.Close)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go relaySocket(conn, agent)
		}
	}()
	if err := os.Chown(m.host, idOr(m.UID, 0), idOr(m.GID, 0)); err != nil {
		return err
	}
	return os.Chmod(m.host, os.FileMode(idOr(m.Mode, 0o600)))
}

func relaySocket(conn net.Conn, agent string) {
	defer conn.Close()
	up, err := net.Dial("unix", agent)
	if err != nil {
		return
	}
	defer up.Close()
	go func() {
		io.Copy(up, conn)
		up.(*net.UnixConn).CloseWrite()
	}()
	io.Copy(conn, up)
}

// mount makes the mounts of the container. at is a free name in the step's
// scratch space; this thread's mounts are its own.
func (m *runMount) mount(c *runContainer, at string) ([]specs.Mount, error) {
	bind := specs.Mount{Destination: m.target, Type: "bind", Source: m.host, Options: []string{"rbind", "rprivate", "nosuid", "nodev"}}
	if m.Mount != nil && m.ReadOnly && m.kind != "ssh" {
		bind.Options = append(bind.Options, "ro")
	}
	switch m.kind {
	case "absent":
		return nil, nil
	case "tmpfs":
		options := []string{"nosuid", "nodev", "mode=1777"}
		if m.SizeLimit > 0 {
			options = append(options, fmt.Sprintf("size=%d", m.SizeLimit))
		}
		return []specs.Mount{{Destination: m.target, Type: "tmpfs", Source: "tmpfs", Options: options}}, nil
	case "secret":
		bind.Source = at
		return []specs.Mount{bind}, m.secretFile(at)
	case "bind":
		if m.host == "" || !m.ReadOnly {
			bind.Source = at
			return []specs.Mount{bind}, m.bindSource(c, at)
		}
	}
	return []specs.Mount{bind}, nil
}

// secretFile puts the secret on a tmpfs that only this step has.
func (m *runMount) secretFile(at string) error {
	dir := at + ".tmpfs"
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700,size=1m"); err != nil {
		return os.NewSyscallError("mount tmpfs", err)
	}
	file := filepath.Join(dir, "secret")
	if err := os.WriteFile(file, m.data, 0o600); err != nil {
		return err
	}
	if err := os.Chown(file, idOr(m.UID, 0), idOr(m.GID, 0)); err != nil {
		return err
	}
	if err := os.Chmod(file, os.FileMode(idOr(m.Mode, 0o400))); err != nil {
		return err
	}
	return bindOn(file, nil, at, true)
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

// A cacheInfo is <root>/build/mount/<id>/info.json.
type cacheInfo struct {
	Version int    `json:"version"`
	ID      string `json:"id"`
}

// prepareCache finds the directory of a cache mount and locks it as asked.
func (m *runMount) prepareCache(ctx context.Context, c *runContainer) error {
	ns := c.job.plan.args["BUILDKIT_CACHE_MOUNT_NS"]
	id := ns + "/" + cmpOr(m.CacheID, path.Clean(m.target))
	// Hashed: the id is the Dockerfile's and never a file name.
	base := digestOf("mount", id, m.From)[:32]
	lockName := func(name string) string { return c.job.b.dir("mount", name+".lock") }
	name := base
	take := func(l *state.Lock, err error) error {
		if err == nil {
			c.undone = append(c.undone, func() error { l.Unlock(); return nil })
		}
		return err
	}
	var err error
	switch m.CacheSharing {
	case instructions.MountSharingLocked:
		err = take(state.AcquireLock(ctx, lockName(name)))
	case instructions.MountSharingPrivate:
		for n := 1; ; n++ {
			if err = take(state.TryLock(lockName(name))); !errors.Is(err, state.ErrLocked) {
				break
			}
			name = fmt.Sprintf("%s-%d", base, n)
		}
	default:
		err = take(state.AcquireRLock(ctx, lockName(name)))
	}
	if err != nil {
		return err
	}
	return m.makeCache(ctx, c, name, id)
}

// makeCache makes the directory where it is missing: filled under another name
// and renamed, so that it is never half full.
func (m *runMount) makeCache(ctx context.Context, c *runContainer, name, id string) error {
	dir := c.job.b.dir("mount", name)
	m.host = filepath.Join(dir, "data")
	if _, err := os.Stat(m.host); err == nil {
		return nil
	}
	tmp, err := os.MkdirTemp(c.job.b.dir("mount"), ".tmp-")
	if err != nil {
		return err
	}
	data := filepath.Join(tmp, "data")
	if err := os.Mkdir(data, 0o755); err != nil {
		return err
	}
	if m.src != nil {
		host := m.host
		if err := m.copyTo(ctx, data); err != nil {
			return err
		}
		m.host = host
	}
	if err := os.Chown(data, idOr(m.UID, 0), idOr(m.GID, 0)); err != nil {
		return err
	}
	if err := os.Chmod(data, os.FileMode(idOr(m.Mode, 0o755))); err != nil {
		return err
	}
	if err := state.WriteJSON(filepath.Join(tmp, "info.json"), cacheInfo{1, id}); err != nil {
		return err
	}
	err = os.Rename(tmp, dir)
	if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOTEMPTY) {
		return os.RemoveAll(tmp) // another step was first
	}
	return err
}

// mountRecords lists the directories of cache mounts.
func (b *Builder) mountRecords() []Record {
	entries, _ := os.ReadDir(b.dir("mount"))
	var all []Record
	for _, e := range entries {
		var info cacheInfo
		dir := b.dir("mount", e.Name())
		if !e.IsDir() || state.IsLitter(e.Name()) || state.ReadJSON(filepath.Join(dir, "info.json"), &info) != nil {
			continue
		}
		rec := Record{Key: e.Name(), Kind: "mount", Text: "cache mount " + strings.TrimPrefix(info.ID, "/"), Size: sizeOf(dir)}
		if st, err := os.Stat(filepath.Join(dir, "data")); err == nil {
			rec.LastUsed = st.ModTime()
			rec.Created = st.ModTime()
		}
		if st, err := os.Stat(b.dir("mount", e.Name()+".lock")); err == nil && st.ModTime().After(rec.LastUsed) {
			rec.LastUsed = st.ModTime()
		}
		all = append(all, rec)
	}
	return all
}

// sizeOf is what the files below dir take, in bytes.
func sizeOf(dir string) (total int64) {
	filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err != nil {
			return nil // it goes away while we look
		}
		if info, err := d.Info(); err == nil && info.Mode().IsRegular() {
			total += info.Size()
		}
		return nil
	})
	return total
}

package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// A runMount is one --mount of a RUN, or the script of a heredoc.
type runMount struct {
	*instructions.Mount
	kind   string
	target string
	isFile bool
	// readOnly is of a volume; other mounts say it themselves.
	readOnly bool
	// key is the mount's part in the step's key, without what it reads.
	key string
	// src and id are where a bind mount or the first content of a cache comes
	// from.
	src *source
	id  string
	// data is a script or a secret; host the directory of a cache, the file to
	// bind, or the step's socket of an agent.
	data  []byte
	host  string
	agent *Agent
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
	case "volume":
		bind.Options = []string{"rbind", "rprivate"}
		if m.readOnly {
			bind.Options = append(bind.Options, "ro", "rro")
		}
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

package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/kist-containers/kist/container/monitor"
	"github.com/kist-containers/kist/container/runtime"
	"github.com/kist-containers/kist/internal/sys"
	"github.com/kist-containers/kist/volume"
)

// IDMap gives Size ids from Inside on, as the container sees them, those from
// Outside on.
type IDMap struct {
	Inside  uint32 `json:"inside"`
	Outside uint32 `json:"outside"`
	Size    uint32 `json:"size"`
}

// Ids that nobody has: above those that systemd gives to containers and below
// 2^31, which the kernel takes as negative here and there (ping_group_range).
const (
	firstAutoID = 0x70000000
	lastAutoID  = 0x7fff0000
	autoIDs     = 1 << 16 // how many a container gets
)

// settleUsers turns the wish for a user namespace into its mapping.
func (e *Engine) settleUsers(ctx context.Context, c *Config) (err error) {
	s := &c.Spaces
	if other, ok := strings.CutPrefix(s.User, "container:"); ok {
		return e.shareUsers(c, other)
	}
	mode, options, _ := strings.Cut(s.User, ":")
	switch {
	case len(s.UIDs)+len(s.GIDs) > 0:
	case mode == "" || mode == "host" || mode == "ns":
		return nil
	case mode == "auto":
		err = e.autoUsers(ctx, c, options)
	default:
		var m IDMap
		m, err = parseIDMap(s.User)
		s.UIDs, s.GIDs = []IDMap{m}, []IDMap{m}
	}
	if err != nil {
		return fmt.Errorf("--userns %s: %w", s.User, err)
	}
	if len(s.UIDs) == 0 {
		s.UIDs = s.GIDs
	}
	if len(s.GIDs) == 0 {
		s.GIDs = s.UIDs
	}
	if err := e.copyShifted(ctx, c); err != nil {
		return fmt.Errorf("--userns %s: %w", s.User, err)
	}
	return nil
}

// keepCaller settles --userns keep-id and nomap. It comes before the image has its
// say: its user is not the caller.
func (e *Engine) keepCaller(c *Config) error {
	mode, options, _ := strings.Cut(c.Spaces.User, ":")
	if mode != "keep-id" && mode != "nomap" || len(c.Spaces.UIDs)+len(c.Spaces.GIDs) > 0 {
		return nil
	}
	if err := e.keepUsers(c, mode, options); err != nil {
		return fmt.Errorf("--userns %s: %w", c.Spaces.User, err)
	}
	return nil
}

// identity reports whether everybody stays who they are, so that no owner need be
// translated.
func identity(m []IDMap) bool {
	return len(m) > 0 && !slices.ContainsFunc(m, func(x IDMap) bool { return x.Inside != x.Outside })
}

func (e *Engine) shareUsers(c *Config, other string) error {
	o, err := e.read(other)
	if err != nil {
		return fmt.Errorf("--userns container:%s: %w", shortID(other), err)
	}
	if len(o.Spaces.UIDs) == 0 {
		c.Spaces.User = "host"
	}
	c.Spaces.UIDs, c.Spaces.GIDs = o.Spaces.UIDs, o.Spaces.GIDs
	return nil
}

// keepUsers maps the caller to the same id inside, or leaves the caller out. The
// caller is root of the user's namespace here.
func (e *Engine) keepUsers(c *Config, mode, options string) error {
	if !e.Rootless {
		return errors.New("you are root, who is mapped anyway; it is for other users")
	}
	s := &c.Spaces
	own := [2]IDMap{}
	total := [2]uint32{}
	for i, file := range []string{"/proc/self/uid_map", "/proc/self/gid_map"} {
		list, err := readIDMap(file)
		if err != nil {
			return err
		}
		own[i] = IDMap{Inside: list[0].Outside}
		for _, m := range list {
			total[i] += m.Size
		}
	}
	if mode == "nomap" {
		s.UIDs, s.GIDs = []IDMap{{0, 1, total[0] - 1}}, []IDMap{{0, 1, total[1] - 1}}
		return nil
	}
	caller := strconv.Itoa(int(own[0].Inside))
	for _, o := range splitOptions(options) {
		key, value, _ := strings.Cut(o, "=")
		n, err := strconv.ParseUint(value, 10, 32)
		switch {
		case err != nil:
			return fmt.Errorf("%s: want a number", o)
		case key == "uid":
			own[0].Inside = uint32(n)
		case key == "gid":
			own[1].Inside = uint32(n)
		case key == "size":
			total = [2]uint32{uint32(n), uint32(n)}
		default:
			return fmt.Errorf("%s: want uid=, gid= or size=", key)
		}
	}
	s.UIDs, s.GIDs = keepMap(own[0].Inside, total[0]), keepMap(own[1].Inside, total[1])
	if c.User == "" {
		c.User = fmt.Sprintf("%d:%d", own[0].Inside, own[1].Inside)
		c.Accounts.Caller, _ = hostAccount(caller)
	}
	return nil
}

// keepMap gives id inside the id 0 outside, and the other ids what is left of
// total ids in order.
func keepMap(id, total uint32) []IDMap {
	var m []IDMap
	if below := min(id, total-1); below > 0 {
		m = append(m, IDMap{0, 1, below})
	}
	m = append(m, IDMap{id, 0, 1})
	if id+1 < total {
		m = append(m, IDMap{id + 1, id + 1, total - id - 1})
	}
	return m
}

func splitOptions(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

// readIDMap reads a map of user_namespaces(7).
func readIDMap(file string) ([]IDMap, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var list []IDMap
	for line := range strings.Lines(string(data)) {
		var m IDMap
		if _, err := fmt.Sscan(line, &m.Inside, &m.Outside, &m.Size); err != nil {
			return nil, fmt.Errorf("%s: %q", file, line)
		}
		list = append(list, m)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%s is empty", file)
	}
	return list, nil
}

// parseIDMap reads CONTAINER:HOST:SIZE.
func parseIDMap(s string) (IDMap, error) {
	parts := strings.Split(s, ":")
	if len(parts) == 2 {
		parts = append(parts, "1")
	}
	if len(parts) != 3 {
		return IDMap{}, fmt.Errorf("%q: want CONTAINER:HOST:SIZE", s)
	}
	var n [3]uint32
	for i, p := range parts {
		v, err := strconv.ParseUint(p, 10, 32)
		if err != nil {
			return IDMap{}, fmt.Errorf("%q is not an id", p)
		}
		n[i] = uint32(v)
	}
	m := IDMap{n[0], n[1], n[2]}
	if m.Size == 0 || uint64(m.Inside)+uint64(m.Size) > 1<<32-1 || uint64(m.Outside)+uint64(m.Size) > 1<<32-1 {
		return m, fmt.Errorf("%q: ids are below %d", s, uint32(highestID))
	}
	return m, nil
}

func ociMaps(list []IDMap) []specs.LinuxIDMapping {
	var m []specs.LinuxIDMapping
	for _, x := range list {
		m = append(m, specs.LinuxIDMapping{ContainerID: x.Inside, HostID: x.Outside, Size: x.Size})
	}
	return m
}

// shifts reports whether the container sees its files through mounts that
// translate owners.
func (e *Engine) shifts(c *Config) bool {
	return len(c.Spaces.UIDs) > 0 && !e.Rootless && !(identity(c.Spaces.UIDs) && identity(c.Spaces.GIDs))
}

// userNamespace opens a namespace of the container's mapping, nil without one.
func (e *Engine) userNamespace(c *Config) (*os.File, error) {
	if !e.shifts(c) {
		return nil, nil
	}
	ns, err := runtime.UserNamespace(withSelf(c.Spaces.UIDs), withSelf(c.Spaces.GIDs))
	if err != nil {
		return nil, fmt.Errorf("user namespace: %w", err)
	}
	return ns, nil
}

// withSelf adds this process's user: overlay makes its temporary files as that, so
// that it must be one on disk, any that the container does not have.
func withSelf(list []IDMap) []specs.LinuxIDMapping {
	maps := ociMaps(list)
	if slices.ContainsFunc(list, func(m IDMap) bool { return m.Outside == 0 }) {
		return maps
	}
	return append(maps, specs.LinuxIDMapping{ContainerID: highestID - 1, HostID: 0, Size: 1})
}

// hostID is what id inside is outside.
func hostID(list []IDMap, id uint32) (uint32, bool) {
	for _, m := range list {
		if id >= m.Inside && id-m.Inside < m.Size {
			return m.Outside + id - m.Inside, true
		}
	}
	return id, len(list) == 0
}

// userNamespace applies --userns to the specification.
func (m *specMaker) userNamespace(s *specs.Spec) error {
	c := m.c
	ns := specs.LinuxNamespace{Type: specs.UserNamespace}
	switch {
	case strings.HasPrefix(c.Spaces.User, "container:"), strings.HasPrefix(c.Spaces.User, "ns:"):
		path, _, err := m.space(c.Spaces.User, "userns", "user")
		if err != nil {
			return err
		}
		ns.Path = path
	case len(c.Spaces.UIDs) == 0:
		return nil
	default:
		s.Linux.UIDMappings, s.Linux.GIDMappings = ociMaps(c.Spaces.UIDs), ociMaps(c.Spaces.GIDs)
	}
	s.Linux.Namespaces = append(s.Linux.Namespaces, ns)
	return nil
}

// ownFiles makes the container's root the owner of the files that kist writes
// for it.
func (m *specMaker) ownFiles() error {
	if !m.e.translates(m.c) {
		return nil
	}
	uid, gid := m.owners().outside(0, 0)
	for _, f := range m.files {
		if !strings.HasPrefix(f, m.e.runDir(m.c.ID)+"/") {
			continue
		}
		if err := os.Chown(f, int(uid), int(gid)); err != nil {
			return err
		}
	}
	return nil
}

// plainRoot is the image's root file system with its owners as they are on disk,
// from which new volumes are filled.
func (e *Engine) plainRoot(c *Config, root *os.File) (*os.File, error) {
	isVolume := func(m volume.Mount) bool { return m.Type == volume.TypeVolume }
	switch {
	case !slices.ContainsFunc(c.Mounts, isVolume):
		return root, nil
	case len(c.Lowers) < 2:
		// Not through overlay: there a file's extents can be shared.
		return os.Open(append(c.Lowers, c.Rootfs)[0])
	case !e.shifts(c):
		return root, nil
	}
	return monitor.Open(monitor.RootFS{Lowers: c.Lowers})
}

// pingGroups is docker's net.ipv4.ping_group_range: all groups that there are.
func (m *specMaker) pingGroups() string {
	last := uint32(1<<31 - 1)
	for _, g := range m.c.Spaces.GIDs {
		if g.Inside == 0 {
			last = min(last, g.Size-1)
		}
	}
	return fmt.Sprintf("0 %d", last)
}

// openSandbox lets all users of a sandbox bind low ports and ping, as docker's
// sysctls do. The sandbox belongs to the host, so that root of a user namespace
// below could not write them.
func (m *specMaker) openSandbox() error {
	if m.netns == "" || !m.e.shifts(m.c) || len(m.c.Network.Networks) == 0 {
		return nil
	}
	ns, err := os.Open(m.netns)
	if err != nil {
		return err
	}
	defer ns.Close()
	return sys.InNetwork(ns, func() error {
		return errors.Join(
			os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 2147483647"), 0),
			os.WriteFile("/proc/sys/net/ipv4/ip_unprivileged_port_start", []byte("0"), 0))
	})
}

package runtime

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/cgroups"
	_ "github.com/opencontainers/cgroups/devices" // lets the managers set device rules
	"github.com/opencontainers/cgroups/manager"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

const cgroupRoot = "/sys/fs/cgroup"

// unifiedCgroups reports whether this host has cgroup v2 alone.
func unifiedCgroups() bool { return cgroups.IsCgroup2UnifiedMode() }

// A group is a container's cgroup while it is made. The zero value is none.
type group struct {
	manager cgroups.Manager
	res     *cgroups.Resources
	limited []string // the controllers that limits were asked of
	// optional: a user without delegated cgroups may do without.
	optional bool
	// pids is the limit to set last: on v2 the threads of init count as well,
	// and end with its execve.
	pids *int64
}

// planCgroup says in g which cgroup the container gets, and refuses limits that
// this host cannot apply.
func (r *Runtime) planCgroup(rec *record, spec *specs.Spec, g *group) error {
	res := spec.Linux.Resources
	limited := wanted(res)
	if r.NoCgroup {
		if len(limited) > 0 {
			return fmt.Errorf("set limits (%s): cgroups are disabled", strings.Join(limited, ", "))
		}
		return nil
	}
	rec.CgroupsPath, rec.Systemd = spec.Linux.CgroupsPath, r.Systemd
	if rec.CgroupsPath == "" {
		rec.CgroupsPath = "/" + rec.ID
		if r.Systemd {
			rec.CgroupsPath = "system.slice:kist:" + rec.ID
		}
	}
	if err := available(limited); err != nil {
		return err
	}
	*g = group{res: convert(res), limited: limited, optional: r.Rootless && len(limited) == 0}
	m, err := r.cgroup(rec, g.res)
	if err != nil {
		return err
	}
	if !unifiedCgroups() && !rec.Systemd {
		// Of a hybrid host's unified hierarchy nothing is wanted.
		rec.CgroupPaths = m.GetPaths()
		delete(rec.CgroupPaths, "")
		if m, err = r.cgroup(rec, g.res); err != nil {
			return err
		}
	}
	g.manager, rec.CgroupPaths = m, m.GetPaths()
	return nil
}

// make makes the cgroup and sets its limits. pid is the process to put there,
// which only systemd wants to know: init joins by itself; see join.
func (g *group) make(rec *record, pid int) error {
	if g.manager == nil {
		return nil
	}
	if !rec.Systemd {
		pid = -1
	}
	if unifiedCgroups() {
		g.pids, g.res.PidsLimit = g.res.PidsLimit, nil
	}
	// As all see of the host's cgroups, root of a user namespace sees of its own.
	defer unix.Umask(unix.Umask(0o022))
	err := g.manager.Apply(pid)
	rec.CgroupPaths = g.manager.GetPaths()
	if err == nil && g.res.CpuRtRuntime > 0 && !unifiedCgroups() {
		err = allowRealtime(rec.CgroupPaths["cpu"], g.res.CpuRtRuntime)
	}
	if err == nil {
		err = g.manager.Set(g.res)
	}
	if err != nil && g.optional {
		rec.CgroupPaths, g.manager = nil, nil
		return nil
	}
	return cgroupError(err, g.limited)
}

// finish sets what could not be set while init came up.
func (g *group) finish() error {
	if g.manager == nil || g.pids == nil {
		return nil
	}
	return cgroupError(g.manager.Set(&cgroups.Resources{PidsLimit: g.pids, SkipDevices: true}), g.limited)
}

// directory opens the cgroup to clone init right into it, which only cgroup v2
// can; see CLONE_INTO_CGROUP in clone(2). Otherwise it returns nil.
func (g *group) directory(rec *record) (*os.File, error) {
	if g.manager == nil || rec.Systemd || !unifiedCgroups() {
		return nil, nil
	}
	return os.OpenFile(rec.CgroupPaths[""], unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

// joinFiles opens the files that init writes "0" to in order to join. "tasks"
// moves the writing thread only. Moving a whole process takes a lock that waits
// for an RCU grace period, some 10 ms; see cgroup_procs_write_start in the
// kernel's cgroup.c. init's other threads end at execve.
func (g *group) joinFiles(rec *record) ([]*os.File, error) {
	if g.manager == nil || rec.Systemd || unifiedCgroups() {
		return nil, nil
	}
	return openTasks(rec, func(string) string { return "" })
}

// openTasks opens the files through which a thread joins the container's cgroups,
// or those below, by controller.
func openTasks(rec *record, below func(controller string) string) ([]*os.File, error) {
	name := "tasks"
	if unifiedCgroups() {
		name = "cgroup.procs" // v2 moves threads only within a domain
	}
	var files []*os.File
	for controller, path := range rec.CgroupPaths {
		f, err := os.OpenFile(filepath.Join(path, filepath.Join("/", below(controller)), name), os.O_WRONLY, 0)
		if errors.Is(err, os.ErrNotExist) && controller == "" && !unifiedCgroups() {
			continue // systemd's part of a hybrid host's unified hierarchy
		}
		if err != nil {
			closeAll(files)
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

func cgroupError(err error, limited []string) error {
	if err == nil {
		return nil
	}
	if len(limited) > 0 && errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("set limits (%s): this user's cgroups are not delegated: %w", strings.Join(limited, ", "), err)
	}
	var path *os.PathError
	if errors.As(err, &path) && path.Op == "write" {
		file := filepath.Base(path.Path)
		controller, _, _ := strings.Cut(file, ".")
		return fmt.Errorf("set limits: this host's %s controller does not take %s: %w", controller, file, path.Err)
	}
	return fmt.Errorf("cgroup: %w", err)
}

// cgroup returns the manager of a recorded container's cgroup.
func (r *Runtime) cgroup(rec *record, res *cgroups.Resources) (cgroups.Manager, error) {
	if res == nil {
		res = &cgroups.Resources{SkipDevices: true}
	}
	c := &cgroups.Cgroup{Resources: res, Systemd: rec.Systemd, Rootless: r.Rootless}
	if rec.Systemd {
		parts := strings.Split(rec.CgroupsPath, ":")
		if len(parts) != 3 {
			return nil, fmt.Errorf("cgroupsPath %q: with systemd want slice:prefix:name", rec.CgroupsPath)
		}
		c.Parent, c.ScopePrefix, c.Name = parts[0], parts[1], parts[2]
	} else {
		c.Path = filepath.Join("/", rec.CgroupsPath)
	}
	return manager.NewWithPaths(c, rec.CgroupPaths)
}

// OOMKilled reports whether the kernel has killed a process of the container
// because of its memory limit. It is to be asked before Delete.
func (r *Runtime) OOMKilled(id string) (bool, error) {
	rec, err := r.read(id)
	if err != nil {
		return false, err
	}
	if len(rec.CgroupPaths) == 0 {
		return false, nil
	}
	m, err := r.cgroup(rec, nil)
	if err != nil {
		return false, err
	}
	n, err := m.OOMKillCount()
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return n > 0, err
}

// hierarchy is one mounted cgroup v1 hierarchy.
type hierarchy struct {
	name, mountpoint string
	controllers      []string
	aliases          []string
	fstype           string
	options          []string
}

// hierarchiesV1 reads the hierarchies of this host; see proc_pid_mountinfo(5).
func hierarchiesV1() ([]hierarchy, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var list []hierarchy
	for lines := bufio.NewScanner(f); lines.Scan(); {
		left, right, ok := strings.Cut(lines.Text(), " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if !ok || len(l) < 5 || len(r) < 3 || r[0] != "cgroup" || filepath.Dir(l[4]) != cgroupRoot {
			continue
		}
		h := hierarchy{name: filepath.Base(l[4]), mountpoint: l[4], fstype: r[0]}
		for _, o := range strings.Split(r[2], ",") {
			switch {
			case strings.HasPrefix(o, "name="):
				h.options = append(h.options, "none", o)
			case o != "rw" && o != "ro" && o != "xattr" && !strings.Contains(o, "=") && o != "clone_children":
				h.controllers = append(h.controllers, o)
				h.options = append(h.options, o)
			}
		}
		if len(h.controllers) > 1 {
			h.aliases = slices.DeleteFunc(slices.Clone(h.controllers), func(c string) bool { return c == h.name })
		}
		list = append(list, h)
	}
	return list, nil
}

// killAll sends sig to all processes of the container.
func (r *Runtime) killAll(rec *record, sig unix.Signal) error {
	if len(rec.CgroupPaths) == 0 {
		return rec.Init.Signal(sig)
	}
	if path := rec.CgroupPaths[""]; path != "" && sig == unix.SIGKILL {
		// cgroup.kill: Linux 5.14.
		if os.WriteFile(filepath.Join(path, "cgroup.kill"), []byte("1"), 0) == nil {
			return nil
		}
	}
	m, err := r.cgroup(rec, nil)
	if err != nil {
		return err
	}
	pids, err := m.GetAllPids()
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, pid := range pids {
		unix.Kill(pid, sig)
	}
	return err
}

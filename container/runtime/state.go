package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/opencontainers/cgroups"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/state"
	"github.com/kist-containers/kist/internal/sys"
)

// record is a container's state file: what was made for it. Whether it runs is
// asked of the kernel.
type record struct {
	Version     int               `json:"version"`
	ID          string            `json:"id"`
	Bundle      string            `json:"bundle"`
	Rootfs      string            `json:"rootfs"`
	Init        sys.Process       `json:"init"`
	CgroupsPath string            `json:"cgroupsPath,omitempty"`
	CgroupPaths map[string]string `json:"cgroupPaths,omitempty"`
	Systemd     bool              `json:"systemd,omitempty"`
	Created     time.Time         `json:"created"`
	Annotations map[string]string `json:"annotations,omitempty"`
	// Hooks are those that run after Create.
	Hooks    *hooks `json:"hooks,omitempty"`
	Rootless bool   `json:"rootless,omitempty"`
	// Program is the other OCI runtime that made the container.
	Program string `json:"program,omitempty"`
}

// dir is a container's directory.
func (r *Runtime) dir(id string, elem ...string) string {
	return filepath.Join(append([]string{r.Root, id}, elem...)...)
}

// Files in a container's directory.
const (
	recordFile  = "state.json"
	specFile    = "config.json"
	startSocket = "start"
)

// reserve takes the id: of two at once one gets it.
func (r *Runtime) reserve(rec *record) error {
	rec.Created = time.Now().UTC()
	if err := os.MkdirAll(r.Root, 0o700); err != nil {
		return err
	}
	err := os.Mkdir(r.dir(rec.ID), 0o700)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("create %s: %w", rec.ID, ErrExists)
	}
	return err
}

func (r *Runtime) write(rec *record) error {
	return state.WriteVolatileJSON(r.dir(rec.ID, recordFile), rec)
}

func (r *Runtime) read(id string) (*record, error) {
	if !state.ValidName(id) {
		return nil, fmt.Errorf("container id %q: not valid", id)
	}
	rec := new(record)
	err := state.ReadJSON(r.dir(id, recordFile), rec)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", id, ErrNotFound)
	}
	return rec, err
}

// started records the identity of init.
func (rec *record) started(pid int) (err error) {
	rec.Init, err = sys.ProcessOf(pid)
	return err
}

func (rec *record) state(s specs.ContainerState, pid int) *specs.State {
	return &specs.State{Version: specs.Version, ID: rec.ID, Status: s, Pid: pid, Bundle: rec.Bundle, Annotations: rec.Annotations}
}

// A Status is the specification's state of a container and what runc's state
// command tells beyond it.
type Status struct {
	specs.State
	Rootfs  string    `json:"rootfs"`
	Created time.Time `json:"created"`
	Owner   string    `json:"owner"`
}

// paused is a status that runc and crun add to the specification's.
const paused specs.ContainerState = "paused"

// State tells the container's state. It is asked of the kernel.
func (r *Runtime) State(id string) (*Status, error) {
	rec, err := r.read(id)
	if err != nil {
		return nil, err
	}
	s := &Status{Rootfs: rec.Rootfs, Created: rec.Created}
	switch {
	case !rec.Init.Alive():
		s.State = *rec.state(specs.StateStopped, 0)
	case r.waits(id):
		s.State = *rec.state(specs.StateCreated, rec.Init.Pid)
	case r.frozen(rec):
		s.State = *rec.state(paused, rec.Init.Pid)
	default:
		s.State = *rec.state(specs.StateRunning, rec.Init.Pid)
	}
	return s, nil
}

// List names all containers below Root.
func (r *Runtime) List() ([]string, error) {
	entries, err := os.ReadDir(r.Root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var ids []string
	for _, e := range entries {
		if state.ValidName(e.Name()) && e.IsDir() {
			ids = append(ids, e.Name())
		}
	}
	return ids, nil
}

// Kill sends sig to the first process, or to all. It returns sys.ErrGone when
// the container has ended.
func (r *Runtime) Kill(id string, sig unix.Signal, all bool) error {
	rec, err := r.read(id)
	if err != nil {
		return err
	}
	if rec.Program != "" && sig != unix.SIGKILL {
		args := []string{"kill", id, strconv.Itoa(int(sig))}
		if all {
			args = []string{"kill", "--all", id, strconv.Itoa(int(sig))}
		}
		return r.foreignCommand(context.Background(), rec, nil, args...)
	}
	if all {
		return r.killAll(rec, sig)
	}
	return rec.Init.Signal(sig)
}

// Delete removes what Create made: the cgroup and the record. With force a
// running container is killed first, and one that is not there is no error.
func (r *Runtime) Delete(ctx context.Context, id string, force bool) error {
	rec, err := r.read(id)
	if errors.Is(err, ErrNotFound) && force {
		// A create that was killed before it made anything.
		return state.Remove(r.dir(id))
	}
	if err != nil {
		return err
	}
	if rec.Init.Alive() {
		if !force && !r.waits(id) {
			return fmt.Errorf("delete %s: container is running", id)
		}
		if err := rec.Init.Signal(unix.SIGKILL); err != nil && !errors.Is(err, sys.ErrGone) {
			return err
		}
	}
	if rec.Program != "" {
		if err := r.foreignDelete(ctx, rec); err != nil {
			return err
		}
	}
	if err := r.removeCgroup(ctx, rec); err != nil {
		return err
	}
	if err := state.Remove(r.dir(id)); err != nil {
		return err
	}
	return runEach(ctx, rec.Hooks.poststop(), rec.state(specs.StateStopped, 0))
}

// removeCgroup ends whatever is left in the cgroup, then removes it. The last
// process may take a moment to go.
func (r *Runtime) removeCgroup(ctx context.Context, rec *record) error {
	if len(rec.CgroupPaths) == 0 {
		return nil
	}
	m, err := r.cgroup(rec, nil)
	if err != nil {
		return err
	}
	// One that was killed while it made them left some: on v1 the manager asks for
	// that of devices alone.
	if !rec.hasCgroup() {
		return nil
	}
	for pause := time.Millisecond; ; pause *= 2 {
		pids, err := m.GetAllPids()
		if err == nil && len(pids) == 0 || errors.Is(err, fs.ErrNotExist) {
			return m.Destroy()
		}
		r.killAll(rec, unix.SIGKILL)
		if pause > time.Second {
			return fmt.Errorf("remove cgroup of %s: processes %v do not end", rec.ID, pids)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// hasCgroup reports whether any of the recorded cgroups is there.
func (rec *record) hasCgroup() bool {
	for _, dir := range rec.CgroupPaths {
		if _, err := os.Stat(dir); err == nil {
			return true
		}
	}
	return false
}

// Pause stops all processes of the container; Resume lets them go on.
func (r *Runtime) Pause(id string) error { return r.freeze(id, cgroups.Frozen) }

// Resume undoes Pause.
func (r *Runtime) Resume(id string) error { return r.freeze(id, cgroups.Thawed) }

func (r *Runtime) freeze(id string, to cgroups.FreezerState) error {
	rec, err := r.read(id)
	if err != nil {
		return err
	}
	if rec.Program != "" {
		verb := map[cgroups.FreezerState]string{cgroups.Frozen: "pause", cgroups.Thawed: "resume"}[to]
		return r.foreignCommand(context.Background(), rec, nil, verb, id)
	}
	m, err := r.manager(id)
	if err != nil {
		return err
	}
	return m.Freeze(to)
}

func (r *Runtime) manager(id string) (cgroups.Manager, error) {
	rec, err := r.read(id)
	if err != nil {
		return nil, err
	}
	if len(rec.CgroupPaths) == 0 {
		return nil, fmt.Errorf("%s has no cgroup of its own: this user's cgroups are not delegated", id)
	}
	return r.cgroup(rec, nil)
}

// frozen reports whether Pause is in force.
func (r *Runtime) frozen(rec *record) bool {
	if len(rec.CgroupPaths) == 0 {
		return false
	}
	m, err := r.cgroup(rec, nil)
	if err != nil {
		return false
	}
	s, err := m.GetFreezerState()
	return err == nil && s == cgroups.Frozen
}

// Update changes the limits of a running container.
func (r *Runtime) Update(id string, res *specs.LinuxResources) error {
	if err := available(wanted(res)); err != nil {
		return err
	}
	rec, err := r.read(id)
	if err != nil {
		return err
	}
	if rec.Program != "" {
		return r.foreignUpdate(rec, res)
	}
	m, err := r.manager(id)
	if err != nil {
		return err
	}
	c := convert(res)
	c.SkipDevices, c.Devices = true, nil
	return m.Set(c)
}

// Stats reads the container's counters.
func (r *Runtime) Stats(id string) (*cgroups.Stats, error) {
	m, err := r.manager(id)
	if err != nil {
		return nil, err
	}
	return m.GetStats()
}

// Pids lists the container's processes.
func (r *Runtime) Pids(id string) ([]int, error) {
	rec, err := r.read(id)
	if err != nil {
		return nil, err
	}
	if len(rec.CgroupPaths) == 0 {
		return inPidNamespace(rec.Init)
	}
	m, err := r.manager(id)
	if err != nil {
		return nil, err
	}
	return m.GetAllPids()
}

// inPidNamespace lists the processes in the pid namespace of init, which is their
// container's own, as far as this user may look.
func inPidNamespace(init sys.Process) (pids []int, err error) {
	ns := func(proc string) (string, error) { return os.Readlink(filepath.Join(proc, "ns/pid")) }
	own, err := ns(fmt.Sprintf("/proc/%d", init.Pid))
	if err != nil {
		return nil, err
	}
	if self, err := ns("/proc/self"); err == nil && self == own {
		return nil, errors.New("it has neither a cgroup nor a pid namespace of its own")
	}
	procs, err := filepath.Glob("/proc/[0-9]*")
	for _, proc := range procs {
		if theirs, err := ns(proc); err == nil && theirs == own {
			pid, _ := strconv.Atoi(filepath.Base(proc))
			pids = append(pids, pid)
		}
	}
	return pids, err
}

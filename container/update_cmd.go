package container

import (
	"cmp"
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/kist-containers/kist/container/monitor"
	"github.com/kist-containers/kist/internal/ui"
)

// limitFlags are the limits that a container can be given once it is there.
type limitFlags struct {
	BlkioWeight       uint16   `help:"Block IO weight, 10 to 1000." placeholder:"N"`
	BlkioWeightDevice []string `sep:"none" help:"Block IO weight of a device." placeholder:"DEVICE:N"`
	DeviceReadBps     []string `sep:"none" help:"Limit reading from a device." placeholder:"DEVICE:BYTES"`
	DeviceWriteBps    []string `sep:"none" help:"Limit writing to a device." placeholder:"DEVICE:BYTES"`
	DeviceReadIops    []string `sep:"none" help:"Limit reads per second from a device." placeholder:"DEVICE:N"`
	DeviceWriteIops   []string `sep:"none" help:"Limit writes per second to a device." placeholder:"DEVICE:N"`
	CpuPeriod         int64    `help:"CFS period in microseconds." placeholder:"USEC"`
	CpuQuota          int64    `help:"CFS quota in microseconds." placeholder:"USEC"`
	CpuRtPeriod       int64    `help:"Real-time period in microseconds." placeholder:"USEC"`
	CpuRtRuntime      int64    `help:"Real-time runtime in microseconds." placeholder:"USEC"`
	CpuShares         int64    `short:"c" help:"Relative CPU weight." placeholder:"N"`
	Cpus              string   `help:"Number of CPUs." placeholder:"N"`
	CpusetCpus        string   `help:"CPUs it may use." placeholder:"LIST"`
	CpusetMems        string   `help:"Memory nodes it may use." placeholder:"LIST"`
	KernelMemory      string   `hidden:""`
	Memory            ui.Bytes `short:"m" help:"Memory limit." placeholder:"SIZE"`
	MemoryReservation ui.Bytes `help:"Soft memory limit." placeholder:"SIZE"`
	MemorySwap        ui.Bytes `help:"Limit of memory and swap together." placeholder:"SIZE"`
	MemorySwappiness  *int64   `help:"Swappiness, 0 to 100." placeholder:"N"`
	PidsLimit         int64    `help:"Limit of processes; -1 for none." placeholder:"N"`
	Ulimit            []string `sep:"none" help:"Resource limit of processes, from the next start on." placeholder:"NAME=SOFT[:HARD]"`
}

// all are the same flags among those of create.
func (f limitFlags) all() resourceFlags {
	return resourceFlags{
		BlkioWeight: f.BlkioWeight, BlkioWeightDevice: f.BlkioWeightDevice, DeviceReadBps: f.DeviceReadBps, DeviceWriteBps: f.DeviceWriteBps,
		DeviceReadIops: f.DeviceReadIops, DeviceWriteIops: f.DeviceWriteIops, CpuPeriod: f.CpuPeriod, CpuQuota: f.CpuQuota,
		CpuRtPeriod: f.CpuRtPeriod, CpuRtRuntime: f.CpuRtRuntime, CpuShares: f.CpuShares, Cpus: f.Cpus, CpusetCpus: f.CpusetCpus,
		CpusetMems: f.CpusetMems, KernelMemory: f.KernelMemory, Memory: f.Memory, MemoryReservation: f.MemoryReservation,
		MemorySwap: f.MemorySwap, MemorySwappiness: f.MemorySwappiness, PidsLimit: f.PidsLimit, Ulimit: f.Ulimit,
	}
}

// UpdateCmd is `kist update`.
type UpdateCmd struct {
	limitFlags  `embed:""`
	Restart     string   `help:"Restart policy." placeholder:"POLICY"`
	Env         []string `short:"e" sep:"none" help:"Set a variable, from the next start on." placeholder:"KEY=VALUE"`
	Unsetenv    []string `name:"unsetenv" sep:"none" help:"Drop a variable, from the next start on." placeholder:"KEY"`
	healthFlags `embed:""`
	latestFlag  `embed:""`
	Containers  []string `arg:"" optional:"" name:"container" help:"Containers."`
}

// Run changes limits, at once and for later starts.
func (c *UpdateCmd) Run(ctx context.Context, e *Engine, out *ui.Output) error {
	flags := *c
	flags.Containers, flags.latestFlag = nil, latestFlag{}
	if reflect.DeepEqual(flags, UpdateCmd{}) {
		return ui.Hint(errors.New("update: no flag says what to change"), "kist update --help")
	}
	wish, err := c.wish()
	if err != nil {
		return err
	}
	names, err := e.choose(c.Containers, false, c.Latest, choice{}, nil)
	if err != nil {
		return err
	}
	return each(e, out, "update", names, func(ct *Config) error { return c.update(ctx, e, ct.ID, wish) })
}

// wish is what the flags ask for.
func (c *UpdateCmd) wish() (*Config, error) {
	flags := createFlags{
		processFlags:  processFlags{Env: c.Env},
		lifeFlags:     lifeFlags{healthFlags: c.healthFlags},
		resourceFlags: c.limitFlags.all(),
	}
	wish := &Config{}
	if err := flags.limits(wish); err != nil {
		return nil, err
	}
	if err := flags.health(wish); err != nil {
		return nil, err
	}
	var err error
	wish.Env, err = flags.environment()
	return wish, err
}

func (c *UpdateCmd) update(ctx context.Context, e *Engine, id string, wish *Config) error {
	lock, err := e.lock(ctx, id)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	ct, err := e.read(id)
	if err != nil {
		return err
	}
	if c.Restart != "" {
		if ct.Restart, err = parseRestart(c.Restart); err != nil {
			return err
		}
		if ct.AutoRemove && ct.Restart.Name != "" {
			return errors.New("--restart: the container is removed after its exit (--rm)")
		}
	}
	ct.Limits.merge(&wish.Limits)
	ct.Health = mergeHealth(ct.Health, wish.Health)
	if err := errors.Join(ct.Limits.check(), ct.Limits.applicable(), ct.checkStartup()); err != nil {
		return err
	}
	if e.Status(id).Word == StatusInitialized {
		// It was made by the old settings: it is made again at its start.
		if err := e.cleanRun(ctx, ct); err != nil {
			return err
		}
	}
	if e.Status(id).Live() {
		r, err := wish.Limits.resources()
		if err != nil {
			return err
		}
		// What has ended meanwhile gets the limits with its next start.
		if err := e.runtime().Update(id, r); err != nil && !isGone(err) {
			return err
		}
	}
	ct.Env = mergeEnv(ct.Env, wish.Env)
	for _, name := range c.Unsetenv {
		ct.Env = slices.DeleteFunc(ct.Env, func(v string) bool { return strings.HasPrefix(v, name+"=") })
	}
	e.event(ct, "update", nil)
	return e.write(ct)
}

// mergeHealth is the check h with what is given in w.
func mergeHealth(h, w *monitor.Health) *monitor.Health {
	if h == nil || w == nil {
		if w == nil {
			return h
		}
		return w
	}
	m := *h
	if len(w.Test) > 0 {
		m.Test = w.Test
	}
	for _, x := range []struct{ dst, src *time.Duration }{
		{&m.Interval, &w.Interval}, {&m.Timeout, &w.Timeout}, {&m.StartPeriod, &w.StartPeriod}, {&m.StartInterval, &w.StartInterval},
	} {
		if *x.src != 0 {
			*x.dst = *x.src
		}
	}
	if w.Retries != 0 {
		m.Retries = w.Retries
	}
	if w.OnFailure != "" {
		m.OnFailure = w.OnFailure
	}
	if w.MaxLog != 0 {
		m.MaxLog = w.MaxLog
	}
	if w.MaxOutput != 0 {
		m.MaxOutput = w.MaxOutput
	}
	m.Startup = mergeStartup(h.Startup, w.Startup)
	if w.LogDir != "" {
		m.LogDir = w.LogDir
	}
	return &m
}

func mergeStartup(s, w *monitor.Startup) *monitor.Startup {
	if s == nil || w == nil {
		return cmp.Or(w, s)
	}
	m := *s
	if len(w.Test) > 0 {
		m.Test = w.Test
	}
	m.Interval, m.Timeout = cmp.Or(w.Interval, s.Interval), cmp.Or(w.Timeout, s.Timeout)
	m.Retries, m.Success = cmp.Or(w.Retries, s.Retries), cmp.Or(w.Success, s.Success)
	return &m
}

// merge takes over what is given in w.
func (l *Limits) merge(w *Limits) {
	for _, x := range []struct{ dst, src *int64 }{
		{&l.Memory, &w.Memory}, {&l.MemoryReservation, &w.MemoryReservation}, {&l.MemorySwap, &w.MemorySwap}, {&l.NanoCPUs, &w.NanoCPUs},
		{&l.CPUShares, &w.CPUShares}, {&l.CPUPeriod, &w.CPUPeriod}, {&l.CPUQuota, &w.CPUQuota}, {&l.CPURtPeriod, &w.CPURtPeriod},
		{&l.CPURtRuntime, &w.CPURtRuntime}, {&l.PidsLimit, &w.PidsLimit},
	} {
		if *x.src != 0 {
			*x.dst = *x.src
		}
	}
	if w.BlkioWeight != 0 {
		l.BlkioWeight = w.BlkioWeight
	}
	if w.MemorySwappiness != nil {
		l.MemorySwappiness = w.MemorySwappiness
	}
	for _, x := range []struct{ dst, src *string }{{&l.CpusetCpus, &w.CpusetCpus}, {&l.CpusetMems, &w.CpusetMems}} {
		if *x.src != "" {
			*x.dst = *x.src
		}
	}
	for _, x := range []struct{ dst, src *[]string }{
		{&l.BlkioWeightDevice, &w.BlkioWeightDevice}, {&l.ReadBps, &w.ReadBps}, {&l.WriteBps, &w.WriteBps},
		{&l.ReadIOps, &w.ReadIOps}, {&l.WriteIOps, &w.WriteIOps},
	} {
		*x.dst = mergeDevices(*x.dst, *x.src)
	}
	for _, u := range w.Ulimits {
		l.Ulimits = slices.DeleteFunc(l.Ulimits, func(o Ulimit) bool { return o.Name == u.Name })
		l.Ulimits = append(l.Ulimits, u)
	}
}

// mergeDevices replaces DEVICE:NUMBER of devices that both lists have.
func mergeDevices(list, over []string) []string {
	for _, o := range over {
		device := o[:strings.LastIndexByte(o, ':')+1]
		list = slices.DeleteFunc(list, func(x string) bool { return strings.HasPrefix(x, device) })
		list = append(list, o)
	}
	return list
}

package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/kist-containers/kist/internal/ui"
)

// PauseCmd is `kist pause`.
type PauseCmd struct {
	Containers []string `arg:"" name:"container" help:"Containers."`
}

// Run stops all processes of containers where they are.
func (c *PauseCmd) Run(e *Engine, out *ui.Output) error {
	return each(e, out, "pause", c.Containers, func(ct *Config) error {
		switch st := e.Status(ct.ID); {
		case st.Word == StatusPaused:
			return errors.New("container is paused already")
		case !st.Live():
			return ErrNotRunning
		}
		if err := e.pause(ct); err != nil {
			return err
		}
		e.event(ct, "pause", nil)
		return nil
	})
}

// pause freezes the container, then notes it: a note without ice would be a lie.
func (e *Engine) pause(c *Config) error {
	if err := e.runtime().Pause(c.ID); err != nil {
		return err
	}
	return os.WriteFile(e.runDir(c.ID, pausedFile), nil, 0o600)
}

// UnpauseCmd is `kist unpause`.
type UnpauseCmd struct {
	Containers []string `arg:"" name:"container" help:"Containers."`
}

// Run lets paused containers go on.
func (c *UnpauseCmd) Run(e *Engine, out *ui.Output) error {
	return each(e, out, "unpause", c.Containers, func(ct *Config) error {
		if e.Status(ct.ID).Word != StatusPaused {
			return errors.New("container is not paused")
		}
		if err := e.unpause(ct); err != nil {
			return err
		}
		e.event(ct, "unpause", nil)
		return nil
	})
}

// PortCmd is `kist port`.
type PortCmd struct {
	Container string `arg:"" help:"Container."`
	Port      string `arg:"" optional:"" help:"Port of the container: PORT[/PROTO]."`
}

// Run lists the published ports.
func (c *PortCmd) Run(e *Engine, out *ui.Output) error {
	ct, err := e.Lookup(c.Container)
	if err != nil {
		return fmt.Errorf("port %s: %w", c.Container, err)
	}
	s, err := e.Networks.Sandbox(ct.ID)
	if err != nil {
		s = nil
	}
	want := c.Port
	if want != "" && !strings.Contains(want, "/") {
		want += "/tcp"
	}
	found := false
	if s != nil {
		for _, p := range s.Ports {
			inside := fmt.Sprintf("%d/%s", p.ContainerPort, p.Proto)
			switch {
			case want == "":
				out.Printf("%s -> %s\n", inside, p.Host())
			case want == inside:
				out.Print(p.Host())
				found = true
			}
		}
	}
	if want != "" && !found {
		return fmt.Errorf("port %s: no public port '%s' published", c.Container, want)
	}
	return nil
}

// TopCmd is `kist top`.
type TopCmd struct {
	Argv []string `arg:"" name:"container" passthrough:"" help:"Container, then options of ps."`
}

// UpdateCmd is `kist update`.
type UpdateCmd struct {
	BlkioWeight       uint16   `help:"Block IO weight, 10 to 1000." placeholder:"N"`
	CpuPeriod         int64    `help:"CFS period in microseconds." placeholder:"USEC"`
	CpuQuota          int64    `help:"CFS quota in microseconds." placeholder:"USEC"`
	CpuRtPeriod       int64    `help:"Real-time period in microseconds." placeholder:"USEC"`
	CpuRtRuntime      int64    `help:"Real-time runtime in microseconds." placeholder:"USEC"`
	CpuShares         int64    `short:"c" help:"Relative CPU weight." placeholder:"N"`
	Cpus              string   `help:"Number of CPUs." placeholder:"N"`
	CpusetCpus        string   `help:"CPUs it may use." placeholder:"LIST"`
	CpusetMems        string   `help:"Memory nodes it may use." placeholder:"LIST"`
	Memory            ui.Bytes `short:"m" help:"Memory limit." placeholder:"SIZE"`
	MemoryReservation ui.Bytes `help:"Soft memory limit." placeholder:"SIZE"`
	MemorySwap        ui.Bytes `help:"Limit of memory and swap together." placeholder:"SIZE"`
	PidsLimit         int64    `help:"Limit of processes; -1 for none." placeholder:"N"`
	Restart           string   `help:"Restart policy." placeholder:"POLICY"`
	Containers        []string `arg:"" name:"container" help:"Containers."`
}

// Run changes limits, at once and for later starts.
func (c *UpdateCmd) Run(ctx context.Context, e *Engine, out *ui.Output) error {
	return each(e, out, "update", c.Containers, func(ct *Config) error { return c.update(ctx, e, ct.ID) })
}

func (c *UpdateCmd) update(ctx context.Context, e *Engine, id string) error {
	lock, err := e.lock(ctx, id)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	ct, err := e.read(id)
	if err != nil {
		return err
	}
	flags := createFlags{resourceFlags: resourceFlags{
		BlkioWeight: c.BlkioWeight, CpuPeriod: c.CpuPeriod, CpuQuota: c.CpuQuota, CpuRtPeriod: c.CpuRtPeriod, CpuRtRuntime: c.CpuRtRuntime,
		CpuShares: c.CpuShares, Cpus: c.Cpus, CpusetCpus: c.CpusetCpus, CpusetMems: c.CpusetMems, Memory: c.Memory,
		MemoryReservation: c.MemoryReservation, MemorySwap: c.MemorySwap, PidsLimit: c.PidsLimit,
	}}
	wish := &Config{}
	if err := flags.resources(wish); err != nil {
		return err
	}
	if c.Restart != "" {
		if ct.Restart, err = parseRestart(c.Restart); err != nil {
			return err
		}
	}
	ct.Limits.merge(&wish.Limits)
	if err := ct.Limits.check(); err != nil {
		return err
	}
	if e.Status(id).Live() {
		r, err := wish.Limits.resources()
		if err != nil {
			return err
		}
		if err := e.runtime().Update(id, r); err != nil {
			return err
		}
	}
	e.event(ct, "update", nil)
	return e.write(ct)
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
	if w.CpusetCpus != "" {
		l.CpusetCpus = w.CpusetCpus
	}
	if w.CpusetMems != "" {
		l.CpusetMems = w.CpusetMems
	}
}

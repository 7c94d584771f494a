package container

import (
	"errors"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/kist-containers/kist/container/monitor"
	"github.com/kist-containers/kist/volume"
)

// fromImage completes a configuration with what the image says, where the flags
// say nothing. argv is what followed the image on the command line.
func (c *Config) fromImage(img *v1.Config, entrypoint *string, argv []string) error {
	c.Cmd = argv
	switch {
	case entrypoint == nil:
		c.Entrypoint = img.Entrypoint
		if len(argv) == 0 {
			c.Cmd = img.Cmd
		}
	case *entrypoint != "":
		c.Entrypoint = []string{*entrypoint}
	}
	if len(c.Args()) == 0 {
		return errors.New("no command: neither the image nor the command line has one")
	}
	c.Env = mergeEnv(img.Env, c.Env)
	setDefault(&c.WorkingDir, img.WorkingDir)
	setDefault(&c.User, img.User)
	setDefault(&c.StopSignal, img.StopSignal)
	labels := map[string]string{}
	for _, m := range []map[string]string{img.Labels, c.Labels} {
		for k, v := range m {
			labels[k] = v
		}
	}
	c.Labels = labels
	for port := range img.ExposedPorts {
		c.Exposed = append(c.Exposed, port)
	}
	slices.Sort(c.Exposed)
	c.imageVolumes(img.Volumes)
	c.imageHealth(img.Healthcheck)
	return nil
}

func setDefault(s *string, value string) {
	if *s == "" {
		*s = value
	}
}

// imageVolumes adds the image's volumes as anonymous ones, where nothing else is
// mounted. A path that cannot be one is the image's fault and passed over.
func (c *Config) imageVolumes(volumes map[string]struct{}) {
	for path := range volumes {
		m, err := volume.ParseVolume(path, "/")
		if err != nil || m.Source != "" {
			continue
		}
		taken := slices.ContainsFunc(c.Mounts, func(o volume.Mount) bool { return o.Target == m.Target })
		if !taken {
			c.Mounts = append(c.Mounts, m)
		}
	}
}

func (c *Config) imageHealth(h *v1.HealthConfig) {
	if h == nil || len(h.Test) == 0 {
		return
	}
	if c.Health == nil {
		c.Health = &monitor.Health{}
	}
	if len(c.Health.Test) > 0 {
		return
	}
	c.Health.Test = h.Test
	if c.Health.Interval == 0 {
		c.Health.Interval = h.Interval
	}
	if c.Health.Timeout == 0 {
		c.Health.Timeout = h.Timeout
	}
	if c.Health.StartPeriod == 0 {
		c.Health.StartPeriod = h.StartPeriod
	}
	if c.Health.Retries == 0 {
		c.Health.Retries = h.Retries
	}
}

// mergeEnv is base with the variables of over set or replaced, in order.
func mergeEnv(base, over []string) []string {
	env := slices.Clone(base)
	for _, e := range over {
		key, _, _ := strings.Cut(e, "=")
		i := slices.IndexFunc(env, func(x string) bool { return strings.HasPrefix(x, key+"=") })
		if i >= 0 {
			env[i] = e
		} else {
			env = append(env, e)
		}
	}
	return env
}

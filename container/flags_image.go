package container

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	goruntime "runtime"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kist-containers/kist/container/monitor"
	"github.com/kist-containers/kist/image"
	"github.com/kist-containers/kist/image/registry"
	"github.com/kist-containers/kist/volume"
)

// imageFlags are on the image and on how it is pulled.
type imageFlags struct {
	image.RegistryFlags
	image.RetryFlags
	Platform      string `help:"Platform of the image: os[/arch[/variant]]." placeholder:"PLATFORM"`
	Os            string `help:"Operating system of the image." placeholder:"OS"`
	Arch          string `help:"Architecture of the image." placeholder:"ARCH"`
	Variant       string `help:"Variant of the architecture." placeholder:"VARIANT"`
	Pull          string `default:"missing" enum:"always,missing,never,newer" help:"When to pull the image: always, missing, never."`
	Quiet         bool   `short:"q" help:"Show no progress of a pull."`
	Rmi           bool   `help:"Remove the image too after the exit; implies --rm."`
	SeccompPolicy string `enum:"default,image" default:"default" help:"Whose seccomp profile: default, or image for the one in its label."`
}

// platform is --platform, or what --os, --arch and --variant say.
func (f *imageFlags) platform() (string, error) {
	parts := f.Os + f.Arch + f.Variant
	switch {
	case f.Platform != "" && parts != "":
		return "", errors.New("--platform and --os, --arch or --variant contradict each other")
	case parts == "":
		return f.Platform, nil
	}
	p := cmp.Or(f.Os, "linux") + "/" + cmp.Or(f.Arch, goruntime.GOARCH)
	if f.Variant != "" {
		p += "/" + f.Variant
	}
	return p, nil
}

// registry is how registries are reached, nil for the machine's own settings.
func (f *imageFlags) registry() *registry.Config {
	if f.RegistryFlags == (image.RegistryFlags{TLSVerify: true}) {
		return nil
	}
	return f.Config()
}

// seccompLabel is podman's label with a profile.
const seccompLabel = "io.containers.seccomp.profile"

func (c *Config) imageSeccomp(policy string, labels map[string]string) error {
	profile := labels[seccompLabel]
	if policy != "image" || profile == "" || c.Security.Seccomp != "" {
		return nil
	}
	if len(profile) > mostProfile || !json.Valid([]byte(profile)) {
		return fmt.Errorf("--seccomp-policy image: the label %s holds no profile", seccompLabel)
	}
	c.Security.Seccomp = profile
	return nil
}

// addTmpfs mounts a tmpfs where nothing else is.
func (c *Config) addTmpfs(paths ...string) {
	for _, path := range paths {
		if !slices.ContainsFunc(c.Mounts, func(m volume.Mount) bool { return m.Target == path }) {
			c.Mounts = append(c.Mounts, volume.Mount{Type: volume.TypeTmpfs, Target: path, Options: []string{"tmpcopyup"}})
		}
	}
}

// fromImage completes a configuration with what the image says, where the flags
// say nothing. argv is what followed the image on the command line.
func (c *Config) fromImage(img *v1.Config, src *source) error {
	entrypoint, argv := src.Entrypoint, src.Argv
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
	c.Env = mergeEnv(src.Env.imageEnv(img.Env), c.Env)
	setDefault(&c.WorkingDir, img.WorkingDir)
	setDefault(&c.User, img.User)
	setDefault(&c.StopSignal, img.StopSignal)
	labels := map[string]string{}
	for _, m := range []map[string]string{img.Labels, c.Labels} {
		for k, v := range m {
			labels[k] = v
		}
	}
	// Which unit of the host it runs in, and auto-update restarts, is no image's word.
	for _, name := range []string{UnitLabel, PodmanUnitLabel} {
		if _, own := c.Labels[name]; !own {
			delete(labels, name)
		}
	}
	c.Labels = labels
	for port := range img.ExposedPorts {
		c.Exposed = append(c.Exposed, port)
	}
	slices.Sort(c.Exposed)
	if err := c.imageSeccomp(src.SeccompPolicy, labels); err != nil {
		return err
	}
	c.imageVolumes(img.Volumes, src.ImageVolume)
	c.forSystemd()
	c.imageHealth(img.Healthcheck)
	return nil
}

func setDefault(s *string, value string) {
	if *s == "" {
		*s = value
	}
}

// imageVolumes adds the image's volumes as anonymous ones, where nothing else is
// mounted. A path that cannot be one is the image's fault and passed over, and so
// is one that would stand for the kernel's own files.
func (c *Config) imageVolumes(volumes map[string]struct{}, mode string) {
	if mode == "ignore" {
		return
	}
	for path := range volumes {
		m, err := volume.ParseVolume(path, "/")
		if err != nil || m.Source != "" || ofKernel(m.Target) {
			continue
		}
		taken := slices.ContainsFunc(c.Mounts, func(o volume.Mount) bool { return o.Target == m.Target })
		switch {
		case taken:
		case mode == "tmpfs":
			c.addTmpfs(m.Target)
		default:
			c.Mounts = append(c.Mounts, m)
		}
	}
}

// ofKernel reports whether what the kernel shows, or makes, is at the path.
func ofKernel(path string) bool {
	return slices.Contains([]string{"/proc", "/sys", "/dev", "/dev/pts"}, path) ||
		strings.HasPrefix(path, "/proc/") || strings.HasPrefix(path, "/sys/")
}

// leastInterval is how often an image may have the host look at its health: the
// check's start does not count for the container's limits.
const leastInterval = 100 * time.Millisecond

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
		if c.Health.Interval = max(h.Interval, 0); h.Interval > 0 {
			c.Health.Interval = max(h.Interval, leastInterval)
		}
	}
	if c.Health.Timeout == 0 {
		c.Health.Timeout = max(h.Timeout, 0)
	}
	if c.Health.StartPeriod == 0 {
		c.Health.StartPeriod = max(h.StartPeriod, 0)
	}
	if c.Health.Retries == 0 {
		c.Health.Retries = max(h.Retries, 0)
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

package container

import (
	"maps"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kist-containers/kist/volume"
)

// again is what would have to be asked for to get a container like c once more:
// its configuration without what its image, its name and its creation gave it.
// The image's part is left to the image that the new one is made from.
func (e *Engine) again(c *Config) (*Config, source) {
	n := *c
	n.ID, n.ImageID, n.Lowers, n.Rootfs, n.PidFile, n.MonitorPidFile = "", "", nil, "", "", ""
	n.CreateCommand = nil
	if n.Hostname == shortID(c.ID) {
		n.Hostname = ""
	}
	if mode, _, _ := strings.Cut(n.Spaces.User, ":"); mode == "auto" || mode == "container" {
		n.Spaces.UIDs, n.Spaces.GIDs = nil, nil
	}
	n.Mounts = slices.Clone(c.Mounts)
	for i := range n.Mounts {
		if m := &n.Mounts[i]; m.Anonymous {
			m.Source, m.Anonymous = "", false
		}
	}
	src := source{Image: c.Image, Rootfs: c.Rootfs != "" || c.RootfsOverlay, Policy: "missing"}
	cfg := &v1.Config{}
	if img, err := e.Images.Resolve(c.ImageID); err == nil {
		cfg = &img.Config.Config
	}
	n.withoutImage(cfg, &src)
	return &n, src
}

// withoutImage takes out what is as the image has it.
func (c *Config) withoutImage(img *v1.Config, src *source) {
	switch {
	case !slices.Equal(c.Entrypoint, img.Entrypoint) && len(c.Entrypoint) == 1:
		src.Entrypoint, src.Argv = &c.Entrypoint[0], c.Cmd
	case !slices.Equal(c.Entrypoint, img.Entrypoint):
		none := ""
		src.Entrypoint, src.Argv = &none, c.Args()
	case !slices.Equal(c.Cmd, img.Cmd):
		src.Argv = c.Cmd
	}
	c.Entrypoint, c.Cmd = nil, nil
	c.Env = slices.DeleteFunc(slices.Clone(c.Env), func(v string) bool { return slices.Contains(img.Env, v) })
	c.Labels = maps.Clone(c.Labels)
	maps.DeleteFunc(c.Labels, func(k, v string) bool { return img.Labels[k] == v })
	c.Exposed = slices.DeleteFunc(slices.Clone(c.Exposed), func(p string) bool { _, ok := img.ExposedPorts[p]; return ok })
	c.Mounts = slices.DeleteFunc(c.Mounts, func(m volume.Mount) bool {
		_, ok := img.Volumes[m.Target]
		return ok && m.Type == volume.TypeVolume && m.Source == ""
	})
	for _, x := range []struct {
		own   *string
		image string
	}{{&c.WorkingDir, img.WorkingDir}, {&c.User, img.User}, {&c.StopSignal, img.StopSignal}} {
		if *x.own == x.image {
			*x.own = ""
		}
	}
	if h := img.Healthcheck; h != nil && c.Health != nil && slices.Equal(c.Health.Test, h.Test) {
		own := *c.Health
		own.Test = nil
		c.Health = &own
	}
}

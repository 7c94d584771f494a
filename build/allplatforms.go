package build

import (
	"context"
	"errors"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kist-containers/kist/internal/ui"
)

// platforms are those to build for.
func (j *job) platforms(ctx context.Context) ([]v1.Platform, error) {
	switch {
	case j.req.AllPlatforms:
		return j.allPlatforms(ctx)
	case len(j.req.Platforms) > 0:
		return j.req.Platforms, nil
	}
	return []v1.Platform{hostPlatform()}, nil
}

// allPlatforms are those for which all base images of the target exist.
func (j *job) allPlatforms(ctx context.Context) ([]v1.Platform, error) {
	p, err := j.newPlan(hostPlatform())
	if err != nil {
		return nil, err
	}
	var common []v1.Platform
	asked := map[string]bool{}
	for _, s := range p.stages {
		_, isContext := j.req.Contexts[s.base]
		if !s.needed || s.parent != nil || s.base == scratch || s.Platform != "" || isContext || asked[s.base] {
			continue
		}
		have, err := j.b.store.Platforms(ctx, s.base, j.b.o.Registry)
		if err != nil {
			return nil, p.file.at(s.Location, err)
		}
		if len(asked) == 0 {
			common = have
		}
		asked[s.base] = true
		common = slices.DeleteFunc(common, func(c v1.Platform) bool {
			return !slices.ContainsFunc(have, func(h v1.Platform) bool { return platformName(h) == platformName(c) })
		})
	}
	switch {
	case len(asked) == 0:
		return nil, ui.Hint(errors.New("--all-platforms: no base image says which ones there are"), "kist build --platform linux/amd64,linux/arm64 …")
	case len(common) == 0:
		return nil, errors.New("--all-platforms: the base images have no platform in common")
	}
	return common, nil
}

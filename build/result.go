package build

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// finish completes the configuration of a built stage.
func (j *job) finish(ctx context.Context, st *stageState) (Built, error) {
	cfg := st.config
	for _, k := range sortedKeys(j.req.Labels) {
		if cfg.Config.Labels == nil {
			cfg.Config.Labels = map[string]string{}
		}
		cfg.Config.Labels[k] = j.req.Labels[k]
	}
	j.podmanConfig(&cfg)
	if st.base == 0 && len(cfg.Config.Env) == 0 {
		cfg.Config.Env = []string{"PATH=" + defaultPath}
	}
	cfg.Created = v1.Time{Time: st.clock}
	if j.req.OSVersion != "" {
		cfg.OSVersion = j.req.OSVersion
	}
	cfg.OSFeatures = append(slices.Clone(cfg.OSFeatures), j.req.OSFeatures...)
	layers, keep := st.layers, st.base
	if j.req.SquashAll {
		keep = 0
	}
	if (j.req.Squash || j.req.SquashAll) && len(layers) > keep+1 {
		var err error
		if layers, err = j.b.squash(ctx, st, keep, &cfg); err != nil {
			return Built{}, fmt.Errorf("squash: %w", err)
		}
	}
	if j.req.OmitHistory {
		cfg.History = nil
	}
	raw, err := marshalConfig(&cfg, st.startInterval)
	if err == nil && j.req.inline() {
		raw, err = j.addInline(raw, &cfg)
	}
	return Built{Platform: j.plan.target.platform, created: st.clock, layers: layers, config: raw}, err
}

// podmanConfig does --env, --unsetenv and --unsetlabel.
func (j *job) podmanConfig(cfg *v1.ConfigFile) {
	env := newScope(cfg.Config.Env)
	for _, k := range sortedKeys(j.req.Env) {
		env.setEnv(k, j.req.Env[k])
	}
	cfg.Config.Env = slices.DeleteFunc(env.env, func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return slices.Contains(j.req.UnsetEnv, name)
	})
	for _, k := range j.req.UnsetLabels {
		delete(cfg.Config.Labels, k)
	}
}

// marshalConfig adds what v1.ConfigFile has no field for.
func marshalConfig(cfg *v1.ConfigFile, startInterval time.Duration) ([]byte, error) {
	raw, err := json.Marshal(cfg)
	if err != nil || startInterval == 0 || cfg.Config.Healthcheck == nil {
		return raw, err
	}
	var all map[string]json.RawMessage
	var config map[string]json.RawMessage
	var health map[string]any
	if err := json.Unmarshal(raw, &all); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(all["config"], &config); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(config["Healthcheck"], &health); err != nil {
		return nil, err
	}
	health["StartInterval"] = startInterval
	if config["Healthcheck"], err = json.Marshal(health); err != nil {
		return nil, err
	}
	if all["config"], err = json.Marshal(config); err != nil {
		return nil, err
	}
	return json.Marshal(all)
}

// result stores the images and names them.
func (b *Builder) result(ctx context.Context, req *Request, res *Result, all []*job, began time.Time) error {
	for i := range res.Images {
		built := &res.Images[i]
		blobs := make([]v1.Descriptor, len(built.layers))
		for n, l := range built.layers {
			blobs[n] = l.Blob
		}
		names := req.Tags
		if req.indexed(res) {
			names = nil
		}
		img, err := b.store.AddAnnotatedImage(ctx, built.config, blobs, req.annotations(built), names)
		if err != nil {
			return err
		}
		built.ID, built.Digest, built.manifest = img.ID, img.Digest, img.Manifest
		res.ID, res.Digest, res.Names = img.ID, img.Digest, img.Names
	}
	if err := b.addToList(ctx, req, res); err != nil {
		return err
	}
	if err := b.attestAll(req, res, all, began); err != nil {
		return err
	}
	if req.indexed(res) {
		return b.index(ctx, req, res)
	}
	return nil
}

// annotations are those of an image's manifest.
func (r *Request) annotations(built *Built) map[string]string {
	const created = "org.opencontainers.image.created"
	if _, given := r.Annotations[created]; given || !r.Created {
		return r.Annotations
	}
	all := map[string]string{created: built.created.UTC().Format(time.RFC3339)}
	maps.Copy(all, r.Annotations)
	return all
}

// addToList does --manifest.
func (b *Builder) addToList(ctx context.Context, req *Request, res *Result) error {
	if req.List == "" {
		return nil
	}
	var all []v1.Descriptor
	for i := range res.Images {
		m := res.Images[i].manifest
		m.Platform = &res.Images[i].Platform
		all = append(all, m)
	}
	if err := b.store.ExtendIndex(ctx, all, req.List); err != nil {
		return fmt.Errorf("--manifest: %w", err)
	}
	return nil
}

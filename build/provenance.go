package build

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// The predicate of a provenance, see slsa.dev/spec/v1.0/provenance, and what
// kist's builds are there.
const (
	slsaPredicate = "https://slsa.dev/provenance/v1"
	slsaBuildType = "https://github.com/kist-containers/kist/build@v1"
)

// A material is what a build read besides its context: an image, a file from a
// URL or a repository.
type material struct {
	URI    string            `json:"uri"`
	Digest map[string]string `json:"digest"`
}

// A statement is an in-toto statement about one image.
type statement struct {
	Type          string     `json:"_type"`
	PredicateType string     `json:"predicateType"`
	Subject       []subject  `json:"subject"`
	Predicate     provenance `json:"predicate"`
}

type subject struct {
	Name   string            `json:"name"`
	Digest map[string]string `json:"digest"`
}

type provenance struct {
	Definition struct {
		BuildType string         `json:"buildType"`
		External  map[string]any `json:"externalParameters"`
		Internal  map[string]any `json:"internalParameters"`
		Materials []material     `json:"resolvedDependencies,omitempty"`
	} `json:"buildDefinition"`
	Run struct {
		Builder struct {
			ID string `json:"id"`
		} `json:"builder"`
		Metadata map[string]any `json:"metadata"`
	} `json:"runDetails"`
}

// read notes something that the build read.
func (s *sources) read(uri, algorithm, digest string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := material{URI: uri, Digest: map[string]string{algorithm: digest}}
	if !slices.ContainsFunc(s.materials, func(o material) bool { return o.URI == m.URI && maps.Equal(o.Digest, m.Digest) }) {
		s.materials = append(s.materials, m)
	}
}

// packageURL names an image as BuildKit's provenance does.
func packageURL(ref string, p v1.Platform) string {
	name, tag := ref, ""
	if i := strings.LastIndexByte(ref, ':'); i > strings.LastIndexByte(ref, '/') {
		name, tag = ref[:i], "@"+ref[i+1:]
	}
	return "pkg:docker/" + name + tag + "?platform=" + url.QueryEscape(platformName(p))
}

// redacted is a URL without its password.
func redacted(s string) string {
	if u, err := url.Parse(s); err == nil {
		u.User = nil
		return u.String()
	}
	return s
}

// attest stores the statement about one image and returns its entry of an index.
func (b *Builder) attest(req *Request, j *job, built *Built, began time.Time) (v1.Descriptor, error) {
	s := statement{Type: "https://in-toto.io/Statement/v1", PredicateType: slsaPredicate, Predicate: j.provenance(began)}
	digest := map[string]string{built.manifest.Digest.Algorithm: built.manifest.Digest.Hex}
	for _, t := range req.Tags {
		s.Subject = append(s.Subject, subject{packageURL(t, built.Platform), digest})
	}
	raw, err := json.Marshal(s)
	if err != nil {
		return v1.Descriptor{}, err
	}
	return b.store.AddAttestation(raw, slsaPredicate, built.manifest.Digest)
}

// provenance says how the image came about.
func (j *job) provenance(began time.Time) (p provenance) {
	req := j.req
	config := map[string]any{"path": j.ctx.name}
	if j.ctx.origin.URI != "" {
		config["uri"], config["digest"] = j.ctx.origin.URI, j.ctx.origin.Digest
	}
	request := map[string]any{"frontend": "dockerfile.v0"}
	if args := j.requestArgs(); len(args) > 0 {
		request["args"] = args
	}
	p.Definition.BuildType = slsaBuildType
	p.Definition.External = map[string]any{"configSource": config, "request": request}
	p.Definition.Internal = map[string]any{"builderPlatform": platformName(hostPlatform())}
	p.Definition.Materials = j.extra.materials
	p.Run.Builder.ID = req.BuilderID
	ended := j.now()
	if !req.Epoch.IsZero() {
		began = req.Epoch
	}
	p.Run.Metadata = map[string]any{"startedOn": began.UTC().Format(time.RFC3339Nano), "finishedOn": ended.UTC().Format(time.RFC3339Nano)}
	if req.Epoch.IsZero() {
		p.Run.Metadata["invocationId"] = strings.ToLower(rand.Text())
	}
	if req.Provenance == provenanceMax {
		request["secrets"], request["ssh"] = named(req.Secrets), named(req.SSH)
		p.Definition.Internal["buildConfig"] = map[string]any{"steps": j.steps()}
		p.Definition.Internal["source"] = map[string]any{"filename": j.ctx.name, "language": "Dockerfile", "data": j.ctx.dockerfile}
	}
	return p
}

// requestArgs are the options of the build by BuildKit's names of them. Values
// that may be confidential are for mode=max.
func (j *job) requestArgs() map[string]string {
	req, args := j.req, map[string]string{}
	if req.Target != "" {
		args["target"] = req.Target
	}
	if req.NoCache {
		args["no-cache"] = ""
	}
	if req.Provenance != provenanceMax {
		return args
	}
	for k, v := range req.Args {
		if !slices.Contains(proxyNames(), k) {
			args["build-arg:"+k] = v
		}
	}
	for k, v := range req.Labels {
		args["label:"+k] = v
	}
	for k, v := range req.Contexts {
		args["context:"+k] = redacted(v)
	}
	return args
}

func named[V any](m map[string]V) []map[string]string {
	ids := []map[string]string{}
	for _, k := range sortedKeys(m) {
		ids = append(ids, map[string]string{"id": k})
	}
	return ids
}

// steps are the steps by their keys, in an order that a rebuild gives too.
func (j *job) steps() []map[string]string {
	all := []map[string]string{}
	for _, rec := range j.used {
		all = append(all, map[string]string{"id": rec.Key, "instruction": rec.Text, "diffID": rec.DiffID})
	}
	slices.SortFunc(all, func(a, b map[string]string) int { return strings.Compare(a["id"], b["id"]) })
	return all
}

// attestAll adds a statement about each image of res.
func (b *Builder) attestAll(req *Request, res *Result, all []*job, began time.Time) error {
	if req.Provenance == "" {
		return nil
	}
	for i := range res.Images {
		d, err := b.attest(req, all[i], &res.Images[i], began)
		if err != nil {
			return fmt.Errorf("--provenance: %w", err)
		}
		res.attestations = append(res.attestations, d)
	}
	return nil
}

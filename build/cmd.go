package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kist-containers/kist/image"
	"github.com/kist-containers/kist/internal/state"
	"github.com/kist-containers/kist/internal/ui"
)

// Cmd is `kist build`.
type Cmd struct {
	Tag          []string `short:"t" sep:"none" help:"Name of the image, NAME[:TAG]." placeholder:"NAME"`
	File         string   `short:"f" help:"Dockerfile, - for standard input. Default: PATH/Dockerfile." placeholder:"FILE"`
	Target       string   `help:"Stop at this stage." placeholder:"STAGE"`
	BuildArg     []string `sep:"none" help:"Value of an ARG; NAME alone takes it from the environment." placeholder:"NAME=VALUE"`
	BuildContext []string `sep:"none" help:"Another context: a directory, docker-image://NAME or a URL." placeholder:"NAME=PLACE"`
	Label        []string `sep:"none" help:"Label of the image." placeholder:"KEY=VALUE"`
	Annotation   []string `sep:"none" help:"Annotation of the image's manifest." placeholder:"KEY=VALUE"`
	Platform     []string `help:"Platforms to build for; several make an index." placeholder:"OS/ARCH"`
	Pull         pullFlag `help:"Pull base images: --pull or --pull=always, missing, never."`
	NoCache      bool     `help:"Build every step."`
	NoCacheFor   []string `name:"no-cache-filter" help:"Build every step of these stages." placeholder:"STAGE"`
	CacheFrom    []string `sep:"none" help:"Take steps from type=local,src=DIR or type=registry,ref=REF, a cache or an image that carries one." placeholder:"PLACE"`
	CacheTo      []string `sep:"none" help:"Write steps to type=local,dest=DIR or type=registry,ref=REF, or into the image: type=inline." placeholder:"PLACE"`
	CacheLimit   string   `env:"KIST_BUILD_CACHE" help:"Size that the cache keeps to, least recently used steps go first. Default: a tenth of the disk." placeholder:"SIZE"`
	Output       []string `short:"o" sep:"none" help:"What becomes of the result: type=image|docker|oci|local|tar|registry,dest=PATH; a bare path is local, - a tar on standard output." placeholder:"SPEC"`
	Push         bool     `help:"Push the result under its names."`
	Load         bool     `help:"Store the result; the default."`
	Iidfile      string   `name:"iidfile" help:"Write the image's ID to FILE." placeholder:"FILE"`
	MetadataFile string   `help:"Write what was built, as JSON, to FILE." placeholder:"FILE"`
	Quiet        bool     `short:"q" help:"Print the image's ID only."`
	Progress     string   `help:"auto, plain, tty, json, quiet or none." enum:"auto,plain,tty,json,rawjson,quiet,none" default:"auto" env:"BUILDKIT_PROGRESS" placeholder:"HOW"`
	Check        bool     `help:"Check the Dockerfile and build nothing; same as --call check."`
	Call         string   `help:"build, check, outline (what the target takes) or targets." enum:"build,check,outline,targets" default:"build" placeholder:"WHAT"`
	Squash       bool     `help:"Make one layer of those that the build adds."`
	Jobs         int      `help:"Steps at the same time. Default: one per CPU." placeholder:"N"`
	Timestamp    string   `help:"Seconds since 1970 for all times of the image, like SOURCE_DATE_EPOCH." placeholder:"SECONDS"`
	runFlags
	podmanFlags
	isolationFlags

	ForceRm             bool   `hidden:""`
	Rm                  bool   `hidden:"" default:"true" negatable:""`
	Compress            bool   `hidden:""`
	DisableContentTrust bool   `hidden:"" default:"true" negatable:""`
	Isolation           string `hidden:"" enum:",default,oci" default:""`
	Builder             string `hidden:""`

	Provenance string   `help:"Attest how the image was made: true, mode=min, or mode=max to tell arguments and steps too." placeholder:"MODE"`
	Sbom       string   `hidden:""`
	Attest     []string `hidden:"" sep:"none"`

	Context string `arg:"" name:"path" optional:"" default:"." help:"Directory, - for standard input, or a git or http(s) URL."`
}

// Run builds.
func (c *Cmd) Run(ctx context.Context, b *Builder, out *ui.Output) error {
	if c.RegistryFlags != (image.RegistryFlags{TLSVerify: true}) {
		b.o.Registry = c.RegistryFlags.Config()
	}
	b.o.CgroupParent = cmpOr(c.CgroupParent, b.o.CgroupParent)
	req, err := c.request(out)
	if err != nil {
		return err
	}
	if c.Check {
		c.Call = callCheck
	}
	if c.Call != callBuild {
		return c.call(ctx, b, req, out)
	}
	if err := c.attestations(req); err != nil {
		return err
	}
	limit, err := size("--cache-limit", c.CacheLimit)
	if err != nil {
		return err
	}
	outputs, err := c.outputs()
	if err != nil {
		return err
	}
	for _, o := range outputs {
		req.Tags = append(req.Tags, o.names...)
	}
	mode := c.Progress
	if c.Quiet || mode == "none" {
		mode = progressQuiet
	}
	// Held until the outputs are written, which read the layers.
	leave, err := b.enter(ctx)
	if err != nil {
		return err
	}
	defer func() { leave() }()
	said, closeLog, err := c.logTo(out, &mode)
	if err != nil {
		return err
	}
	defer closeLog()
	show := newDisplay(mode, said)
	res, err := b.Build(ctx, req, show)
	show.Close()
	if mode != progressQuiet && res != nil {
		c.warn(res, out)
	}
	if err != nil {
		return explain(err, out)
	}
	for _, o := range outputs {
		if err := b.write(ctx, o, req, res, out); err != nil {
			return fmt.Errorf("output %s: %w", o, err)
		}
	}
	if err := c.report(res, out); err != nil {
		return err
	}
	leave()
	leave = func() {}
	if !res.Fresh {
		return nil
	}
	if limit > 0 {
		b.o.CacheLimit = limit
	}
	return b.Trim(ctx)
}

// explain prints the place in the Dockerfile before the error itself.
func explain(err error, out *ui.Output) error {
	var at *SourceError
	if errors.As(err, &at) {
		out.Notef("%s", at.Excerpt())
	}
	return err
}

func (c *Cmd) warn(res *Result, out *ui.Output) {
	if len(res.Unused) > 0 {
		out.Warn("no ARG uses the build arguments [%s]", strings.Join(res.Unused, " "))
	}
	for _, w := range res.Warnings {
		out.Warn("%s: %s (line %d)", w.Rule, w.Text, w.Line)
	}
}

// report says what was made, where the user wants to know.
func (c *Cmd) report(res *Result, out *ui.Output) error {
	if c.Iidfile != "" {
		if err := os.WriteFile(c.Iidfile, []byte(res.ID), 0o644); err != nil {
			return err
		}
	}
	if c.IidfileRaw != "" {
		if err := os.WriteFile(c.IidfileRaw, []byte(strings.TrimPrefix(res.ID, "sha256:")), 0o644); err != nil {
			return err
		}
	}
	if c.MetadataFile != "" {
		meta := map[string]any{"containerimage.config.digest": res.ID, "containerimage.digest": res.Digest, "image.name": strings.Join(res.Names, ",")}
		if err := state.WriteJSON(c.MetadataFile, meta); err != nil {
			return err
		}
	}
	if c.Quiet || !ui.IsTerminal(out.Err) {
		if !slices.Contains(c.Output, "-") {
			out.Print(res.ID)
		}
		return nil
	}
	for _, n := range res.Names {
		out.Notef("built %s", n)
	}
	out.Print(res.ID)
	return nil
}

// request turns flags into what to build.
func (c *Cmd) request(out *ui.Output) (_ *Request, err error) {
	r := &Request{
		Context: c.Context, File: c.File, Target: c.Target, Tags: c.Tag, NoCache: c.NoCache, NoCacheStages: c.NoCacheFor,
		Squash: c.Squash, Jobs: c.Jobs, Args: map[string]string{}, Contexts: map[string]string{}, Stdin: out.In,
	}
	if c.Jobs < 0 {
		return nil, fmt.Errorf("--jobs %d: want a number of steps", c.Jobs)
	}
	for _, t := range c.Tag {
		if ref, err := image.ParseReference(t); err != nil {
			return nil, fmt.Errorf("--tag: %w", err)
		} else if ref.Digest != "" {
			return nil, fmt.Errorf("--tag %s: the digest is known after the build only", t)
		}
	}
	for _, a := range c.BuildArg {
		name, value, ok := strings.Cut(a, "=")
		if name == "" {
			return nil, fmt.Errorf("--build-arg %s: want NAME=VALUE", a)
		}
		if !ok {
			if value, ok = os.LookupEnv(name); !ok {
				continue // docker: a name without a value anywhere is not given
			}
		}
		r.Args[name] = value
	}
	if r.Labels, err = pairs("--label", c.Label); err != nil {
		return nil, err
	}
	if r.Annotations, err = pairs("--annotation", c.Annotation); err != nil {
		return nil, err
	}
	for _, bc := range c.BuildContext {
		name, where, ok := strings.Cut(bc, "=")
		if !ok || name == "" || where == "" {
			return nil, fmt.Errorf("--build-context %s: want NAME=PLACE", bc)
		}
		r.Contexts[name] = where
	}
	for _, p := range c.Platform {
		parsed, err := parsePlatform(p)
		if err != nil {
			return nil, fmt.Errorf("--platform: %w", err)
		}
		if !slices.ContainsFunc(r.Platforms, func(o v1.Platform) bool { return o.Equals(parsed) }) {
			r.Platforms = append(r.Platforms, parsed)
		}
	}
	r.Pull = cmpOr(string(c.Pull), "missing")
	if r.Epoch, err = c.epoch(r.Args); err != nil {
		return nil, err
	}
	for _, s := range c.CacheFrom {
		l, err := parseCache("--cache-from", s)
		if err != nil {
			return nil, err
		}
		r.CacheFrom = append(r.CacheFrom, l)
	}
	for _, s := range c.CacheTo {
		l, err := parseCache("--cache-to", s)
		if err != nil {
			return nil, err
		}
		r.CacheTo = append(r.CacheTo, l)
	}
	c.Network = cmpOr(c.Net, c.Network)
	return r, errors.Join(c.runFlags.apply(r), c.podmanFlags.apply(r), c.isolationFlags.apply(r))
}

// pairs reads KEY=VALUE flags; a key alone has the value "".
func pairs(flag string, words []string) (map[string]string, error) {
	all := map[string]string{}
	for _, w := range words {
		k, v, _ := strings.Cut(w, "=")
		if k == "" {
			return nil, fmt.Errorf("%s %s: want KEY=VALUE", flag, w)
		}
		all[k] = v
	}
	return all, nil
}

// epoch is --timestamp, the build argument, or the environment's variable.
func (c *Cmd) epoch(args map[string]string) (time.Time, error) {
	s := cmpOr(c.Timestamp, c.SourceDateEpoch)
	for _, other := range []string{args[epochArg], os.Getenv(epochArg)} {
		s = cmpOr(s, other)
	}
	if s == "" {
		return time.Time{}, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return time.Time{}, fmt.Errorf("%s=%s: want seconds since 1970", epochArg, s)
	}
	return time.Unix(n, 0).UTC(), nil
}

// outputs reads --output, --push.
func (c *Cmd) outputs() ([]output, error) {
	var all []output
	for _, s := range c.Output {
		o, err := parseOutput(s)
		if err != nil {
			return nil, err
		}
		all = append(all, o)
	}
	if c.Push {
		all = append(all, output{kind: "registry"})
	}
	return all, nil
}

package build

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/kist-containers/kist/image"
	"github.com/kist-containers/kist/internal/ui"
)

// podmanFlags are flags of `podman build` that docker has not.
type podmanFlags struct {
	image.RegistryFlags

	BuildArgFile      []string      `sep:"none" help:"File of NAME=VALUE lines, each a --build-arg." placeholder:"FILE"`
	Ignorefile        string        `help:"Ignore file, instead of .dockerignore." placeholder:"FILE"`
	From              string        `help:"Base image, instead of what the first FROM names." placeholder:"IMAGE"`
	Env               []string      `sep:"none" help:"Variable of the image." placeholder:"NAME=VALUE"`
	Unsetenv          []string      `help:"Take a variable out of the image." placeholder:"NAME"`
	Unsetlabel        []string      `help:"Take a label out of the image." placeholder:"KEY"`
	Layers            bool          `default:"true" negatable:"" help:"--layers=false: use no cache and make one layer."`
	SkipUnusedStages  bool          `default:"true" negatable:"" help:"--skip-unused-stages=false: build also stages that the target does not need."`
	CacheTTL          time.Duration `name:"cache-ttl" help:"Use no cached step that is older." placeholder:"DURATION"`
	OmitHistory       bool          `help:"Leave the history out of the image."`
	Format            string        `help:"oci." placeholder:"FORMAT"`
	AllPlatforms      bool          `help:"Build for all platforms that the base images are there for."`
	Arch              string        `help:"Architecture to build for." placeholder:"ARCH"`
	OS                string        `name:"os" help:"Operating system to build for: linux." placeholder:"OS"`
	Variant           string        `help:"Variant of --arch." placeholder:"VARIANT"`
	IidfileRaw        string        `name:"iidfile-raw" help:"Write the image's ID without sha256: to FILE." placeholder:"FILE"`
	SourceDateEpoch   string        `name:"source-date-epoch" help:"Same as --timestamp." placeholder:"SECONDS"`
	SquashAll         bool          `help:"Make one layer of all, the base's too."`
	InheritLabels     bool          `default:"true" negatable:"" help:"--inherit-labels=false: without the labels of base images."`
	OSVersion         string        `name:"os-version" help:"Version of the operating system that the image says it is for." placeholder:"VERSION"`
	OSFeature         []string      `name:"os-feature" help:"Feature of the operating system that the image says it needs." placeholder:"FEATURE"`
	CreatedAnnotation bool          `negatable:"" help:"Annotate the manifest with the time of the image."`
	Manifest          string        `help:"Add the image to this manifest list, which is made where it is missing." placeholder:"LIST"`
	Logfile           string        `help:"Write what the steps say to FILE." placeholder:"FILE"`
	Retry             int           `help:"Try again N times when a base image cannot be pulled." placeholder:"N"`
	RetryDelay        time.Duration `help:"Wait so long before." default:"2s" placeholder:"DURATION"`
	SourcePolicyFile  string        `help:"Rules on what the Dockerfile may read, BuildKit's JSON." placeholder:"FILE"`
	Net               string        `hidden:""`
}

// apply completes what the flags that docker has say.
func (f *podmanFlags) apply(r *Request) (err error) {
	if f.Format != "" && f.Format != "oci" {
		return fmt.Errorf("--format %s: kist's images are OCI's, which keep HEALTHCHECK, SHELL and ONBUILD too", f.Format)
	}
	for _, file := range f.BuildArgFile {
		if err := argFile(r.Args, file); err != nil {
			return fmt.Errorf("--build-arg-file: %w", err)
		}
	}
	if r.Env, err = pairs("--env", f.Env); err != nil {
		return err
	}
	r.UnsetEnv, r.UnsetLabels = f.Unsetenv, f.Unsetlabel
	r.Ignorefile, r.From = f.Ignorefile, f.From
	r.AllStages, r.OmitHistory, r.CacheTTL = !f.SkipUnusedStages, f.OmitHistory, f.CacheTTL
	r.SquashAll, r.DropLabels, r.Created, r.List = f.SquashAll, !f.InheritLabels, f.CreatedAnnotation, f.Manifest
	if f.Manifest != "" {
		if _, err := image.ParseReference(f.Manifest); err != nil {
			return fmt.Errorf("--manifest: %w", err)
		}
	}
	r.OSVersion, r.OSFeatures = f.OSVersion, f.OSFeature
	if r.Retry, r.RetryDelay = f.Retry, f.RetryDelay; f.Retry < 0 || f.RetryDelay < 0 {
		return errors.New("--retry and --retry-delay: want no negative ones")
	}
	if r.policy, err = readPolicy(f.SourcePolicyFile); err != nil {
		return fmt.Errorf("--source-policy-file: %w", err)
	}
	if !f.Layers {
		r.NoCache, r.Squash = true, true
	}
	if r.AllPlatforms = f.AllPlatforms; r.AllPlatforms && (len(r.Platforms) > 0 || f.Arch+f.OS+f.Variant != "") {
		return errors.New("--all-platforms and --platform, --arch, --os or --variant exclude each other")
	}
	if f.Arch+f.OS+f.Variant == "" {
		return nil
	}
	if len(r.Platforms) > 0 {
		return errors.New("--platform and --arch, --os or --variant say the same twice")
	}
	host := hostPlatform()
	p, err := parsePlatform(strings.TrimSuffix(cmpOr(f.OS, host.OS)+"/"+cmpOr(f.Arch, host.Architecture)+"/"+f.Variant, "/"))
	r.Platforms = append(r.Platforms, p)
	return err
}

// argFile adds the lines of file to args; what --build-arg gave comes first.
func argFile(args map[string]string, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if name == "" || !ok {
			return fmt.Errorf("%s:%d: want NAME=VALUE", file, n)
		}
		if _, given := args[name]; !given {
			args[name] = value
		}
	}
	return lines.Err()
}

// logTo is where the display goes: --logfile, or out.
func (f *podmanFlags) logTo(out *ui.Output, mode *string) (*ui.Output, func() error, error) {
	if f.Logfile == "" {
		return out, func() error { return nil }, nil
	}
	file, err := os.Create(f.Logfile)
	if err != nil {
		return nil, nil, fmt.Errorf("--logfile: %w", err)
	}
	if *mode == progressQuiet || *mode == progressTTY {
		*mode = progressPlain
	}
	said := *out
	said.Err = file
	return &said, file.Close, nil
}

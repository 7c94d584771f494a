package build

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/shell"

	"github.com/kist-containers/kist/internal/cli"
)

// A layer is an unpacked layer and its archive.
type layer struct {
	DiffID, ChainID string
	Dir             string
	Blob            v1.Descriptor
}

// A stageState is an image under construction.
type stageState struct {
	layers []layer
	// base counts the layers that came with FROM an image.
	base   int
	config v1.ConfigFile
	scope  *scope
	// startInterval is the health check's, for which v1.HealthConfig has no field.
	startInterval time.Duration
	// cmdSet says that this stage set CMD itself.
	cmdSet bool
	// clock is the time of the last step that wrote files: what builds from the
	// cache alone has the same times, and so the same ID.
	clock time.Time
}

// clone is what FROM this stage starts with.
func (s *stageState) clone() *stageState {
	c := *s
	c.layers = slices.Clone(s.layers)
	c.config = *s.config.DeepCopy()
	c.scope = s.scope.inherit()
	c.cmdSet = false
	return &c
}

// chain is the identity of the files so far, "" for none.
func (s *stageState) chain() string {
	if len(s.layers) == 0 {
		return ""
	}
	return s.layers[len(s.layers)-1].ChainID
}

// workdir is where relative paths start.
func (s *stageState) workdir() string { return cmpOr(s.config.Config.WorkingDir, "/") }

// abs makes p absolute in the image.
func (s *stageState) abs(p string) string {
	if path.IsAbs(p) {
		return path.Clean(p)
	}
	return path.Join(s.workdir(), p)
}

// history adds an entry. Whoever wrote a layer says so.
func (s *stageState) history(text string, layer bool) {
	s.config.History = append(s.config.History, v1.History{
		Created: v1.Time{Time: s.clock}, CreatedBy: text, Comment: "kist", EmptyLayer: !layer,
	})
}

// push puts a new layer on top.
func (s *stageState) push(l layer) error {
	h, err := v1.NewHash(l.DiffID)
	if err != nil {
		return err
	}
	s.layers = append(s.layers, l)
	s.config.RootFS.DiffIDs = append(s.config.RootFS.DiffIDs, h)
	return nil
}

// defaultPath is docker's, for images that set none.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// start is the state of an empty image for p.
func start(p v1.Platform) *stageState {
	s := &stageState{scope: newScope(nil)}
	s.config.OS, s.config.Architecture, s.config.Variant = p.OS, p.Architecture, p.Variant
	s.config.RootFS.Type = "layers"
	return s
}

// words expands a command's words in the scope of its stage.
func (r *stageRun) words(c instructions.Command) error {
	unmatched := func(name string) {
		near := cli.Nearest(name, r.scope.Keys())
		if !r.scope.declared[name] {
			r.job.plan.file.warn(&linter.RuleUndefinedVar, c.Location(), linter.RuleUndefinedVar.Format(name, near))
		}
	}
	escape := r.job.plan.file.escape
	if e, ok := c.(instructions.SupportsSingleWordExpansion); ok {
		if err := e.Expand(r.scope.expander(escape, unmatched)); err != nil {
			return err
		}
	}
	if e, ok := c.(instructions.SupportsSingleWordExpansionRaw); ok {
		return e.ExpandRaw(r.scope.rawExpander(escape, unmatched))
	}
	return nil
}

// configure does the instructions that change nothing but the configuration. It
// reports whether c is one.
func (r *stageRun) configure(c instructions.Command) (bool, error) {
	cfg := &r.config.Config
	text := strings.ToUpper(c.Name())
	switch c := c.(type) {
	case *instructions.EnvCommand:
		for _, kv := range c.Env {
			r.scope.setEnv(kv.Key, kv.Value)
			text += " " + kv.String()
		}
		cfg.Env = slices.Clone(r.scope.env)
	case *instructions.ArgCommand:
		r.scope.declare(c, r.job.plan.args, r.job.plan.global.Get)
		for _, a := range c.Args {
			text += " " + a.Key
			if v, ok := r.scope.Get(a.Key); ok {
				text += "=" + v
			}
		}
	case *instructions.LabelCommand:
		if cfg.Labels = maps.Clone(cfg.Labels); cfg.Labels == nil {
			cfg.Labels = map[string]string{}
		}
		for _, kv := range c.Labels {
			cfg.Labels[kv.Key] = kv.Value
			text += " " + kv.String()
		}
	case *instructions.MaintainerCommand:
		r.config.Author = c.Maintainer
		text += " " + c.Maintainer
	case *instructions.ExposeCommand:
		return true, r.expose(c)
	case *instructions.UserCommand:
		cfg.User = c.User
		text += " " + c.User
	case *instructions.VolumeCommand:
		if cfg.Volumes = maps.Clone(cfg.Volumes); cfg.Volumes == nil {
			cfg.Volumes = map[string]struct{}{}
		}
		for _, v := range c.Volumes {
			if v == "" {
				return true, fmt.Errorf("VOLUME: an empty path")
			}
			cfg.Volumes[v] = struct{}{}
		}
		text += fmt.Sprintf(" [%s]", strings.Join(c.Volumes, " "))
	case *instructions.StopSignalCommand:
		if err := checkSignal(c.Signal); err != nil {
			return true, err
		}
		cfg.StopSignal = c.Signal
		text += " " + c.Signal
	case *instructions.ShellCommand:
		cfg.Shell = c.Shell
		text += fmt.Sprintf(" [%s]", strings.Join(c.Shell, " "))
	case *instructions.OnbuildCommand:
		cfg.OnBuild = append(slices.Clone(cfg.OnBuild), c.Expression)
		return true, nil
	default:
		return r.configureProcess(c)
	}
	r.history(text, false)
	return true, nil
}

// configureProcess does what says how a container of the image runs.
func (r *stageRun) configureProcess(c instructions.Command) (bool, error) {
	cfg := &r.config.Config
	switch c := c.(type) {
	case *instructions.CmdCommand:
		cfg.Cmd = r.argv(c.ShellDependantCmdLine)
		cfg.ArgsEscaped = false
		r.cmdSet = true
		r.history("CMD "+quoted(cfg.Cmd), false)
	case *instructions.EntrypointCommand:
		cfg.Entrypoint = r.argv(c.ShellDependantCmdLine)
		if !r.cmdSet {
			cfg.Cmd = nil // docker: the base's CMD was meant for the base's ENTRYPOINT
		}
		r.history("ENTRYPOINT "+quoted(cfg.Entrypoint), false)
	case *instructions.HealthCheckCommand:
		h := c.Health
		cfg.Healthcheck = &v1.HealthConfig{Test: h.Test, Interval: h.Interval, Timeout: h.Timeout, StartPeriod: h.StartPeriod, Retries: h.Retries}
		r.startInterval = h.StartInterval
		r.history(fmt.Sprintf("HEALTHCHECK {Test:%v Interval:%v Timeout:%v StartPeriod:%v StartInterval:%v Retries:%d}",
			h.Test, h.Interval, h.Timeout, h.StartPeriod, h.StartInterval, h.Retries), false)
	default:
		return false, nil
	}
	return true, nil
}

// argv is the command line, under the shell where it is in shell form.
func (r *stageRun) argv(c instructions.ShellDependantCmdLine) []string {
	if !c.PrependShell {
		return slices.Clone(c.CmdLine)
	}
	return append(r.shell(), strings.Join(c.CmdLine, " "))
}

func (r *stageRun) shell() []string {
	if len(r.config.Config.Shell) > 0 {
		return slices.Clone(r.config.Config.Shell)
	}
	return []string{"/bin/sh", "-c"}
}

// quoted is how docker's history shows a command line.
func quoted(argv []string) string {
	q := make([]string, len(argv))
	for i, a := range argv {
		q[i] = fmt.Sprintf("%q", a)
	}
	return "[" + strings.Join(q, " ") + "]"
}

// expose adds ports: PORT[-PORT][/PROTOCOL], possibly several from one variable.
func (r *stageRun) expose(c *instructions.ExposeCommand) error {
	lex := shell.NewLex(r.job.plan.file.escape)
	var words []string
	for _, p := range c.Ports {
		w, err := lex.ProcessWords(p, r.scope)
		if err != nil {
			return err
		}
		words = append(words, w...)
	}
	ports := maps.Clone(r.config.Config.ExposedPorts)
	if ports == nil {
		ports = map[string]struct{}{}
	}
	var all []string
	for _, w := range words {
		list, err := parseExpose(w)
		if err != nil {
			return err
		}
		all = append(all, list...)
		r.lintExpose(c, w)
	}
	for _, p := range all {
		ports[p] = struct{}{}
	}
	r.config.Config.ExposedPorts = ports
	r.history("EXPOSE ["+strings.Join(all, " ")+"]", false)
	return nil
}

func (r *stageRun) lintExpose(c *instructions.ExposeCommand, word string) {
	file := r.job.plan.file
	port, proto, _ := strings.Cut(word, "/")
	if proto != strings.ToLower(proto) {
		file.warn(&linter.RuleExposeProtoCasing, c.Location(), linter.RuleExposeProtoCasing.Format(word))
	}
	if strings.Contains(port, ":") {
		file.warn(&linter.RuleExposeInvalidFormat, c.Location(), linter.RuleExposeInvalidFormat.Format(word))
	}
}

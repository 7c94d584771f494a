package build

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"github.com/kist-containers/kist/image"
	"github.com/kist-containers/kist/internal/cli"
)

// linter prepares the checks: the directive `# check=…` or its override says
// which to skip and whether a finding is an error.
func (d *Dockerfile) linter(data []byte, check string) error {
	var where []parser.Range
	if check == "" {
		_, check, where, _ = parser.ParseDirective("check", data)
	}
	config, err := linter.ParseLintOptions(check)
	if err != nil {
		return d.at(where, fmt.Errorf("check=%s: %w", check, err))
	}
	config.Warn = func(rule, _, url, text string, location []parser.Range) {
		w := Warning{Rule: rule, Text: text, URL: url}
		if len(location) > 0 {
			w.Line = location[0].Start.Line
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		if !slices.Contains(d.Warnings, w) {
			d.Warnings = append(d.Warnings, w)
		}
	}
	d.lint = linter.New(config)
	return nil
}

// warn runs one rule of the linter.
func (d *Dockerfile) warn(rule linter.LinterRuleI, location []parser.Range, text string) {
	d.lint.Run(rule, location, text)
}

// LintError says that the file asked for findings to be errors, and has some.
func (d *Dockerfile) LintError() error {
	if d.lint.Error() == nil {
		return nil
	}
	return fmt.Errorf("%s: %d findings, and its check directive says error=true", d.Name, len(d.Warnings))
}

// lintSource runs the checks that look at the text as it stands.
func (d *Dockerfile) lintSource(ast *parser.Result) {
	for _, w := range ast.Warnings {
		if w.Location != nil {
			d.warn(&linter.RuleNoEmptyContinuation, []parser.Range{*w.Location}, linter.RuleNoEmptyContinuation.Format())
		}
	}
	upper, lower := 0, 0
	for _, n := range ast.AST.Children {
		switch n.Value {
		case strings.ToUpper(n.Value):
			upper++
		case strings.ToLower(n.Value):
			lower++
		}
	}
	want, casing := strings.ToUpper, "uppercase"
	if lower > upper {
		want, casing = strings.ToLower, "lowercase"
	}
	for _, n := range ast.AST.Children {
		if n.Value != want(n.Value) {
			rule := &linter.RuleConsistentInstructionCasing
			d.warn(rule, n.Location(), rule.Format(n.Value, casing))
		}
	}
}

// secretName is BuildKit's rule for names that look like secrets.
const secretName = `(?i)(^|_)(access|apikey|auth|credential|credentials|key|password|pword|passwd|secret|token)(_|$)`
const notSecretName = `(?i)_key_id$|public`

// lintStages runs the checks over parsed stages.
func (d *Dockerfile) lintStages() {
	seen := map[string]bool{}
	for i := range d.Stages {
		s := &d.Stages[i]
		if name := strings.ToLower(s.Name); name != "" {
			if seen[name] {
				d.warn(&linter.RuleDuplicateStageName, s.Location, linter.RuleDuplicateStageName.Format(name))
			}
			seen[name] = true
			if name == "scratch" || name == "context" {
				d.warn(&linter.RuleReservedStageName, s.Location, linter.RuleReservedStageName.Format(name))
			}
		}
		d.lintPlatform(s)
		d.lintStage(s)
	}
}

func (d *Dockerfile) lintPlatform(s *instructions.Stage) {
	switch {
	case s.Platform == "$TARGETPLATFORM" || s.Platform == "${TARGETPLATFORM}":
		d.warn(&linter.RuleRedundantTargetPlatform, s.Location, linter.RuleRedundantTargetPlatform.Format(s.Platform))
	case s.Platform != "" && !strings.Contains(s.Platform, "$"):
		d.warn(&linter.RuleFromPlatformFlagConstDisallowed, s.Location, linter.RuleFromPlatformFlagConstDisallowed.Format(s.Platform))
	}
}

func (d *Dockerfile) lintStage(s *instructions.Stage) {
	absolute, shell := false, false
	single := map[string][]instructions.Command{}
	for _, c := range s.Commands {
		switch c := c.(type) {
		case *instructions.WorkdirCommand:
			if !strings.HasPrefix(c.Path, "/") && !strings.HasPrefix(c.Path, "$") && !absolute {
				d.warn(&linter.RuleWorkdirRelativePath, c.Location(), linter.RuleWorkdirRelativePath.Format(c.Path))
			}
			absolute = true
		case *instructions.ShellCommand:
			shell = true
		case *instructions.CmdCommand:
			d.lintShellForm(c, c.PrependShell, shell)
			single["CMD"] = append(single["CMD"], c)
		case *instructions.EntrypointCommand:
			d.lintShellForm(c, c.PrependShell, shell)
			single["ENTRYPOINT"] = append(single["ENTRYPOINT"], c)
		case *instructions.HealthCheckCommand:
			single["HEALTHCHECK"] = append(single["HEALTHCHECK"], c)
		case *instructions.EnvCommand:
			for _, kv := range c.Env {
				d.lintSecret("ENV", kv.Key, c.Location())
			}
			d.lintLegacy(c, c.Env)
		case *instructions.LabelCommand:
			d.lintLegacy(c, c.Labels)
		case *instructions.ArgCommand:
			for _, kv := range c.Args {
				d.lintSecret("ARG", kv.Key, c.Location())
			}
		}
	}
	for name, all := range single {
		for _, c := range all[:max(len(all)-1, 0)] {
			d.warn(&linter.RuleMultipleInstructionsDisallowed, c.Location(), linter.RuleMultipleInstructionsDisallowed.Format(name))
		}
	}
}

func (d *Dockerfile) lintLegacy(c instructions.Command, pairs instructions.KeyValuePairs) {
	if slices.ContainsFunc(pairs, func(kv instructions.KeyValuePair) bool { return kv.NoDelim }) {
		d.warn(&linter.RuleLegacyKeyValueFormat, c.Location(), linter.RuleLegacyKeyValueFormat.Format(strings.ToUpper(c.Name())))
	}
}

// lintShellForm: a chosen SHELL says that the shell form is meant.
func (d *Dockerfile) lintShellForm(c instructions.Command, shellForm, shell bool) {
	if shellForm && !shell {
		d.warn(&linter.RuleJSONArgsRecommended, c.Location(), linter.RuleJSONArgsRecommended.Format(strings.ToUpper(c.Name())))
	}
}

func (d *Dockerfile) lintSecret(instruction, key string, location []parser.Range) {
	match := func(pattern string) bool { return regexp.MustCompile(pattern).MatchString(key) }
	if match(secretName) && !match(notSecretName) {
		d.warn(&linter.RuleSecretsUsedInArgOrEnv, location, linter.RuleSecretsUsedInArgOrEnv.Format(instruction, key))
	}
}

func nearInstruction(word string) string { return cli.Nearest(strings.ToUpper(word), keywords()) }

// lintIgnored finds sources that .dockerignore leaves out.
func (r *stageRun) lintIgnored(verb string, fromContext bool, paths []string, c instructions.Command) {
	if !fromContext || r.job.ctx == nil {
		return
	}
	for _, p := range paths {
		clean := strings.TrimPrefix(path.Join("/", p), "/")
		if !isURL(p) && !isGit(p) && !hasWildcards(p) && r.job.ctx.ignore.excludes(clean) {
			r.job.plan.file.warn(&linter.RuleCopyIgnoredFile, c.Location(), linter.RuleCopyIgnoredFile.Format(verb, p))
		}
	}
}

// lintDefault tells of a base that only --build-arg gives a name.
func (p *plan) lintDefault(spec *instructions.Stage) {
	if name, err := p.defaults.expander(p.file.escape, nil)(spec.BaseName); err == nil && name != "" {
		if _, err := image.ParseReference(name); err == nil {
			return
		}
	}
	p.file.warn(&linter.RuleInvalidDefaultArgInFrom, spec.Location, linter.RuleInvalidDefaultArgInFrom.Format(spec.BaseName))
}

// lintBase tells of a base image that is of another platform than wanted.
func (r *stageRun) lintBase(ref string) {
	have := v1.Platform{OS: r.config.OS, Architecture: r.config.Architecture, Variant: r.config.Variant}
	want := r.stage.platform
	if have.OS == want.OS && have.Architecture == want.Architecture || have.Architecture == "" {
		return
	}
	rule := &linter.RuleInvalidBaseImagePlatform
	r.job.plan.file.warn(rule, r.stage.Location, rule.Format(ref, platformName(want), platformName(have)))
}

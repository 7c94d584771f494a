package build

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"

	"github.com/kist-containers/kist/internal/cli"
	"github.com/kist-containers/kist/internal/ui"
)

// A plan is what a target needs of a Dockerfile, for one platform.
type plan struct {
	file     *Dockerfile
	args     map[string]string
	platform v1.Platform
	global   *scope
	// defaults is global without what --build-arg gives.
	defaults *scope
	stages   []*planStage
	target   *planStage
}

// A planStage is one stage with its names resolved.
type planStage struct {
	*instructions.Stage
	index int
	// base is the expanded name after FROM; parent the stage it names, if any.
	base     string
	parent   *planStage
	platform v1.Platform
	// deps are the stages it reads, parent included.
	deps []*planStage
	// needed says that the target depends on it.
	needed bool
}

// scratch is the empty base.
const scratch = "scratch"

// label is what the display calls the stage.
func (s *planStage) label() string {
	if s.Name != "" {
		return s.Name
	}
	return "stage-" + strconv.Itoa(s.index)
}

// newPlan resolves stages, and finds what target ("" for the last stage) needs.
// contexts are the names of --build-context, which hide stages and images.
func newPlan(d *Dockerfile, target string, platform v1.Platform, args map[string]string, contexts []string) (*plan, error) {
	p := &plan{file: d, args: args, platform: platform, global: newScope(nil), defaults: newScope(nil)}
	for _, a := range platformArgs(platform, target) {
		p.defaults.setArg(a.Name, a.Value)
		p.global.setArg(a.Name, a.Value)
		if given, ok := args[a.Name]; ok {
			p.global.setArg(a.Name, given)
		}
	}
	if err := p.declareGlobals(); err != nil {
		return nil, err
	}
	for i := range d.Stages {
		s, err := p.newStage(i, contexts)
		if err != nil {
			return nil, d.at(d.Stages[i].Location, err)
		}
		p.stages = append(p.stages, s)
	}
	for _, s := range p.stages {
		if err := p.link(s, contexts); err != nil {
			return nil, err
		}
	}
	var err error
	if p.target, err = p.find(target); err != nil {
		return nil, err
	}
	p.target.need()
	return p, nil
}

func (p *plan) declareGlobals() error {
	for i := range p.file.Globals {
		c := &p.file.Globals[i]
		if err := c.Expand(p.global.expander(p.file.escape, nil)); err != nil {
			return p.file.at(c.Location(), err)
		}
		p.global.declare(c, p.args, nil)
		p.defaults.declare(c, nil, nil)
	}
	return nil
}

func (p *plan) newStage(i int, contexts []string) (*planStage, error) {
	spec := &p.file.Stages[i]
	s := &planStage{Stage: spec, index: i, platform: p.platform}
	expand := p.global.expander(p.file.escape, func(name string) {
		if p.global.declared[name] {
			return
		}
		near := cli.Nearest(name, p.global.Keys())
		p.file.warn(&linter.RuleUndefinedArgInFrom, spec.Location, linter.RuleUndefinedArgInFrom.Format(name, near))
	})
	var err error
	if s.base, err = expand(spec.BaseName); err != nil {
		return nil, err
	}
	p.lintDefault(spec)
	if s.base == "" {
		return nil, ui.Hint(fmt.Errorf("FROM %s: the name is empty after its variables were replaced", spec.BaseName),
			"give the ARG a default before FROM, or --build-arg")
	}
	if spec.Platform != "" {
		name, err := expand(spec.Platform)
		if err != nil {
			return nil, err
		}
		if s.platform, err = parsePlatform(name); err != nil {
			return nil, err
		}
	}
	if !slices.Contains(contexts, s.base) {
		s.parent = p.earlier(s.base, i)
	}
	return s, nil
}

// earlier is the last stage of that name before stage number i, or nil.
func (p *plan) earlier(name string, i int) *planStage {
	for _, s := range slices.Backward(p.stages[:min(i, len(p.stages))]) {
		if s.Name != "" && strings.EqualFold(s.Name, name) {
			return s
		}
	}
	return nil
}

// named is the stage that COPY --from=name or a mount means in stage s, nil
// for an image or a build context.
func (p *plan) named(s *planStage, name string, contexts []string) (*planStage, error) {
	if name == "" || slices.Contains(contexts, name) {
		return nil, nil
	}
	if found := p.earlier(name, s.index); found != nil {
		return found, nil
	}
	n, err := strconv.Atoi(name)
	switch {
	case strings.EqualFold(name, s.Name) && s.Name != "", err == nil && n == s.index:
		return nil, fmt.Errorf("from=%s: a stage cannot copy from itself", name)
	case err == nil && n >= 0 && n < s.index:
		return p.stages[n], nil
	case err == nil && n >= len(p.stages):
		return nil, fmt.Errorf("from=%s: there are only %d stages, counted from 0", name, len(p.stages))
	case err == nil:
		return nil, fmt.Errorf("from=%s: that stage comes later", name)
	}
	for _, later := range p.stages[s.index+1:] {
		if strings.EqualFold(later.Name, name) {
			return nil, fmt.Errorf("from=%s: that stage comes later", name)
		}
	}
	return nil, nil
}

// link finds the stages that s reads.
func (p *plan) link(s *planStage, contexts []string) error {
	if s.parent != nil {
		s.deps = append(s.deps, s.parent)
	}
	for _, c := range s.Commands {
		for _, from := range sourcesOf(c) {
			dep, err := p.named(s, from, contexts)
			if err != nil {
				return p.file.at(c.Location(), err)
			}
			if dep != nil && !slices.Contains(s.deps, dep) {
				s.deps = append(s.deps, dep)
			}
		}
	}
	return nil
}

// sourcesOf are the names after --from and from= in c.
func sourcesOf(c instructions.Command) []string {
	switch c := c.(type) {
	case *instructions.CopyCommand:
		return []string{c.From}
	case *instructions.RunCommand:
		var names []string
		for _, m := range instructions.GetMounts(c) {
			names = append(names, m.From)
		}
		return names
	}
	return nil
}

// find returns the stage that --target means.
func (p *plan) find(target string) (*planStage, error) {
	if target == "" {
		return p.stages[len(p.stages)-1], nil
	}
	if s := p.earlier(target, len(p.stages)); s != nil {
		return s, nil
	}
	if n, err := strconv.Atoi(target); err == nil && n >= 0 && n < len(p.stages) {
		return p.stages[n], nil
	}
	var names []string
	for _, s := range p.stages {
		if s.Name != "" {
			names = append(names, s.Name)
		}
	}
	err := fmt.Errorf("--target %s: no such stage in %s", target, p.file.Name)
	if near := cli.Nearest(strings.ToLower(target), names); near != "" {
		return nil, ui.Hint(err, "did you mean --target %s?", near)
	}
	if len(names) == 0 {
		return nil, err
	}
	return nil, ui.Hint(err, "there are %s", strings.Join(names, ", "))
}

// need marks the stage and what it reads.
func (s *planStage) need() {
	if s.needed {
		return
	}
	s.needed = true
	for _, d := range s.deps {
		d.need()
	}
}

// unused are the given build arguments that no ARG names.
func (p *plan) unused() []string {
	declared := map[string]bool{}
	for _, name := range proxyNames() {
		declared[name] = true
	}
	for _, g := range p.file.Globals {
		for _, a := range g.Args {
			declared[a.Key] = true
		}
	}
	for _, s := range p.stages {
		for _, c := range s.Commands {
			if arg, ok := c.(*instructions.ArgCommand); ok {
				for _, a := range arg.Args {
					declared[a.Key] = true
				}
			}
		}
	}
	var unused []string
	for name := range p.args {
		if !declared[name] && !strings.HasPrefix(name, "BUILDKIT_") && name != epochArg && !p.global.declared[name] {
			unused = append(unused, name)
		}
	}
	slices.Sort(unused)
	return unused
}

// epochArg is the argument that fixes all times; see reproducible-builds.org.
const epochArg = "SOURCE_DATE_EPOCH"

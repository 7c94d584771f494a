package build

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"github.com/kist-containers/kist/internal/ui"
)

// What `kist build --call` may ask for instead of a build.
const (
	callBuild   = "build"
	callCheck   = "check"
	callOutline = "outline"
	callTargets = "targets"
)

// call answers from the Dockerfile alone.
func (c *Cmd) call(ctx context.Context, b *Builder, req *Request, out *ui.Output) error {
	p, err := b.parse(ctx, req)
	if err != nil {
		return explain(err, out)
	}
	switch c.Call {
	case callOutline:
		return p.outline(out)
	case callTargets:
		return p.targets(out)
	}
	return p.check(out)
}

// parse reads the Dockerfile and lints it.
func (b *Builder) parse(ctx context.Context, req *Request) (*plan, error) {
	c, err := b.openContext(ctx, req)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	j := &job{b: b, req: req, ctx: c}
	if j.plan, err = j.newPlan(hostPlatform()); err != nil {
		return nil, err
	}
	j.lintWords()
	return j.plan, nil
}

// check lists the linter's findings; to have some is an error.
func (p *plan) check(out *ui.Output) error {
	found := p.file.Warnings
	for _, w := range found {
		out.Printf("%s: %s (line %d)\n", w.Rule, w.Text, w.Line)
	}
	if len(found) == 0 {
		out.Print("Check complete, no warnings found.")
		return nil
	}
	return fmt.Errorf("check: %d warnings", len(found))
}

// targets lists the stages that --target may name.
func (p *plan) targets(out *ui.Output) error {
	var rows []any
	for _, s := range p.stages {
		name := s.label()
		if s == p.target {
			name += " (default)"
		}
		rows = append(rows, struct{ Target, Base, Description string }{name, s.base, s.DocComment})
	}
	return ui.Table{
		Headers: map[string]string{"Target": "TARGET", "Base": "BASE", "Description": "DESCRIPTION"},
		Default: "{{.Target}}\t{{.Base}}\t{{.Description}}",
	}.Write(out.Out, "", false, rows)
}

// outline lists what the target takes: arguments, secrets and agents. A comment
// before an ARG that begins with its name describes it, as docker has it.
func (p *plan) outline(out *ui.Output) error {
	type row struct{ Kind, Name, Value, Description string }
	var rows []any
	add := func(r row) {
		known := func(o any) bool { return o.(row).Kind == r.Kind && o.(row).Name == r.Name }
		if !slices.ContainsFunc(rows, known) {
			rows = append(rows, r)
		}
	}
	args := func(c *instructions.ArgCommand) {
		for _, a := range c.Args {
			value := a.ValueString()
			if given, ok := p.args[a.Key]; ok {
				value = given
			}
			add(row{"arg", a.Key, value, a.DocComment})
		}
	}
	for i := range p.file.Globals {
		args(&p.file.Globals[i])
	}
	for _, s := range p.stages {
		if !s.needed {
			continue
		}
		for _, c := range s.Commands {
			switch c := c.(type) {
			case *instructions.ArgCommand:
				args(c)
			case *instructions.RunCommand:
				for _, m := range instructions.GetMounts(c) {
					if m.Type == instructions.MountTypeSecret || m.Type == instructions.MountTypeSSH {
						add(row{string(m.Type), cmpOr(m.CacheID, "default"), map[bool]string{true: "required"}[m.Required], ""})
					}
				}
			}
		}
	}
	out.Printf("TARGET\t%s\n\n", strings.TrimSpace(p.target.label()+"  "+p.target.DocComment))
	return ui.Table{
		Headers: map[string]string{"Kind": "KIND", "Name": "NAME", "Value": "VALUE", "Description": "DESCRIPTION"},
		Default: "{{.Kind}}\t{{.Name}}\t{{.Value}}\t{{.Description}}",
	}.Write(out.Out, "", false, rows)
}

package build

import (
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
)

// lintWords expands the words of every stage in a scope of its own, so that
// variables that nobody defines are found. What a base image defines is not
// known here: such names count as defined when the base is no stage.
func (j *job) lintWords() {
	scopes := map[*planStage]*scope{}
	for _, s := range j.plan.stages {
		r := &stageRun{job: j, stage: s, stageState: start(s.platform)}
		known := s.base == scratch
		if s.parent != nil && scopes[s.parent] != nil {
			r.scope = newScope(scopes[s.parent].env)
			known = true
		}
		if known {
			for _, c := range s.Commands {
				r.lintCommand(c)
			}
			scopes[s] = r.scope
		}
	}
}

func (r *stageRun) lintCommand(c instructions.Command) {
	if err := r.words(c); err != nil {
		return // the build reports it
	}
	switch c := c.(type) {
	case *instructions.EnvCommand:
		for _, kv := range c.Env {
			r.scope.setEnv(kv.Key, kv.Value)
		}
	case *instructions.ArgCommand:
		r.scope.declare(c, r.job.plan.args, r.job.plan.global.Get)
	case *instructions.ExposeCommand:
		r.expose(c)
	case *instructions.CopyCommand:
		r.lintIgnored("Copy", c.From == "", c.SourcePaths, c)
	case *instructions.AddCommand:
		r.lintIgnored("Add", true, c.SourcePaths, c)
	}
}

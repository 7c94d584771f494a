package cli

import (
	"reflect"

	"github.com/alecthomas/kong"

	"github.com/kist-containers/kist/internal/ui"
)

// Both parses args by the draft and by the whole grammar and returns the selected
// command's two structures. drafted is nil where the draft did not do.
func (l *Line) Both(cmd *ui.Command, args []string) (drafted, whole any, err error) {
	if ctx := l.parseDraft(cmd, cmd.New(), args); ctx != nil {
		drafted = ctx.Selected().Target.Addr().Interface()
	}
	p, err := l.parser(cmd, cmd.New())
	if err != nil {
		return nil, nil, err
	}
	ctx, err := p.Parse(args)
	if err != nil {
		return drafted, nil, err
	}
	return drafted, ctx.Selected().Target.Addr().Interface(), nil
}

// Leaves are the commands of kong's whole model.
func (l *Line) Leaves(cmd *ui.Command) []*kong.Node {
	p, err := l.parser(cmd, cmd.New())
	if err != nil {
		panic(err)
	}
	return p.Model.Leaves(false)
}

// Kind is that of a flag's values.
func Kind(f *kong.Flag) reflect.Kind { return f.Target.Kind() }

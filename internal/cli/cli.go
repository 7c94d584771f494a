// Package cli turns a list of commands into a command line: it parses, shows
// help, and suggests the near miss.
//
// Only the grammar of the command that was typed is built: kong's reflection
// over a hundred commands costs more than starting a process.
package cli

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/kist-containers/kist/internal/ui"
)

// A Line is a command line's grammar.
type Line struct {
	Name, Help string
	// Globals points to the structure of the flags that precede the command.
	Globals any
	// Leading are further flags that precede it.
	Leading  []Leading
	Commands []ui.Command
	Out      *ui.Output
}

// ErrShown is what Parse returns when it has printed help instead.
var ErrShown = errors.New("help shown")

// Parse returns the command that args select. An error is worded for the user
// and hints at what to type instead.
func (l *Line) Parse(args []string) (*kong.Context, error) {
	args, err := l.takeLeading(args)
	if err != nil {
		return nil, err
	}
	word := l.firstWord(args)
	cmd := l.find(word)
	switch {
	case word == "" && wantsVersion(args):
		l.Out.Print(VersionLine())
		return nil, ErrShown
	case len(args) == 0, word == "" && slices.Contains(args, "--help"), word == "help" && len(args) == 1:
		l.overview()
		return nil, ErrShown
	case word == "help":
		args = append(slices.Delete(slices.Clone(args), 0, 1), "--help")
		return l.Parse(args)
	case cmd == nil && word != "":
		return nil, l.unknown(word)
	}
	var target any
	if cmd != nil {
		target = cmd.New()
		if ctx := l.parseDraft(cmd, target, args); ctx != nil {
			return ctx, nil
		}
	}
	p, err := l.parser(cmd, target)
	if err != nil {
		return nil, err
	}
	ctx, err := p.Parse(args)
	switch {
	case err == nil && ctx.Selected() == nil:
		l.overview()
		return nil, ErrShown
	case err == nil:
		return ctx, nil
	case isGroup(err):
		_, err = p.Parse(append(slices.Clone(args), "--help"))
	}
	return nil, explain(err)
}

func wantsVersion(args []string) bool {
	return slices.Contains(args, "--version") || slices.Contains(args, "-v")
}

// parseDraft parses by a grammar of no more than args use. It returns nil where
// that does not work out, and leaves the command as it was.
func (l *Line) parseDraft(cmd *ui.Command, target any, args []string) *kong.Context {
	d := newDraft(target, args[slices.Index(args, l.firstWord(args)):])
	if d == nil {
		return nil
	}
	p, err := l.parser(cmd, d.part.Addr().Interface())
	if err != nil {
		return nil
	}
	ctx, err := p.Parse(args)
	if err != nil || ctx.Selected() == nil || !d.settle(ctx.Selected()) {
		return nil
	}
	return ctx
}

// parser builds kong's model of one command, which target is or stands for, and
// the globals.
func (l *Line) parser(cmd *ui.Command, target any) (*kong.Kong, error) {
	options := []kong.Option{
		kong.Name(l.Name), kong.Description(l.Help),
		kong.Writers(l.Out.Out, l.Out.Err),
		kong.Exit(func(code int) { panic(exited(code)) }),
		kong.NoDefaultHelp(),
		kong.WithHyphenPrefixedParameters(true), // --pids-limit -1
		kong.KindMapper(reflect.String, kong.MapperFunc(text)),
	}
	if cmd != nil {
		var tags []string
		if len(cmd.Aliases) > 0 {
			tags = append(tags, fmt.Sprintf("aliases:%q", strings.Join(cmd.Aliases, ",")))
		}
		if cmd.Raw {
			tags = append(tags, `cmd:"" passthrough:""`)
		}
		options = append(options, kong.DynamicCommand(cmd.Name, cmd.Help, "", target, tags...))
	}
	return kong.New(l.Globals, options...)
}

// text decodes a string. Where kong takes values that begin with a hyphen it also
// takes the end of the line for an empty one.
func text(ctx *kong.DecodeContext, target reflect.Value) error {
	t := ctx.Scan.Pop()
	if t.IsEOL() {
		return errors.New("missing value")
	}
	target.SetString(t.String())
	return nil
}

// exited carries the status of kong's own exits (--help) up to Run.
type exited int

// Recover turns the end that --help asks for into a return: defer it in the
// caller of Parse and give it the status to set.
func Recover(status *int) {
	switch e := recover().(type) {
	case nil:
	case exited:
		*status = int(e)
	default:
		panic(e)
	}
}

// firstWord is the first argument that is neither a global flag nor its value.
func (l *Line) firstWord(args []string) string {
	takesValue := l.valueFlags()
	for i := 0; i < len(args); i++ {
		arg := args[i]
		switch {
		case arg == "--":
			return ""
		case !strings.HasPrefix(arg, "-") || arg == "-":
			return arg
		case takesValue[arg]:
			i++
		}
	}
	return ""
}

// valueFlags are the global flags whose value is the next argument.
func (l *Line) valueFlags() map[string]bool {
	flags := map[string]bool{}
	t := reflect.TypeOf(l.Globals).Elem()
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Tag.Get("kong") == "-" {
			continue
		}
		if f.Type.Kind() == reflect.Bool || f.Type.Kind() == reflect.Struct {
			continue
		}
		name := f.Tag.Get("name")
		if name == "" {
			name = strings.ToLower(f.Name)
		}
		flags["--"+name] = true
		if short := f.Tag.Get("short"); short != "" {
			flags["-"+short] = true
		}
	}
	return flags
}

func (l *Line) find(word string) *ui.Command {
	for i, c := range l.Commands {
		if c.Name == word || slices.Contains(c.Aliases, word) {
			return &l.Commands[i]
		}
	}
	return nil
}

func (l *Line) unknown(word string) error {
	var names []string
	for _, c := range l.Commands {
		if !c.Hidden {
			names = append(names, c.Name)
		}
	}
	err := fmt.Errorf("%s: %w", word, errNoCommand)
	if near := Nearest(word, names); near != "" {
		return ui.Hint(err, "did you mean `%s %s`?", l.Name, near)
	}
	return ui.Hint(err, "%s --help", l.Name)
}

// overview prints the commands in their groups.
func (l *Line) overview() {
	out := l.Out
	out.Printf("Usage: %s [OPTIONS] COMMAND [ARG...]\n\n%s\n", l.Name, l.Help)
	var groups []string
	for _, c := range l.Commands {
		if !c.Hidden && !slices.Contains(groups, c.Group) {
			groups = append(groups, c.Group)
		}
	}
	p := newHelpPrinter(out.Out)
	for _, g := range groups {
		var rows [][2]string
		for _, c := range l.Commands {
			if c.Group == g && !c.Hidden {
				rows = append(rows, [2]string{fmt.Sprintf("%-14s", c.Name), c.Help})
			}
		}
		p.table(cmp.Or(g, "Commands"), rows)
	}
	options := globalFlags(l.Globals)
	for _, f := range l.Leading {
		if f.Help != "" {
			options = append(options, [2]string{"    --" + f.Name + " " + strings.ToUpper(f.Name), f.Help})
		}
	}
	p.table("Options", options)
	out.Printf("\nRun `%s COMMAND --help` for a command's flags and examples.\n", l.Name)
}

// globalFlags are the rows of the flags before the command. No command line was
// parsed, so they are read off the struct.
func globalFlags(globals any) (rows [][2]string) {
	t := reflect.TypeOf(globals).Elem()
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Tag.Get("kong") == "-" {
			continue
		}
		name := "    --" + cmp.Or(f.Tag.Get("name"), strings.ToLower(f.Name))
		if s := f.Tag.Get("short"); s != "" {
			name = "-" + s + ", " + name[4:]
		}
		if f.Type.Kind() != reflect.Bool {
			name += " " + cmp.Or(f.Tag.Get("placeholder"), strings.ToUpper(f.Name))
		}
		help := f.Tag.Get("help")
		if env := f.Tag.Get("env"); env != "" {
			help = strings.TrimSuffix(help, ".") + " ($" + env + ")"
		}
		rows = append(rows, [2]string{name, help})
	}
	return rows
}

// Package cli turns a list of commands into a command line: it parses, shows
// help, and suggests the near miss.
//
// Only the grammar of the command that was typed is built: kong's reflection
// over a hundred commands costs more than starting a process.
package cli

import (
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
	Globals  any
	Commands []ui.Command
	Out      *ui.Output
}

// ErrShown is what Parse returns when it has printed help instead.
var ErrShown = errors.New("help shown")

// Parse returns the command that args select. An error is worded for the user
// and hints at what to type instead.
func (l *Line) Parse(args []string) (*kong.Context, error) {
	word := l.firstWord(args)
	cmd := l.find(word)
	switch {
	case word == "" && wantsVersion(args):
		l.Out.Print(VersionLine())
		return nil, ErrShown
	case word == "", word == "help" && len(args) == 1:
		l.overview()
		return nil, ErrShown
	case word == "help":
		args = append(slices.Delete(slices.Clone(args), 0, 1), "--help")
		return l.Parse(args)
	case cmd == nil && word != "":
		return nil, l.unknown(word)
	}
	p, err := l.parser(cmd)
	if err != nil {
		return nil, err
	}
	ctx, err := p.Parse(args)
	if err != nil {
		return nil, explain(err, word)
	}
	return ctx, nil
}

func wantsVersion(args []string) bool {
	return slices.Contains(args, "--version") || slices.Contains(args, "-v")
}

// parser builds kong's model of one command and the globals.
func (l *Line) parser(cmd *ui.Command) (*kong.Kong, error) {
	options := []kong.Option{
		kong.Name(l.Name), kong.Description(l.Help),
		kong.Writers(l.Out.Out, l.Out.Err),
		kong.Exit(func(code int) { panic(exited(code)) }),
		kong.NoDefaultHelp(),
		kong.WithHyphenPrefixedParameters(true), // --pids-limit -1
	}
	if cmd != nil {
		var tags []string
		if len(cmd.Aliases) > 0 {
			tags = append(tags, fmt.Sprintf("aliases:%q", strings.Join(cmd.Aliases, ",")))
		}
		if cmd.Raw {
			tags = append(tags, `cmd:"" passthrough:""`)
		}
		options = append(options, kong.DynamicCommand(cmd.Name, cmd.Help, "", cmd.New(), tags...))
	}
	return kong.New(l.Globals, options...)
}

// HelpFlag is --help. kong's own would take -h, which is docker's host name.
type HelpFlag bool

// BeforeReset shows the help of the selected command and ends.
func (h HelpFlag) BeforeReset(ctx *kong.Context) error {
	options := kong.HelpOptions{Compact: true, ValueFormatter: kong.DefaultHelpValueFormatter}
	if err := kong.DefaultHelpPrinter(options, ctx); err != nil {
		return err
	}
	ctx.Exit(0)
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
	err := fmt.Errorf("%s: no such command", word)
	if near := Nearest(word, names); near != "" {
		return ui.Hint(err, "did you mean `%s %s`?", l.Name, near)
	}
	return ui.Hint(err, "%s --help", l.Name)
}

// explain words kong's errors: the command first, then what is wrong, and the
// near miss where kong knows one.
func explain(err error, word string) error {
	var parse *kong.ParseError
	if !errors.As(err, &parse) {
		return err
	}
	command := word
	if parse.Context != nil && parse.Context.Selected() != nil {
		command = strings.TrimPrefix(parse.Context.Selected().Path(), parse.Context.Model.Name+" ")
	}
	text, near, found := strings.Cut(parse.Error(), ", did you mean ")
	wrapped := fmt.Errorf("%s: %s", command, text)
	if found {
		return ui.Hint(wrapped, "did you mean %s", near)
	}
	return ui.Hint(wrapped, "kist %s --help", command)
}

// Nearest returns the candidate that word was most likely meant to be, or "".
func Nearest(word string, candidates []string) string {
	best, bestDistance := "", len(word)/3+1
	for _, c := range candidates {
		if d := distance(word, c); d <= bestDistance && (best == "" || d < bestDistance) {
			best, bestDistance = c, d
		}
	}
	return best
}

// distance counts the insertions, deletions, substitutions and swaps of
// neighbours that turn a into b (optimal string alignment).
func distance(a, b string) int {
	var before []int
	last := make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(row[j-1]+1, last[j]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
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
	for _, g := range groups {
		out.Printf("\n%s:\n", cmpOr(g, "Commands"))
		for _, c := range l.Commands {
			if c.Group == g && !c.Hidden {
				out.Printf("  %-14s %s\n", c.Name, c.Help)
			}
		}
	}
	out.Printf("\nOptions:\n%s", globalFlags(l.Globals))
	out.Printf("\nRun `%s COMMAND --help` for a command's flags and examples.\n", l.Name)
}

func cmpOr(a, b string) string {
	if a == "" {
		return b
	}
	return a
}

func globalFlags(globals any) string {
	var b strings.Builder
	t := reflect.TypeOf(globals).Elem()
	for i := range t.NumField() {
		f := t.Field(i)
		name := cmpOr(f.Tag.Get("name"), strings.ToLower(f.Name))
		short := "    "
		if s := f.Tag.Get("short"); s != "" {
			short = "-" + s + ", "
		}
		value := ""
		if f.Type.Kind() != reflect.Bool {
			value = " " + strings.ToUpper(f.Type.Kind().String())
		}
		fmt.Fprintf(&b, "  %s--%-20s %s\n", short, name+value, f.Tag.Get("help"))
	}
	return b.String()
}

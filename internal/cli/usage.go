package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/kist-containers/kist/internal/ui"
)

// errArguments and errNoCommand are docker's other kind of usage error: the flags
// were right, the words were not.
var (
	errArguments = errors.New("wrong arguments")
	errNoCommand = errors.New("no such command")
)

// Status is docker's exit status for an error of Parse: 125 for a bad flag, 1 for
// arguments that are missing or too many and for an unknown command.
func Status(err error) int {
	if errors.Is(err, errArguments) || errors.Is(err, errNoCommand) {
		return 1
	}
	return 125
}

// usageError is a kong error in our words.
type usageError struct {
	text string
	kind error
}

func (e *usageError) Error() string { return e.text }
func (e *usageError) Unwrap() error { return e.kind }

// explain words kong's errors: the command first, then what is wrong, and the
// near miss.
func explain(err error) error {
	var parse *kong.ParseError
	if !errors.As(err, &parse) || parse.Context == nil {
		return err
	}
	node := selected(parse.Context)
	command := path(node)
	text, _, _ := strings.Cut(parse.Error(), ", did you mean ")
	shown := strings.TrimPrefix(text, node.Name+": ") // kong's, before what Validate says
	if word, ok := strings.CutPrefix(text, "unexpected argument "); ok && len(node.Children) > 0 {
		shown = word + ": no such command"
	}
	wrapped := &usageError{text: strings.TrimPrefix(command+": "+shown, ": ")}
	if strings.HasPrefix(text, "expected ") || strings.HasPrefix(text, "unexpected argument ") {
		wrapped.kind = errArguments
	}
	if near := nearMiss(node, text); near != "" {
		return ui.Hint(wrapped, "did you mean %q?", near)
	}
	return ui.Hint(wrapped, "%s --help", strings.TrimSpace("kist "+command))
}

// selected is the innermost command that was recognised, or the application.
func selected(ctx *kong.Context) *kong.Node {
	if n := ctx.Selected(); n != nil {
		return n
	}
	node := ctx.Model.Node
	for _, p := range ctx.Path {
		if p.Command != nil {
			node = p.Command
		}
	}
	return node
}

// path is a command as it is typed, without aliases.
func path(n *kong.Node) string {
	var words []string
	for ; n != nil && n.Type != kong.ApplicationNode; n = n.Parent {
		words = append([]string{n.Name}, words...)
	}
	return strings.Join(words, " ")
}

// isGroup reports whether a command was typed that only has commands below it.
func isGroup(err error) bool {
	var parse *kong.ParseError
	return errors.As(err, &parse) && parse.Context != nil && isUnfinished(err) && selected(parse.Context).Type == kong.CommandNode
}

func isUnfinished(err error) bool { return strings.HasPrefix(err.Error(), "expected one of ") }

// nearMiss is the flag or command that the text's word was meant to be, or "".
func nearMiss(n *kong.Node, text string) string {
	if flag, ok := strings.CutPrefix(text, "unknown flag --"); ok {
		var names []string
		for _, group := range n.AllFlags(true) {
			for _, f := range group {
				names = append(names, f.Name)
			}
		}
		name, _, _ := strings.Cut(flag, "=")
		if near := Nearest(name, names); near != "" {
			return "--" + near
		}
		return ""
	}
	word, ok := strings.CutPrefix(text, "unexpected argument ")
	if !ok {
		return ""
	}
	var names []string
	for _, child := range n.Children {
		if !child.Hidden {
			names = append(names, child.Name)
		}
	}
	if near := Nearest(word, names); near != "" {
		return fmt.Sprintf("kist %s %s", path(n), near)
	}
	return ""
}

// Nearest returns the candidate that word was most likely meant to be, or "": a
// third of its letters may be wrong.
func Nearest(word string, candidates []string) string {
	best, bestDistance := "", max(1, len(word)/3)
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

package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/alecthomas/kong"
	"golang.org/x/term"
)

// HelpFlag is --help. kong's own would take -h, which is docker's host name.
type HelpFlag bool

// BeforeReset shows the help of the selected command and ends.
func (h HelpFlag) BeforeReset(ctx *kong.Context) error {
	newHelpPrinter(ctx.Stdout).command(selected(ctx))
	ctx.Exit(0)
	return nil
}

// A helpPrinter shows what a command is, in docker's order: usage, purpose,
// examples, commands below it, its own flags, those of all commands.
type helpPrinter struct {
	w     io.Writer
	width int
}

func newHelpPrinter(w io.Writer) helpPrinter {
	p := helpPrinter{w, 80}
	if f, ok := w.(interface{ Fd() uintptr }); ok {
		if cols, _, err := term.GetSize(int(f.Fd())); err == nil && cols > 40 {
			p.width = min(cols, 120)
		}
	}
	return p
}

func (p helpPrinter) command(n *kong.Node) {
	fmt.Fprintf(p.w, "Usage:  %s\n\n%s\n", usage(n), strings.TrimSuffix(n.Help, "."))
	if n.Detail != "" {
		fmt.Fprintf(p.w, "\nExamples:\n%s\n", strings.TrimRight(n.Detail, "\n"))
	}
	if len(n.Aliases) > 0 {
		fmt.Fprintf(p.w, "\nAliases:\n  %s\n", strings.Join(append([]string{n.Name}, n.Aliases...), ", "))
	}
	var rows [][2]string
	for _, child := range n.Children {
		if !child.Hidden {
			rows = append(rows, [2]string{child.Name, child.Help})
		}
	}
	p.table("Commands", rows)
	groups := n.AllFlags(true)
	for i := len(groups) - 1; i >= 0; i-- {
		p.table(map[bool]string{true: "Global options", false: "Options"}[i == 0], flagRows(groups[i]))
	}
	if len(rows) > 0 {
		fmt.Fprintf(p.w, "\nRun `kist %s COMMAND --help` for a command's flags and examples.\n", path(n))
	}
}

// usage is docker's line: kist run [OPTIONS] IMAGE [ARG...].
func usage(n *kong.Node) string {
	words := []string{"kist", path(n), "[OPTIONS]"}
	if len(n.Children) > 0 {
		words = []string{"kist", path(n), "COMMAND"}
	}
	for _, a := range n.Positional {
		name := strings.ToUpper(a.Name)
		switch {
		case a.Passthrough:
			name += " [COMMAND] [ARG...]"
		case a.IsSlice() && a.Tag.Optional:
			name = "[" + name + "...]"
		case a.IsSlice():
			name += " [" + name + "...]"
		case a.Tag.Optional:
			name = "[" + name + "]"
		}
		words = append(words, name)
	}
	return strings.Join(words, " ")
}

func flagRows(flags []*kong.Flag) [][2]string {
	var rows [][2]string
	for _, f := range flags {
		name := "    --" + f.Name
		if f.Short != 0 {
			name = fmt.Sprintf("-%c, --%s", f.Short, f.Name)
		}
		switch {
		case f.Negated || f.Tag.Negatable != "":
			name = strings.Replace(name, "--", "--[no-]", 1)
		case !f.IsBool() && !f.IsCounter():
			name += " " + f.FormatPlaceHolder()
		}
		help := f.Help
		for _, env := range f.Envs {
			help = strings.TrimSuffix(help, ".") + " ($" + env + ")."
		}
		rows = append(rows, [2]string{name, help})
	}
	return rows
}

// columns of the left side; what is longer has its text on the next line.
const leftColumns = 30

// table prints rows of a name and a text that is wrapped beside it.
func (p helpPrinter) table(title string, rows [][2]string) {
	if len(rows) == 0 {
		return
	}
	left := 0
	for _, r := range rows {
		if len(r[0]) <= leftColumns {
			left = max(left, len(r[0]))
		}
	}
	fmt.Fprintf(p.w, "\n%s:\n", title)
	for _, r := range rows {
		lines := wrap(strings.TrimSuffix(r[1], "."), p.width-left-5)
		if len(r[0]) > left {
			fmt.Fprintf(p.w, "  %s\n", r[0])
			r[0] = ""
		}
		for _, line := range lines {
			fmt.Fprintf(p.w, "  %-*s   %s\n", left, r[0], line)
			r[0] = ""
		}
	}
}

// wrap breaks text between words into lines of at most width bytes.
func wrap(text string, width int) []string {
	lines := []string{""}
	for _, word := range strings.Fields(text) {
		last := &lines[len(lines)-1]
		switch {
		case *last == "":
			*last = word
		case len(*last)+1+len(word) <= width:
			*last += " " + word
		default:
			lines = append(lines, word)
		}
	}
	return lines
}

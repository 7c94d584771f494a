// Package ui is how kist talks to people: results on standard output, progress,
// warnings and hints on standard error, tables, formats, sizes and times, and
// the wording of errors.
package ui

import (
	"fmt"
	"os"
)

// A Command is one entry of the command line: `kist NAME`.
type Command struct {
	Name    string
	Aliases []string
	Help    string
	// Group is the heading of the command in `kist --help`.
	Group string
	// Hidden keeps it out of `kist --help`.
	Hidden bool
	// Raw hands every word after the name to the command's one []string
	// argument, flags too: it has a grammar of its own.
	Raw bool
	// New returns a pointer to the kong structure of the command: its flags and
	// Run method, or its subcommands.
	New func() any
}

// Output is where a command's words go. The zero value discards them.
type Output struct {
	In       *os.File
	Out, Err *os.File
}

// Std returns the process's own streams.
func Std() *Output { return &Output{In: os.Stdin, Out: os.Stdout, Err: os.Stderr} }

// Print writes a line of results.
func (o *Output) Print(a ...any) {
	if o.Out != nil {
		fmt.Fprintln(o.Out, a...)
	}
}

// Printf writes results.
func (o *Output) Printf(format string, a ...any) {
	if o.Out != nil {
		fmt.Fprintf(o.Out, format, a...)
	}
}

// Warn tells of something the user should know and that stops nothing.
func (o *Output) Warn(format string, a ...any) {
	o.Notef("kist: warning: "+format, a...)
}

// Notef writes a line to standard error.
func (o *Output) Notef(format string, a ...any) {
	if o.Err != nil {
		fmt.Fprintln(o.Err, Escape(fmt.Sprintf(format, a...)))
	}
}

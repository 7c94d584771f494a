package main

import (
	"testing"

	"github.com/alecthomas/kong"
)

// TestNoFlagIsShadowed looks for flags of commands that kong would take for one of
// those that precede the command.
func TestNoFlagIsShadowed(t *testing.T) {
	model := func(target any) *kong.Kong {
		k, err := kong.New(target, kong.NoDefaultHelp(), kong.Exit(func(int) {}))
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	global := map[string]bool{}
	for _, f := range model(&globals{}).Model.Flags {
		global["--"+f.Name] = true
		if f.Short != 0 {
			global["-"+string(f.Short)] = true
		}
	}
	var walk func(n *kong.Node)
	walk = func(n *kong.Node) {
		for _, f := range n.Flags {
			names := []string{"--" + f.Name, "-" + string(f.Short)}
			for _, a := range f.Aliases {
				names = append(names, "--"+a)
			}
			for _, name := range names {
				if global[name] {
					t.Errorf("%s: its %s is a global flag too", n.FullPath(), name)
				}
			}
		}
		for _, c := range n.Children {
			walk(c)
		}
	}
	for _, c := range commands() {
		if !c.Raw {
			walk(model(c.New()).Model.Node)
		}
	}
}

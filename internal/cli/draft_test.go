package cli_test

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"github.com/kist-containers/kist/build"
	"github.com/kist-containers/kist/container"
	"github.com/kist-containers/kist/container/system"
	"github.com/kist-containers/kist/image"
	"github.com/kist-containers/kist/internal/cli"
	"github.com/kist-containers/kist/internal/ui"
	"github.com/kist-containers/kist/network"
	"github.com/kist-containers/kist/volume"
)

// TestDraft gives every flag of every command and wants the same from the draft
// of a grammar as from the whole.
func TestDraft(t *testing.T) {
	line := cli.Line{Name: "kist", Globals: &struct{}{}, Out: &ui.Output{}}
	agreed, tried := 0, map[reflect.Type]bool{}
	for _, of := range []func() []ui.Command{
		container.Commands, image.Commands, build.Commands, network.Commands, volume.Commands, system.Commands,
	} {
		for _, cmd := range of() {
			if cmd.Name == "run" || cmd.Raw { // it starts a monitor; it has a grammar of its own
				continue
			}
			for _, leaf := range line.Leaves(&cmd) {
				if kind := leaf.Target.Type(); !tried[kind] {
					tried[kind] = true
					agreed += agree(t, &line, &cmd, leaf)
				}
			}
		}
	}
	if agreed < 1500 {
		t.Errorf("only %d command lines were parsed by a draft", agreed)
	}
}

// agree tries each flag of a command with each way to write it.
func agree(t *testing.T, line *cli.Line, cmd *ui.Command, leaf *kong.Node) (agreed int) {
	words := strings.Fields(strings.TrimPrefix(leaf.Path(), "kist "))
	for _, f := range leaf.Flags {
		for _, flag := range ways(f) {
			args := append(append(words[:len(words):len(words)], flag...), arguments(leaf)...)
			drafted, whole, err := line.Both(cmd, args)
			switch {
			case err != nil:
				if drafted != nil {
					t.Errorf("%q: the draft takes it, the whole says %v", args, err)
				}
			case drafted == nil:
				t.Errorf("%q: the draft does not take it", args)
			case !reflect.DeepEqual(drafted, whole):
				t.Errorf("%q:\ndraft %+v\nwhole %+v", args, drafted, whole)
			default:
				agreed++
			}
		}
	}
	return agreed
}

// ways are a flag's spellings, with a value that some flags of its type take.
func ways(f *kong.Flag) (all [][]string) {
	value := "1"
	switch {
	case f.Enum != "":
		value = f.EnumSlice()[0]
	case cli.Kind(f) == reflect.Map:
		value = "a=b"
	}
	if f.IsBool() {
		all = append(all, []string{"--" + f.Name})
	} else {
		all = append(all, []string{"--" + f.Name, value}, []string{"--" + f.Name + "=" + value})
	}
	if f.Tag.Negatable != "" {
		all = append(all, []string{"--no-" + f.Name})
	}
	for _, a := range f.Aliases {
		all = append(all, []string{"--" + a + "=" + value})
	}
	if f.Short != 0 && f.IsBool() {
		all = append(all, []string{"-" + string(f.Short)})
	} else if f.Short != 0 {
		all = append(all, []string{"-" + string(f.Short) + value}, []string{"-" + string(f.Short), value})
	}
	return all
}

// arguments are as many as the command needs, each the path of a file.
func arguments(leaf *kong.Node) (args []string) {
	for range leaf.Positional {
		args = append(args, os.Args[0])
	}
	return args
}

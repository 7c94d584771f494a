package units

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/kist-containers/kist/container"
)

// A flag is one of a command line, by its long name and as it was typed.
type flag struct {
	name  string
	words []string
}

// splitFlags parts the arguments of kist run into its flags and, from the image
// on, the rest.
func splitFlags(args []string) (flags []flag, rest []string, err error) {
	known, err := runFlags()
	if err != nil {
		return nil, nil, err
	}
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			return flags, args[i+1:], nil
		}
		if arg == "-" || !strings.HasPrefix(arg, "-") {
			return flags, args[i:], nil
		}
		list, takesNext, err := known.split(arg)
		if err != nil {
			return nil, nil, err
		}
		if takesNext {
			if i++; i == len(args) {
				return nil, nil, fmt.Errorf("%s: missing value", arg)
			}
			last := &list[len(list)-1]
			last.words = append(last.words, args[i])
		}
		flags = append(flags, list...)
	}
	return nil, nil, errors.New("no image is given")
}

// runModel knows the flags of kist run.
type runModel []*kong.Flag

func runFlags() (runModel, error) {
	p, err := kong.New(new(container.RunCmd), kong.NoDefaultHelp())
	if err != nil {
		return nil, err
	}
	return p.Model.Flags, nil
}

func (m runModel) find(match func(*kong.Flag) bool, typed string) (*kong.Flag, error) {
	i := slices.IndexFunc(m, match)
	if i < 0 {
		return nil, fmt.Errorf("%s: no such flag of kist run", typed)
	}
	return m[i], nil
}

// split reads one argument, which may hold several short flags. takesNext says
// that the value of the last one follows.
func (m runModel) split(arg string) (list []flag, takesNext bool, err error) {
	if long, ok := strings.CutPrefix(arg, "--"); ok {
		name, _, hasValue := strings.Cut(long, "=")
		positive := strings.TrimPrefix(name, "no-")
		f, err := m.find(func(f *kong.Flag) bool {
			return f.Name == name || slices.Contains(f.Aliases, name) || f.Tag.Negatable != "" && f.Name == positive
		}, arg)
		if err != nil {
			return nil, false, err
		}
		return []flag{{f.Name, []string{arg}}}, !hasValue && !f.IsBool(), nil
	}
	for i, c := range arg[1:] {
		f, err := m.find(func(f *kong.Flag) bool { return f.Short == c }, "-"+string(c))
		if err != nil {
			return nil, false, err
		}
		if !f.IsBool() {
			rest := arg[1+i+len(string(c)):]
			return append(list, flag{f.Name, []string{"-" + string(c) + rest}}), rest == "", nil
		}
		list = append(list, flag{f.Name, []string{"-" + string(c)}})
	}
	return list, false, nil
}

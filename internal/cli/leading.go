package cli

import (
	"fmt"
	"slices"
	"strings"
)

// A Leading flag stands before the command only: behind it the command may have
// another one of the same name.
type Leading struct {
	// Name has no hyphens; Short is a letter, or "".
	Name, Short string
	// Help is for kist --help, "" leaves it out there.
	Help string
	Set  func(value string) error
}

// takeLeading gives the leading flags of args their values and returns the rest.
func (l *Line) takeLeading(args []string) ([]string, error) {
	takesValue := l.valueFlags()
	for i := 0; i < len(args) && strings.HasPrefix(args[i], "-") && args[i] != "--"; i++ {
		name, value, attached := strings.Cut(args[i], "=")
		at := slices.IndexFunc(l.Leading, func(f Leading) bool { return name == "--"+f.Name || f.Short != "" && name == "-"+f.Short })
		switch {
		case at < 0 && takesValue[args[i]]:
			i++
			continue
		case at < 0:
			continue
		}
		end := i + 1
		if !attached {
			if end == len(args) {
				return nil, &usageError{text: name + ": missing value"}
			}
			value = args[end]
			end++
		}
		if err := l.Leading[at].Set(value); err != nil {
			return nil, &usageError{text: fmt.Sprintf("%s %s: %v", name, value, err)}
		}
		args = slices.Delete(slices.Clone(args), i, end)
		i--
	}
	return args, nil
}

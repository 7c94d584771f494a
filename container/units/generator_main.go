package units

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/ui"
)

// GeneratorMain plays SystemGenerator and UserGenerator: NAME [-dryrun] [-user]
// NORMAL-DIR [EARLY-DIR LATE-DIR]. systemd shows what it prints.
func GeneratorMain() int {
	p := place{User: filepath.Base(os.Args[0]) == UserGenerator, UID: os.Getuid(), Getenv: os.Getenv}
	dry := false
	var dirs []string
	for _, a := range os.Args[1:] {
		switch strings.TrimLeft(a, "-") {
		case "dryrun", "dry-run":
			dry = true
		case "user":
			p.User = true
		case "v", "no-kmsg-log": // podman's; what is printed is enough
		default:
			dirs = append(dirs, a)
		}
	}
	unix.Umask(0o022) // units are for all to read
	var err error
	switch {
	case dry:
		err = p.print(ui.Std())
	case len(dirs) == 0:
		err = fmt.Errorf("usage: %s [-dryrun] [-user] NORMAL-DIR [EARLY-DIR LATE-DIR]", filepath.Base(os.Args[0]))
	default:
		err = p.generate(dirs[0])
	}
	if err == nil {
		return 0
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		fmt.Fprintln(os.Stderr, "kist:", ui.Escape(line))
	}
	return 1
}

// print shows all services instead of writing them.
func (p place) print(out *ui.Output) error {
	all, errs := p.load()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		f, warnings, err := p.service(all[name], all)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, w := range warnings {
			out.Warn("%s: %s", all[name].Path, w)
		}
		out.Printf("---%s.service---\n%s\n", all[name].service, f.Text())
	}
	return errors.Join(errs...)
}

package cli

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/kist-containers/kist/internal/ui"
)

// Version is kist's own, until a release stamps another into the binary with
// -ldflags '-X'.
var Version = "0.1.0-dev"

// VersionCmd is `kist version`.
type VersionCmd struct {
	Format string `short:"f" help:"Format by a template, or json." placeholder:"TEMPLATE"`
}

type versionInfo struct{ Client versionFacts }

type versionFacts struct {
	Version   string
	GoVersion string
	GitCommit string
	Os, Arch  string
	BuildTime string
}

func facts() versionFacts {
	f := versionFacts{Version: Version, GoVersion: runtime.Version(), Os: runtime.GOOS, Arch: runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				f.GitCommit = s.Value
			case "vcs.time":
				f.BuildTime = s.Value
			}
		}
	}
	return f
}

// Run prints the facts about the binary.
func (c *VersionCmd) Run(out *ui.Output) error {
	f := facts()
	if c.Format != "" {
		return ui.Inspect(out.Out, c.Format, []any{versionInfo{f}})
	}
	out.Printf("Client: kist\n Version:    %s\n Go version: %s\n Git commit: %s\n Built:      %s\n OS/Arch:    %s/%s\n",
		f.Version, f.GoVersion, f.GitCommit, f.BuildTime, f.Os, f.Arch)
	return nil
}

// VersionLine is what `kist --version` prints.
func VersionLine() string {
	f := facts()
	return fmt.Sprintf("kist version %s, build %.7s", f.Version, cmp.Or(f.GitCommit, "unknown"))
}

// Commands returns the commands that belong to the command line itself.
func Commands() []ui.Command {
	return []ui.Command{{
		Name: "version", Group: "System", Help: "Show the version of kist",
		New: func() any { return new(VersionCmd) },
	}, {
		Name: "completion", Group: "System", Help: "Print the completion script of a shell",
		New: func() any { return new(CompletionCmd) },
	}}
}

package build

import "github.com/kist-containers/kist/internal/ui"

// Commands returns the commands of this package.
func Commands() []ui.Command {
	return []ui.Command{
		{Name: "build", Help: "Build an image from a Dockerfile.", Group: "Images", New: func() any { return new(Cmd) }},
		{Name: "builder", Help: "Build images, and list and prune the build cache.", Group: "Images", New: func() any { return new(BuilderCmds) }},
		{Name: "buildx", Help: "Same as builder.", Group: "Images", Hidden: true, New: func() any { return new(BuilderCmds) }},
	}
}

// BuilderCmds are the subcommands of `kist builder`.
type BuilderCmds struct {
	Build Cmd      `cmd:"" help:"Build an image from a Dockerfile."`
	Prune PruneCmd `cmd:"" help:"Remove build cache."`
	Ls    ListCmd  `cmd:"" aliases:"du" help:"List the build cache."`
}

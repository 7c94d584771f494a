package build

import (
	"github.com/kist-containers/kist/image"
	"github.com/kist-containers/kist/internal/ui"
)

// Commands returns the commands of this package.
func Commands() []ui.Command {
	return []ui.Command{
		{Name: "image", Help: "Manage images", Group: image.Group, New: func() any { return new(imageCmds) }},
		{Name: "build", Help: "Build an image from a Dockerfile", Group: image.Group, New: func() any { return new(Cmd) }},
		{Name: "builder", Help: "Build images, and list and prune the build cache.", Group: image.Group, New: func() any { return new(builderCmds) }},
		{Name: "buildx", Help: "Same as builder.", Group: image.Group, Hidden: true, New: func() any { return new(builderCmds) }},
	}
}

// imageCmds are the subcommands of `kist image`.
type imageCmds struct {
	image.Cmds
	Build Cmd `cmd:"" help:"Build an image from a Dockerfile"`
}

// builderCmds are the subcommands of `kist builder`.
type builderCmds struct {
	Build Cmd      `cmd:"" aliases:"b" help:"Build an image from a Dockerfile"`
	Prune PruneCmd `cmd:"" help:"Remove build cache."`
	Ls    ListCmd  `cmd:"" aliases:"du" help:"List the build cache."`
}

package image

import "github.com/kist-containers/kist/internal/ui"

// group is the heading of these commands in kist --help.
const group = "Images"

// Cmds are the subcommands of `kist image`.
type Cmds struct {
	Ls   ListCmd `cmd:"" aliases:"list" help:"List images."`
	Pull PullCmd `cmd:"" help:"Download an image from its registry."`
	Load LoadCmd `cmd:"" help:"Take in images from an archive."`
	Rm   RmCmd   `cmd:"" aliases:"remove" help:"Remove images."`
	Tag  TagCmd  `cmd:"" help:"Give an image another name."`
}

// Commands returns the commands of this package.
func Commands() []ui.Command {
	return []ui.Command{
		{Name: "image", Group: group, Help: "Manage images.", New: func() any { return new(Cmds) }},
		{Name: "images", Group: group, Help: "List images.", New: func() any { return new(ListCmd) }},
		{Name: "pull", Group: group, Help: "Download an image from its registry.", New: func() any { return new(PullCmd) }},
		{Name: "load", Group: group, Help: "Take in images from an archive.", New: func() any { return new(LoadCmd) }},
		{Name: "rmi", Group: group, Help: "Remove images.", New: func() any { return new(RmCmd) }},
		{Name: "tag", Group: group, Help: "Give an image another name.", New: func() any { return new(TagCmd) }},
	}
}
